"""`python -m mlcls.inspect`: what a label table and its images hold, without training."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mlcls.commandline import Parser, add_recipe_flags, console_on, recipe_flags, run_command
from mlcls.errors import RecipeError
from mlcls.recipe import IMAGES, TABLE, build_recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Inspect; returns the exit code."""
    return run_command(_inspect, argv)


def _inspect(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "inspect", "Say all that train would say about a label table and its images; train nothing."
    )
    parser.add_argument(
        "--recipe", default="default", metavar="NAME|FILE", help="as in train (default: default)"
    )
    parser.add_argument(
        "--preview", metavar="FILE.png", help="write a sheet of augmented images with their labels"
    )
    parser.add_argument("--seed", help="as in train (default: 0)")
    add_recipe_flags(parser, (TABLE, IMAGES))
    arguments = parser.parse_args(argv)
    flags = recipe_flags(arguments)
    if flags.get("seed") is None:
        flags.pop("seed", None)
    recipe = build_recipe(arguments.recipe, **flags)

    from mlcls.workflows.inspection import inspect_data, write_preview

    preview = Path(arguments.preview) if arguments.preview else None
    if preview and not preview.parent.is_dir():
        raise RecipeError(f"--preview {preview}: there is no folder {preview.parent}")
    data = inspect_data(recipe, console_on(sys.stdout), console_on(sys.stderr))
    if preview:
        write_preview(preview, recipe, data)
        sys.stdout.write(f"preview: {preview}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
