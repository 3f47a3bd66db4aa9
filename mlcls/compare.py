"""`python -m mlcls.compare outputs/a outputs/b`: which of several classifiers is better, on the same images?"""

import json
import sys
from collections.abc import Sequence

from mlcls.commandline import MOST_RESAMPLES, Parser, check_output, console_on, run_command, whole_number
from mlcls.errors import RecipeError

SUBSETS = ("val", "test")
FORMATS = ("table", "json")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code."""
    return run_command(_compare, argv)


def _compare(argv: Sequence[str] | None) -> int:
    parser = Parser("compare", "Compare finished classifiers on the images that they were all scored on.")
    parser.add_argument(
        "models", nargs="*", metavar="DIR", help="bundles; the others are compared with the first"
    )
    parser.add_argument(
        "--subset", choices=SUBSETS, help="which saved predictions (default: test, val where none had a test)"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--picture", metavar="FILE.png", help="draw the differences there")
    parser.add_argument(
        "--resamples", type=whole_number("--resamples", 1, MOST_RESAMPLES), default=1000, metavar="N",
        help="bootstrap resamples for the intervals (default: 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole_number("--seed"), default=0, metavar="N", help="of the resampling (default: 0)"
    )
    arguments = parser.parse_args(argv)
    if len(arguments.models) < 2:
        raise RecipeError("name two bundles or more, e.g. mlcls compare outputs/a outputs/b")

    check_output("--picture", arguments.picture, ".png")

    from mlcls.bundle.unfinished import unfinished_notes
    from mlcls.workflows.comparison import compare_bundles

    sys.stderr.writelines(unfinished_notes(*arguments.models))
    comparison = compare_bundles(
        arguments.models, subset=arguments.subset, resamples=arguments.resamples, seed=arguments.seed
    )
    if arguments.format == "json":
        sys.stdout.write(json.dumps(comparison, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    else:
        from mlcls.reports.console_comparison import show_comparison

        show_comparison(console_on(sys.stdout), comparison)
    if arguments.picture:
        from mlcls.workflows.comparison import draw_comparison

        draw_comparison(arguments.picture, comparison)
        console_on(sys.stderr).print(f"written: {arguments.picture}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
