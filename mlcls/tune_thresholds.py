"""`python -m mlcls.tune-thresholds`: choose the thresholds of a finished classifier anew."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mlcls.commandline import (
    Parser,
    add_recipe_flags,
    check_device,
    check_output,
    console_on,
    recipe_flags,
    run_command,
    table_recipe,
)
from mlcls.recipe import TABLE


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
    parser.add_argument(
        "--estimator", default="robust",
        help="robust (the mean of bootstrapped optima, drawn to the common threshold) or exact (default: robust)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show the thresholds, write nothing")
    parser.add_argument(
        "--curves", metavar="FILE.png", help="draw what every threshold gives, attribute by attribute, there"
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="a label table (default: the saved validation predictions)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_recipe_flags(parser, (TABLE,), without=("labels", "val_labels", "test_labels", "split"))
    arguments = parser.parse_args(argv)

    table = table_recipe(arguments.labels, recipe_flags(arguments))
    check_device(arguments.device, table)
    check_output("--curves", arguments.curves, ".png")

    from mlcls.bundle.unfinished import unfinished_notes
    from mlcls.workflows.tuning import tune_bundle

    sys.stderr.writelines(unfinished_notes(arguments.model))
    tune_bundle(
        arguments.model,
        objective=arguments.objective,
        estimator=arguments.estimator,
        table=table,
        dry_run=arguments.dry_run,
        curves=Path(arguments.curves) if arguments.curves else None,
        device=arguments.device,
        console=console_on(sys.stdout),
        progress_console=console_on(sys.stderr),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
