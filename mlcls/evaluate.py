"""`python -m mlcls.evaluate`: every figure of a finished classifier, on its saved predictions or on another table."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mlcls.commandline import (
    MOST_RESAMPLES,
    Parser,
    add_models_flag,
    add_recipe_flags,
    add_tta_flag,
    check_device,
    check_output,
    console_on,
    recipe_flags,
    run_command,
    table_recipe,
    whole_number,
)
from mlcls.errors import RecipeError
from mlcls.recipe import TABLE

SUBSETS = ("val", "test")
FORMATS = ("table", "json")
ENGINES = ("auto", "onnx", "torch", "openvino")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; returns the exit code."""
    return run_command(_evaluate, argv)


def _evaluate(argv: Sequence[str] | None) -> int:
    parser = Parser("evaluate", "Every figure of a finished classifier, with intervals and against chance.")
    add_models_flag(parser)
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a label table (default: the saved predictions, which need no images)",
    )
    parser.add_argument(
        "--subset", choices=SUBSETS,
        help="which saved predictions (default: test, val where there is no test); "
        "with --labels, only the images that were in this subset (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--report", metavar="FILE.html", help="write the report there, one file for a browser"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument(
        "--resamples", type=whole_number("--resamples", 0, MOST_RESAMPLES), default=1000, metavar="N",
        help="bootstrap resamples for the intervals; 0 leaves them out (default: 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto",
        help="of --labels; default: auto, onnx on the CPU where it can, else torch",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_tta_flag(parser)
    add_recipe_flags(parser, (TABLE,), without=("labels", "val_labels", "test_labels", "split"))
    arguments = parser.parse_args(argv)
    flags, pictures = recipe_flags(arguments), None
    if arguments.labels is None and arguments.report and flags.get("images"):
        pictures = Path(flags.pop("images"))  # those of the saved predictions, for the report
        if not pictures.is_dir():
            raise RecipeError(f"--images {pictures}: there is no such folder")
    table = table_recipe(arguments.labels, flags)
    check_device(arguments.device, table)
    if table is None and arguments.engine != "auto":
        raise RecipeError(
            f"--engine {arguments.engine}: nothing is predicted without --labels; name a table, "
            "or leave this flag out"
        )
    check_output("--report", arguments.report, ".html", ".htm")

    from mlcls.bundle.unfinished import unfinished_notes
    from mlcls.workflows.evaluation import evaluate_bundle, show_evaluated, write_report

    models = arguments.model or ["outputs"]
    sys.stderr.writelines(unfinished_notes(*models))
    evaluated = evaluate_bundle(
        models,
        table=table,
        subset=arguments.subset,
        resamples=arguments.resamples,
        device=arguments.device,
        engine=arguments.engine,
        tta=arguments.tta,
        progress_console=console_on(sys.stderr),
        pictures=pictures,
    )
    if arguments.format == "json":
        facts = {"source": evaluated.source, "subset": evaluated.asked, "notes": list(evaluated.notes)}
        entry = {**facts, **evaluated.entry}
        sys.stdout.write(json.dumps(entry, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    else:
        show_evaluated(console_on(sys.stdout), evaluated)
    if arguments.report:
        write_report(Path(arguments.report), evaluated)
        without = "" if table or pictures else " (with --images DIR it shows the pictures of mistakes)"
        console_on(sys.stderr).print(f"written: {arguments.report}{without}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
