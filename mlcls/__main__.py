"""`python -m mlcls` and the console script `mlcls`: lists the commands, and runs the one that is named."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from mlcls import __version__

COMMANDS = {
    "train": "a label table and a folder of images become a trained, tuned, saved classifier",
    "predict": "which attributes do these images show?",
    "tune-thresholds": "choose the thresholds of a finished classifier anew",
    "evaluate": "every figure of a finished classifier, with intervals and against chance",
    "compare": "which of several classifiers is better, on the same images?",
    "inspect": "what a label table and its images hold, without training",
    "trials": "try a recipe with many settings, and train the best one again",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mlcls NAME ...`; without a name, list the commands. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if (
        os.getcwd() not in sys.path
    ):  # as `python -m` has it: package.module:function is found in the working folder
        sys.path.insert(0, os.getcwd())
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_listing())
        return 0
    name = arguments[0].replace("_", "-")
    if name in ("--version", "version"):
        sys.stdout.write(f"mlcls {__version__}\n")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, list(COMMANDS), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(COMMANDS)}"
        sys.stderr.write(f"error: unknown command '{arguments[0]}'; {hint}\n")
        return 2
    module = importlib.import_module(f"mlcls.{name.replace('-', '_')}")
    return int(module.main(arguments[1:]))


def _listing() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    head = f"mlcls {__version__}: multi-label image classifiers that can be trusted\n\n"
    return head + "\n".join(lines) + "\n\n'mlcls NAME --help' shows a command's flags\n"


if __name__ == "__main__":
    sys.exit(main())
