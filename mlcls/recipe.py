"""The recipe: every setting of a run in one frozen dataclass, from flags over a TOML file over defaults.

A field is written once, here: its default, its flag, its help line and what values it may take. The flags of
the commands, the keys of a TOML recipe and the arguments of `Recipe(...)` all have its name. Names that
a room owns (losses, samplers, heads, ...) are checked by the workflow against that room's own dict.
"""

import contextlib
import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcls.errors import RecipeError
from mlcls.kinds import Kind, auto_integer, integer, key_values, number, plain_value, text, text_list
from mlcls.naming import suggest

RECIPES_FOLDER = Path(__file__).parent / "recipes"


def _setting(
    default: Any,
    help_line: str,
    *,
    group: str,
    kind: Kind = text,
    least: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
) -> Any:
    """A field of the recipe with all that flags, TOML and checks need to know of it."""
    metadata = {
        "help": help_line,
        "group": group,
        "kind": kind,
        "least": least,
        "below": below,
        "choices": choices,
        "metavar": metavar,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


TABLE, MODEL, IMAGES, TRAINING, OUTPUT = "the label table", "the model", "images", "training", "output"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run; a field's name is its flag's (`batch_size` is `--batch-size`) and its TOML key.

    Raises:
        RecipeError: one or more fields have values that cannot be used; the message names them all.
    """

    labels: str = _setting("data/labels.txt", "the label table, or demo:digits", group=TABLE, metavar="FILE")
    images: str | None = _setting(
        None,
        "folder of the images (default: images/ beside the table, else the table's own folder)",
        group=TABLE,
        metavar="DIR",
    )
    val_labels: str | None = _setting(None, "a table of its own for validation", group=TABLE, metavar="FILE")
    test_labels: str | None = _setting(None, "a table of its own for the test", group=TABLE, metavar="FILE")
    image_column: str | None = _setting(
        None, "column that names the image (default: the first)", group=TABLE, metavar="NAME"
    )
    names: tuple[str, ...] | None = _setting(
        None,
        "names for the label columns of a table without header",
        group=TABLE,
        kind=text_list,
        metavar="NAME",
    )
    attributes: tuple[str, ...] | None = _setting(
        None, "columns to train (default: every label column)", group=TABLE, kind=text_list, metavar="NAME"
    )
    tags_column: str | None = _setting(
        None, "a column of tags instead of label columns", group=TABLE, metavar="NAME"
    )
    tags_separator: str | None = _setting(
        None, "what stands between two tags (default: found by itself)", group=TABLE, metavar="TEXT"
    )
    minus_one: str | None = _setting(
        None, "what -1 means in a table without any 0", group=TABLE, choices=("absent", "unknown")
    )
    split: str = _setting(
        "0.7,0.15,0.15",
        "fractions train,val,test; or column:NAME, or file:split.csv",
        group=TABLE,
        metavar="SPLIT",
    )
    group_column: str | None = _setting(
        None, "rows that share this column's value stay in one subset", group=TABLE, metavar="NAME"
    )
    near_duplicates: str = _setting(
        "together",
        "copies of one photo (encoded anew, resized, slightly cropped): together in one subset, or ignore",
        group=TABLE,
        choices=("together", "ignore"),
    )

    image_cache_gb: float = _setting(
        10.0,
        "disk space for decoded images, which all commands but inspect keep between runs, the least recently used "
        "given up first (0: none)",
        group=TABLE,
        kind=number,
        least=0,
        below=1e9,
    )
    max_pixels: int = _setting(
        200_000_000,
        "largest image that is read, width times height; its header tells before it is decoded",
        group=TABLE,
        kind=integer,
        least=1,
    )

    backbone: str = _setting(
        "resnet18", "any timm model, or cnn4 (a small network to train from scratch)", group=MODEL
    )
    backbone_args: dict[str, Any] = _setting(
        {}, "for the backbone's constructor", group=MODEL, kind=key_values, metavar="KEY=VALUE"
    )
    weights: str = _setting("pretrained", "pretrained, none, or a .safetensors or .pth file", group=MODEL)
    head: str = _setting("mlp", "mlp, linear or fc", group=MODEL)
    dropout: float | None = _setting(
        None,
        "the head's first dropout (default: the head's own)",
        group=MODEL,
        kind=number,
        least=0,
        below=1,
    )

    image_size: int | None = _setting(
        None,
        "side of the square that the model sees, in pixels (default: the backbone's)",
        group=IMAGES,
        kind=integer,
        least=8,
        below=8193,  # 200 MB an image: beyond it no machine has room for a batch
    )
    fit: str = _setting("squash", "how an image becomes square: squash, crop or pad", group=IMAGES)
    augment: str = _setting("light", "none, light (flip), rich or strong", group=IMAGES)
    augment_args: dict[str, Any] = _setting(
        {}, "probabilities and ranges of the augmentation", group=IMAGES, kind=key_values, metavar="KEY=VALUE"
    )
    augment_rare: str = _setting(
        "none",
        "augmentation of the images that hold a rare attribute, in the place of --augment: none (the same), light, "
        "rich or strong",
        group=IMAGES,
    )
    rare_share: float = _setting(
        0.1,
        "an attribute is rare where at most this share of its known training labels is present",
        group=IMAGES,
        kind=number,
        least=0,
        below=1,
    )
    first_image_size: int | None = _setting(
        None,
        "side of the images in the first epoch of a stage that trains on pixels; it grows to --image-size by the "
        "middle of the stage (default: the same throughout)",
        group=IMAGES,
        kind=integer,
        least=8,
        below=8193,
    )
    mixup: float = _setting(
        0.0,
        "mix each image with another, by a share drawn from Beta(X, X); a cell is known where both are (0: off)",
        group=IMAGES,
        kind=number,
        least=0,
        below=1e3,
    )
    cutmix: float = _setting(
        0.0,
        "put a rectangle of another image into each, its area drawn from Beta(X, X) (0: off)",
        group=IMAGES,
        kind=number,
        least=0,
        below=1e3,
    )
    tta: str = _setting(
        "none",
        "views that a prediction averages: none, or names with commas between them, as flip,zoom",
        group=IMAGES,
    )
    folds: int = _setting(
        0,
        "train so many members, each on all but its share of the rows that are not of the test subset, and make one "
        "bundle that averages them (0: one network)",
        group=TRAINING,
        kind=integer,
        least=0,
        below=101,
    )
    batch_size: int = _setting(32, "images a step", group=TRAINING, kind=integer, least=1)
    epochs: int = _setting(15, "epochs at most, both stages together", group=TRAINING, kind=integer, least=1)
    seed: int = _setting(
        0,
        "seed of the split, the order, the augmentation and the weights",
        group=TRAINING,
        kind=integer,
        least=0,
        below=2**63,
    )
    workers: int | str = _setting(
        "auto", "processes that load images", group=TRAINING, kind=auto_integer, least=0, below=1025
    )
    unfreeze_epoch: int = _setting(
        3, "first epoch of the second stage (0: one stage only)", group=TRAINING, kind=integer, least=0
    )
    unfreeze: str = _setting(
        "last",
        "what trains beside the head then: none, last (the backbone's last stage), all, module names, or gradual "
        "(one stage of the backbone more after the other)",
        group=TRAINING,
    )
    lr_head: float = _setting(
        2e-3,
        "learning rate of the stage that trains the head alone",
        group=TRAINING,
        kind=number,
        least=0,
        below=1e6,
    )
    lr_finetune: float = _setting(
        1e-3,
        "learning rate of every stage that trains the backbone too",
        group=TRAINING,
        kind=number,
        least=0,
        below=1e6,
    )
    layer_decay: float = _setting(
        1.0,
        "learning rate of each layer of the backbone over that of the layer above it (1: all alike)",
        group=TRAINING,
        kind=number,
        least=1e-3,
        below=1.0000001,
    )
    optimizer: str = _setting("adamw", "adam, adamw or sgd", group=TRAINING)
    optimizer_args: dict[str, Any] = _setting(
        {}, "numbers of the optimizer", group=TRAINING, kind=key_values, metavar="KEY=VALUE"
    )
    weight_decay: float = _setting(
        1e-4, "not applied to biases and norms", group=TRAINING, kind=number, least=0, below=1e6
    )
    schedule: str = _setting("cosine", "none, step, plateau or cosine", group=TRAINING)
    schedule_args: dict[str, Any] = _setting(
        {}, "warm-up and numbers of the schedule", group=TRAINING, kind=key_values, metavar="KEY=VALUE"
    )
    loss: str = _setting("bce", "bce, focal, asl, or package.module:function", group=TRAINING)
    loss_args: dict[str, Any] = _setting(
        {}, "numbers of the loss", group=TRAINING, kind=key_values, metavar="KEY=VALUE"
    )
    label_smoothing: float = _setting(
        0.0,
        "targets of training are drawn so far toward 0.5: 0.1 makes them 0.05 and 0.95",
        group=TRAINING,
        kind=number,
        least=0,
        below=1,
    )
    pos_weight: str = _setting(
        "auto",
        "auto (negatives/positives in training, capped), none, or a number an attribute: 1,2.5,4",
        group=TRAINING,
    )
    pos_weight_cap: float = _setting(10.0, "the most that auto gives", group=TRAINING, kind=number, least=1)
    na: str = _setting(
        "ignore",
        "what an unknown label counts as in training: nothing (ignore), absent (negative), or absent where that is "
        "likely (selective)",
        group=TRAINING,
        choices=("ignore", "negative", "selective"),
    )
    na_args: dict[str, Any] = _setting(
        {}, "numbers of --na selective", group=TRAINING, kind=key_values, metavar="KEY=VALUE"
    )
    sampler: str = _setting("shuffle", "shuffle or balanced", group=TRAINING)
    clip_norm: float = _setting(
        0.0, "largest gradient norm (0: no clipping)", group=TRAINING, kind=number, least=0
    )
    accumulate: int = _setting(1, "batches a step", group=TRAINING, kind=integer, least=1)
    ema: float = _setting(
        0.0,
        "decay of an exponential moving average of the weights, which is validated and kept in their place (0: off; "
        "usual: 0.99 to 0.9999)",
        group=TRAINING,
        kind=number,
        least=0,
        below=1,
    )
    soup: int = _setting(
        0,
        "average the weights of up to so many of the best epochs, as long as that is better on validation (0: off)",
        group=TRAINING,
        kind=integer,
        least=0,
        below=101,
    )
    patience: int = _setting(
        5,
        "epochs without a better monitored figure before it stops (0: never)",
        group=TRAINING,
        kind=integer,
        least=0,
    )
    monitor: str = _setting(
        "auto",
        "what tells the best epoch: val_map, val_loss, val_f1, or auto (val_map where validation defines it, else "
        "val_loss)",
        group=TRAINING,
    )
    objective: str = _setting(
        "f1",
        "how thresholds are chosen: f1, fbeta:B, precision:P, recall:R, youden, cost:FP,FN or fixed:T",
        group=TRAINING,
    )
    estimator: str = _setting(
        "robust",
        "robust (the mean of bootstrapped optima, drawn to the attributes' common threshold) or exact (the optimum)",
        group=TRAINING,
    )
    calibration: str = _setting(
        "platt",
        "platt (probabilities made to mean what they say, on validation) or none",
        group=TRAINING,
        choices=("platt", "none"),
    )
    resamples: int = _setting(
        1000,
        "bootstrap resamples for the intervals of the figures (0: none)",
        group=TRAINING,
        kind=integer,
        least=0,
        below=100_001,
    )
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps", group=TRAINING)
    precision: str = _setting("auto", "auto, fp32, bf16 or fp16", group=TRAINING)
    views: int = _setting(
        2,
        "augmentations of each image that the frozen part of the backbone is computed for, an epoch each in turn "
        "(0: a new one every epoch, and nothing kept)",
        group=TRAINING,
        kind=integer,
        least=0,
    )
    cache_gb: float = _setting(
        4.0,
        "memory for what the frozen part computed; beyond it, a file on disk",
        group=TRAINING,
        kind=number,
        least=0,
        below=1e9,
    )
    compile: str = _setting(
        "off", "on: torch.compile, worth its minutes on a GPU", group=TRAINING, choices=("off", "on")
    )
    checkpoint_minutes: float = _setting(
        5.0,
        "work that is done again after a kill, at most; epochs' ends are kept too (0: no checkpoint but at Ctrl-C)",
        group=OUTPUT,
        kind=number,
        least=0,
    )
    log: tuple[str, ...] | None = _setting(
        None,
        "write the figures for others' tools too: csv, tensorboard, wandb",
        group=OUTPUT,
        kind=text_list,
        metavar="NAME",
    )
    log_dir: str | None = _setting(
        None, "folder of --log (default: logs/ and the name of --out)", group=OUTPUT, metavar="DIR"
    )
    title: str | None = _setting(None, "title of the loss picture", group=OUTPUT, metavar="TEXT")

    def __post_init__(self) -> None:
        faults = []
        for field in dataclasses.fields(self):
            try:
                object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
            except ValueError as error:
                faults.append(f"{flag_of(field.name)}: {error}")
        if faults:
            raise RecipeError("\n".join(faults))


def flag_of(name: str) -> str:
    """The flag of a recipe's field: `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def _checked(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """The field's value in its own type; ValueError says what was expected and what was given."""
    if value in (None, "") and field.default is None:
        return None
    rules = field.metadata
    try:
        value = rules["kind"](value)
    except ValueError as error:
        raise ValueError(f"{error}, got {value!r}") from None
    if isinstance(value, int | float):
        if rules["least"] is not None and value < rules["least"]:
            raise ValueError(f"expected at least {rules['least']}, got {value!r}")
        if rules["below"] is not None and value >= rules["below"]:
            raise ValueError(f"expected less than {rules['below']:,g}, got {value!r}")
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"expected {' or '.join(rules['choices'])}, got '{value}'")
    return value


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """The settings that a named recipe or a TOML file holds (only those it names).

    Raises:
        RecipeError: there is no such recipe or file, it is no TOML, or it holds keys that are no settings.
    """
    path = RECIPES_FOLDER / f"{name_or_path}.toml"
    if Path(name_or_path).name != name_or_path or not path.is_file():
        path = Path(name_or_path)
        if not path.is_file():
            near = suggest(name_or_path, recipe_names())
            raise RecipeError(f"--recipe: there is no recipe and no file '{name_or_path}'; {near}")
    try:
        toml = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(toml)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also: tables in tables without end, a number of 5,000 digits
        raise RecipeError(f"{path}: not a TOML file: {error}") from error
    known = [field.name for field in dataclasses.fields(Recipe)]
    faults = [
        f"{path}{_line_of(toml, key)}: '{key}' is not a setting; {suggest(key, known)}"
        for key in values
        if key not in known
    ]
    if faults:
        raise RecipeError("\n".join(faults))
    return values


def _line_of(toml: str, key: str) -> str:
    for line_number, line in enumerate(toml.splitlines(), start=1):
        if line.strip().lstrip("[").lstrip("\"'").startswith(key):
            return f", line {line_number}"
    return ""


def build_recipe(name_or_path: str = "default", **settings: Any) -> Recipe:
    """A recipe from a name or TOML file, with `settings` (flags) over it; `..._args` are merged by key.

    Raises:
        RecipeError: naming every setting that cannot be used.
    """
    values = read_recipe(name_or_path)
    for name, value in settings.items():
        if isinstance(values.get(name), Mapping):
            with contextlib.suppress(ValueError):  # Recipe names what is wrong with it
                value = {**values[name], **key_values(value)}
        values[name] = value
    return Recipe(**values)


def recipe_names() -> list[str]:
    """The names of the built-in recipes, the default first."""
    names = sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: name != "default")


def recipe_summary(name: str) -> str:
    """A built-in recipe's one-line description: the first line of its first comment."""
    first = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """All settings as plain values that JSON and TOML hold (tuples as lists)."""
    return {field.name: plain_value(getattr(recipe, field.name)) for field in dataclasses.fields(recipe)}


def recipe_toml(recipe: Recipe, comment: str) -> str:
    """The recipe as TOML, complete but for settings that are not set, under a comment."""
    import tomli_w

    values = {key: value for key, value in recipe_values(recipe).items() if value is not None}
    # tables last, as TOML wants it
    ordered = dict(sorted(values.items(), key=lambda item: isinstance(item[1], dict)))
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + tomli_w.dumps(ordered)
