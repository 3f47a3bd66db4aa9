"""Owns the sets that recipes are compared on: each one table with a column `subset`, and what every run on it shares.

ppe     photos of building sites in a folder of the reader's own: train/, valid/ and test/, a _classes.csv in each
digits  the built-in scenes of digits, of 64 px, made larger to --image-size; never mirrored, as a mirrored 2 is no 2
scenes  scenes.py's drawn scenes, generated where they are asked for
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]  # mlcls as it stands beside this script is what is measured
sys.path[:0] = [str(ROOT)]

import pandas as pd  # noqa: E402
from kept_runs import Case, Facts, figures, read_runs, run_cases  # noqa: E402
from scenes import SIDE, write_scenes  # noqa: E402

from mlcls.commandline import Parser, add_recipe_flags, recipe_flags  # noqa: E402
from mlcls.labels.demo import write_digits  # noqa: E402
from mlcls.recipe import IMAGES, MODEL, OUTPUT, TABLE, TRAINING, Recipe, build_recipe  # noqa: E402
from mlcls.workflows.shelf import open_shelf  # noqa: E402
from mlcls.workflows.training import fit  # noqa: E402

SUBSETS = ("train", "val", "test")
OWN_NETWORK = ("from-scratch", "demo")  # recipes that name a network that trains from nothing


@dataclass(frozen=True)
class Set:
    """A set and the settings that all runs on it share.

    Attributes:
        name: with what it depends on, such as the image size.
        table: column `image`, the attributes ('1', '0' or 'NA'), and `subset`.
        images: the folder that `image` is relative to.
        settings: over every recipe: the split, the image size; never the backbone.
        network: over recipes that start from pretrained weights: backbone and weights.
    """

    name: str
    table: pd.DataFrame
    images: Path
    settings: dict[str, Any]
    network: dict[str, Any]

    @property
    def attributes(self) -> list[str]:
        return [name for name in self.table.columns if name not in ("image", "subset")]

    @property
    def counts(self) -> str:
        return ", ".join(f"{int((self.table.subset == subset).sum()):,} {subset}" for subset in SUBSETS)

    def recipe(self, name: str, **settings: Any) -> Recipe:
        """A recipe on this set, with settings over it (`..._args` are merged)."""
        over = dict(self.settings)
        if name not in OWN_NETWORK and "backbone" not in settings:
            over.update(self.network)
        for key, value in settings.items():
            both = isinstance(over.get(key), dict) and isinstance(value, dict)
            over[key] = {**over[key], **value} if both else value
        return build_recipe(name, **over)

    def fit(self, out: Path, recipe: Recipe, table: pd.DataFrame | None = None, **more: Any) -> Any:
        """The record of a run; `table` in the place of the set's own."""
        given = self.table if table is None else table
        return fit(recipe, labels=given, images=self.images, out=out, **more)


def add_set_flags(parser: argparse.ArgumentParser, *, seeds: int) -> None:
    """Which sets, how large, how often; what the parser does not know goes to every run as flags of train."""
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs, made if need be")
    parser.add_argument("--ppe", type=Path, help="folder with train/, valid/, test/, a _classes.csv in each")
    parser.add_argument("--digits", action="store_true", help="the built-in scenes of digits")
    parser.add_argument("--scenes", action="store_true", help="scenes as scenes.py draws them")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", default="pretrained", help="of --backbone (default: timm's own source)")
    parser.add_argument("--image-size", type=int, default=128, help="of all sets")
    parser.add_argument("--limit", type=int, help="images of train, and a third of it of val and test each")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--table-only", action="store_true", help="no runs: the tables of those in --results")
    parser.add_argument("--out", type=Path, help="write the tables there too")


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The script's own flags, and those of train, as settings for every run."""
    given, flags = parser.parse_known_args()
    return given, train_settings(flags)


def train_settings(flags: list[str]) -> dict[str, Any]:
    """Flags of train as settings of a recipe, in their own types."""
    train = Parser("train", "")
    add_recipe_flags(train, (TABLE, MODEL, IMAGES, TRAINING, OUTPUT))
    settings = recipe_flags(train.parse_args(flags))
    checked = Recipe(**settings)
    return {name: getattr(checked, name) for name in settings}


def read_sets(given: argparse.Namespace) -> list[Set]:
    """The sets that were asked for; digits where none was."""
    sets = []
    if given.ppe:
        sets.append(_set(given, "ppe", _ppe_table(given.ppe), given.ppe, given.image_size))
    if given.digits or not (given.ppe or given.scenes):
        sets.append(_labels_csv(given, "digits", write_digits(), given.image_size))
    if given.scenes:
        folder = given.results / "scenes"
        path = folder / "labels.csv"
        size = min(given.image_size, SIDE)
        sets.append(_labels_csv(given, "scenes", path if path.is_file() else write_scenes(folder), size))
    return sets


def _ppe_table(folder: Path) -> pd.DataFrame:
    """The three tables as one; a row without a photo is left out."""
    tables = []
    for part, subset in (("train", "train"), ("valid", "val"), ("test", "test")):
        table = pd.read_csv(folder / part / "_classes.csv", skipinitialspace=True, dtype=str)
        there = [(folder / part / name).is_file() for name in table.filename]
        table = table[there].rename(columns={"filename": "image"})
        tables.append(table.assign(image=part + "/" + table.image, subset=subset))
    return pd.concat(tables, ignore_index=True)


def _labels_csv(given: argparse.Namespace, name: str, path: Path, size: int) -> Set:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return _set(given, name, table, path.parent / "images", size)


def _set(given: argparse.Namespace, name: str, table: pd.DataFrame, images: Path, size: int) -> Set:
    if given.limit:
        most = dict(zip(SUBSETS, (given.limit, *[-(-given.limit // 3)] * 2), strict=True))
        table = table[table.groupby("subset").cumcount() < table.subset.map(most)].reset_index(drop=True)
    settings: dict[str, Any] = {"split": "column:subset", "image_size": size, "resamples": 0}
    if name == "digits":
        settings["augment_args"] = {"hflip_p": 0.0}
    said = f"{name}-{size}" + (f"-{given.limit}" if given.limit else "")
    network = {"backbone": given.backbone, "weights": given.weights}
    return Set(said, table, images.resolve(), settings, network)


def plain_case(
    chosen: Set, words: dict[str, Any], seed: int, settings: dict[str, Any], table: pd.DataFrame | None = None
) -> Case:
    """A run of the recipe named in `words` with these settings, told apart by `words`, the set and the seed.

    What the frozen part makes of the images is shared with the runs before, which spares time and changes no bit.
    """

    def run(folder: Path) -> Facts:
        recipe = chosen.recipe(words.get("recipe", "default"), **settings, seed=seed)
        facts: Facts = figures(chosen.fit(folder / "bundle", recipe, table, shelf=open_shelf()))
        return facts

    return Case({"set": chosen.name, "network": chosen.network["backbone"], **words, "seed": seed}, run)


def write_tables(given: argparse.Namespace, text: str) -> None:
    """Print the tables, and write them to --out."""
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


def flag_words(settings: dict[str, Any]) -> str:
    """Settings as one word for a key: `epochs=8 views=2`."""
    parts = []
    for name, value in sorted(settings.items()):
        said = Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        parts.append(f"{name}={said}")
    return " ".join(parts)


__all__ = [
    "Set",
    "add_set_flags",
    "parse",
    "plain_case",
    "read_runs",
    "read_sets",
    "run_cases",
    "write_tables",
]
