"""Measures whether computing the frozen part once costs quality: trainings with and without it, over seeds.

    python benchmarks/cut.py [flags of train]            # the built-in scenes of digits
    python benchmarks/cut.py --labels T --val-labels V --test-labels W --backbone B --weights FILE ...

With `--views 4` every image is seen in four augmentations, with `--views 0` in a new one each epoch, the whole network
computed. Prints the test subset's macro average precision of each seed, with its 95% interval, and the seconds.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from machine import machine_words

from mlcls.commandline import Parser, add_recipe_flags, recipe_flags
from mlcls.recipe import IMAGES, MODEL, OUTPUT, TABLE, TRAINING, build_recipe
from mlcls.workflows.training import fit

VIEWS = (4, 0)


def main() -> None:
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--seeds", type=int, default=3)
    own.add_argument("--recipe", default="default")
    given, flags = own.parse_known_args()
    parser = Parser("train", "")
    add_recipe_flags(parser, (TABLE, MODEL, IMAGES, TRAINING, OUTPUT))
    settings = {"labels": "demo:digits", **recipe_flags(parser.parse_args(flags))}
    print(f"{machine_words()}. `{' '.join(flag for flag in flags if not Path(flag).is_absolute())}`\n")
    print("| seed | views | test macro AP (95%) | best epoch | epochs | seconds |\n|---|---|---|---|---|---|")
    found: dict[int, list[float]] = {views: [] for views in VIEWS}
    for seed in range(given.seeds):
        for views in VIEWS:
            recipe = build_recipe(given.recipe, **{**settings, "seed": seed, "views": views})
            with tempfile.TemporaryDirectory() as folder:
                record = fit(recipe, out=Path(folder) / "outputs")
            entry = record.evaluation["test"] or {}
            value, (low, high) = (
                entry["macro"]["average_precision"],
                entry["intervals"]["macro"]["average_precision"],
            )
            found[views].append(value)
            cells = [seed, views, f"{value:.3f} ({low:.3f} to {high:.3f})", record.best_epoch]
            print("|", *(f"{cell} |" for cell in [*cells, len(record.epochs), round(record.seconds or 0)]))
            sys.stdout.flush()
    for views, values in found.items():
        print(f"\nviews {views}: mean {statistics.fmean(values):.3f}")


if __name__ == "__main__":
    main()
