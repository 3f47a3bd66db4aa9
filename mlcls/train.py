"""`python -m mlcls.train`: a label table and a folder of images become a trained, tuned, saved classifier."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlcls.commandline import (
    GAVE_OUT,
    INTERRUPTED,
    Parser,
    add_recipe_flags,
    console_on,
    recipe_flags,
    run_command,
)
from mlcls.errors import RecipeError
from mlcls.recipe import IMAGES, MODEL, OUTPUT, TABLE, TRAINING, build_recipe, recipe_names, recipe_summary


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    return run_command(_train, argv)


def _train(argv: Sequence[str] | None) -> int:
    parser = Parser("train", "Fine-tune a timm backbone on a label table and a folder of images.")
    parser.add_argument("--recipe", default="default", metavar="NAME|FILE",
                        help="a named recipe, a TOML file, or list (default: default)")  # fmt: skip
    parser.add_argument(
        "--out", default="outputs", metavar="DIR", help="the bundle's folder (default: outputs)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle that stands in --out")
    parser.add_argument("--resume", action="store_true", help="not there yet: go on with an unfinished run")
    add_recipe_flags(parser, (TABLE, MODEL, IMAGES, TRAINING, OUTPUT))
    arguments = parser.parse_args(argv)
    if arguments.recipe == "list":
        names = recipe_names()
        width = max(map(len, names))
        sys.stdout.writelines(f"{name:<{width}}  {recipe_summary(name)}\n" for name in names)
        return 0
    if arguments.resume:
        raise RecipeError(
            "--resume: this version cannot go on with an unfinished run yet; train again without it"
        )
    recipe = build_recipe(arguments.recipe, **recipe_flags(arguments))

    from mlcls.workflows import training
    from mlcls.workflows.finishing import FAILED

    given = sys.argv[1:] if argv is None else argv
    record = training.fit(
        recipe,
        out=Path(arguments.out),
        overwrite=arguments.overwrite,
        console=console_on(sys.stderr),
        command=shlex.join(["mlcls", "train", *given]),
    )
    stopped = record.stopped_because or ""
    if stopped == training.INTERRUPTED:
        return INTERRUPTED
    return GAVE_OUT if stopped.startswith(FAILED) else 0


if __name__ == "__main__":
    sys.exit(main())
