"""`python -m mlcls.train`: a label table and a folder of images become a trained, tuned, saved classifier."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from mlcls.commandline import (
    GAVE_OUT,
    Parser,
    add_recipe_flags,
    check_output,
    console_on,
    recipe_flags,
    run_command,
)
from mlcls.errors import RecipeError
from mlcls.recipe import (
    IMAGES,
    MODEL,
    OUTPUT,
    TABLE,
    TRAINING,
    Recipe,
    build_recipe,
    recipe_names,
    recipe_summary,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    return run_command(_train, argv)


def _train(argv: Sequence[str] | None) -> int:
    parser = Parser("train", "Fine-tune a timm backbone on a label table and a folder of images.")
    parser.add_argument("--recipe", metavar="NAME|FILE",
                        help="a named recipe, a TOML file, or list (default: default)")  # fmt: skip
    parser.add_argument(
        "--out", default="outputs", metavar="DIR", help="the bundle's folder (default: outputs)"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the bundle, or the unfinished run, that stands in --out",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the unfinished run in --out, to the same bytes (other flags may be left out); begin one where "
        "there is none",
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="with --resume: train no further, make the bundle of the best epoch so far",
    )
    parser.add_argument(
        "--find-lr",
        metavar="FILE.png",
        help="train nothing, write no bundle: try learning rates on each stage, draw the loss over them in this file, "
        "and say which of them it speaks for",
    )
    add_recipe_flags(parser, (TABLE, MODEL, IMAGES, TRAINING, OUTPUT))
    arguments = parser.parse_args(argv)
    if arguments.recipe == "list":
        names = recipe_names()
        width = max(map(len, names))
        sys.stdout.writelines(f"{name:<{width}}  {recipe_summary(name)}\n" for name in names)
        return 0
    flags = recipe_flags(arguments)
    recipe = build_recipe(arguments.recipe or "default", **flags)
    if arguments.find_lr is not None:
        return _find_lr(arguments, recipe)

    from mlcls.workflows import training
    from mlcls.workflows.finishing import FAILED

    out = Path(arguments.out)
    if arguments.resume and arguments.recipe is None:
        recipe = training.recipe_to_resume(out, recipe, flags)
    given = sys.argv[1:] if argv is None else argv
    record = training.fit(
        recipe,
        out=out,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        finish=arguments.finish,
        console=console_on(sys.stderr),
        command=shlex.join(["mlcls", "train", *given]),
    )
    return GAVE_OUT if (record.stopped_because or "").startswith(FAILED) else 0


def _find_lr(arguments: Namespace, recipe: Recipe) -> int:
    """`--find-lr` in the place of a training."""
    for flag in ("resume", "finish", "overwrite"):
        if getattr(arguments, flag):
            raise RecipeError(f"--find-lr trains nothing, and touches no bundle: leave --{flag} out")
    check_output("--find-lr", arguments.find_lr, ".png")

    from mlcls.workflows.lr_search import find_lr

    find_lr(recipe, arguments.find_lr, console=console_on(sys.stderr))
    return 0


if __name__ == "__main__":
    sys.exit(main())
