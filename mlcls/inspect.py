"""`python -m mlcls.inspect`: what a label table and its images hold, without training; whether a bundle is whole."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mlcls.commandline import Parser, add_recipe_flags, check_output, console_on, recipe_flags, run_command
from mlcls.errors import RecipeError
from mlcls.recipe import IMAGES, TABLE, build_recipe, flag_of


def main(argv: Sequence[str] | None = None) -> int:
    """Inspect; returns the exit code."""
    return run_command(_inspect, argv)


def _inspect(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "inspect",
        "Say all that train would say about a label table and its images, train nothing; or verify a bundle.",
    )
    parser.add_argument(
        "--recipe", default="default", metavar="NAME|FILE", help="as in train (default: default)"
    )
    parser.add_argument(
        "--preview", metavar="FILE.png", help="write a sheet of augmented images with their labels"
    )
    parser.add_argument("--seed", help="as in train (default: 0)")
    parser.add_argument(
        "--model", metavar="DIR", help="verify every file of this finished bundle instead of reading a table"
    )
    add_recipe_flags(parser, (TABLE, IMAGES))
    arguments = parser.parse_args(argv)
    flags = recipe_flags(arguments)
    if arguments.model is not None:
        others = {**flags, "preview": arguments.preview, "recipe": arguments.recipe}
        return _verify(
            arguments.model, [name for name, value in others.items() if value not in (None, "default")]
        )
    check_output("--preview", arguments.preview, ".png")
    if flags.get("seed") is None:
        flags.pop("seed", None)
    recipe = build_recipe(arguments.recipe, **flags)

    from mlcls.workflows.inspection import inspect_data, write_preview

    preview = Path(arguments.preview) if arguments.preview else None
    data = inspect_data(recipe, console_on(sys.stdout), console_on(sys.stderr))
    if preview:
        write_preview(preview, recipe, data)
        sys.stdout.write(f"preview: {preview}\n")
    return 0


def _verify(model: str, others: Sequence[str]) -> int:
    if others:
        raise RecipeError(f"{flag_of(others[0])}: speaks of a table; leave it out, or leave --model out")

    from mlcls.bundle.unfinished import unfinished_notes
    from mlcls.workflows.verification import show_verified

    sys.stderr.writelines(unfinished_notes(model))
    show_verified(model, console_on(sys.stdout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
