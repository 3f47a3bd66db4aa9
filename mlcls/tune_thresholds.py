"""`python -m mlcls.tune-thresholds`: choose the thresholds of a finished classifier anew."""

import sys
from collections.abc import Sequence

from mlcls.commandline import Parser, add_recipe_flags, console_on, recipe_flags, run_command
from mlcls.errors import RecipeError
from mlcls.recipe import TABLE, Recipe, flag_of


def main(argv: Sequence[str] | None = None) -> int:
    """Tune; returns the exit code."""
    return run_command(_tune, argv)


def _tune(argv: Sequence[str] | None) -> int:
    parser = Parser("tune-thresholds", "Choose the thresholds of a finished classifier anew.")
    parser.add_argument("--model", default="outputs", metavar="DIR", help="the bundle (default: outputs)")
    parser.add_argument(
        "--objective", default="f1",
        help="f1, fbeta:B, precision:P, recall:R, youden, cost:FP,FN or fixed:T (default: f1)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show the thresholds, write nothing")
    parser.add_argument(
        "--labels", metavar="FILE", help="a label table (default: the saved validation predictions)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_recipe_flags(
        parser, (TABLE,), without=("labels", "val_labels", "test_labels", "split", "group_column")
    )
    arguments = parser.parse_args(argv)

    table_flags = {name: value for name, value in recipe_flags(arguments).items() if value is not None}
    table_flags.pop("objective")
    table_flags.pop("device")
    if arguments.labels is None and table_flags:
        raise RecipeError(
            f"{flag_of(next(iter(table_flags)))}: speaks of a table; name it with --labels, or leave this flag out"
        )

    from mlcls.workflows.tuning import tune_bundle

    tune_bundle(
        arguments.model,
        objective=arguments.objective,
        table=None if arguments.labels is None else Recipe(**table_flags),
        dry_run=arguments.dry_run,
        device=arguments.device,
        console=console_on(sys.stdout),
        progress_console=console_on(sys.stderr),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
