"""`python -m mlcls.trials`: a recipe tried with many settings, the best one trained again and tested."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence

from mlcls.commandline import Parser, add_recipe_flags, console_on, recipe_flags, run_command, whole_number
from mlcls.errors import RecipeError
from mlcls.kinds import number
from mlcls.recipe import IMAGES, MODEL, OUTPUT, TABLE, TRAINING, build_recipe

PASSWORD = r"(://[^:/@\s]*):[^@\s]*@"  # of a database's address, which the records of runs are not to keep
METRICS = ("val_map", "val_f1", "val_loss")


def main(argv: Sequence[str] | None = None) -> int:
    """Search; returns the exit code."""
    return run_command(_trials, argv)


def _trials(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "trials",
        "Try a recipe with many settings (Optuna), and train the best one again over several seeds. Started again, "
        "or several times at once, the same command goes on with one study. The test subset is not looked at before "
        "the end.",
    )
    parser.add_argument("--recipe", metavar="NAME|FILE", default="default",
                        help="what all trials share: a named recipe or a TOML file (default: default)")  # fmt: skip
    _add_flags(parser.add_argument_group("trials"))
    add_recipe_flags(parser, (TABLE, MODEL, IMAGES, TRAINING, OUTPUT), without=("folds",))
    arguments = parser.parse_args(argv)
    flags = recipe_flags(arguments)
    recipe = build_recipe(arguments.recipe, **flags)

    from mlcls.workflows.search.trials import search

    given = sys.argv[1:] if argv is None else argv
    search(
        recipe,
        out=arguments.out,
        storage=arguments.storage,
        study=arguments.study,
        trials=arguments.trials,
        minutes=arguments.minutes,
        space=arguments.space,
        metric=arguments.metric,
        seeds=arguments.seeds,
        given=tuple(flags),
        console=console_on(sys.stderr),
        command=re.sub(PASSWORD, r"\1:***@", shlex.join(["mlcls", "trials", *given])),
    )
    return 0


def _add_flags(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--trials", type=whole_number("--trials", 1), default=20, metavar="N",
                       help="trials of the whole study, by all its processes together (default: 20)")  # fmt: skip
    group.add_argument("--minutes", type=_minutes, metavar="M", help="begin no trial after so many minutes")
    group.add_argument(
        "--space", default="default", metavar="NAME|FILE.toml",
        help="what is varied: default (learning rates, optimizer, weight decay, dropout, schedule, batch size; those "
        "given as flags stay), published (five published trials first), or a TOML file of [FIELD] tables with low, "
        "high, log, step or choices (default: default)",
    )  # fmt: skip
    group.add_argument("--metric", choices=METRICS, default="val_map",
                       help="validation figure that decides, of the epoch kept (default: val_map)")  # fmt: skip
    group.add_argument("--seeds", type=whole_number("--seeds", 0, 100), default=3, metavar="N",
                       help="train the best one again with so many seeds, each tested once (default: 3)")  # fmt: skip
    group.add_argument(
        "--out", default="trials", metavar="DIR", help="folder of all that is written (default: trials)"
    )
    group.add_argument("--storage", metavar="FILE|URL",
                       help="journal, or database as sqlite:///trials.db, that processes share "
                       "(default: trials.journal in --out)")  # fmt: skip
    group.add_argument("--study", default="trials", metavar="NAME", help="its name there (default: trials)")


def _minutes(text: str) -> float:
    try:
        minutes = number(text)
    except ValueError:
        minutes = -1.0
    if minutes <= 0:
        raise RecipeError(f"--minutes: expected a number above 0, got '{text}'")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
