"""mlcls in one process, as `python -m mlcls.train` begins: gather, set up, learn; the test images scored each epoch."""

import numpy as np
from clock import Task, start
from rich.console import Console

from mlcls.commandline import Parser, add_recipe_flags, recipe_flags
from mlcls.recipe import IMAGES, MODEL, OUTPUT, TABLE, TRAINING, Recipe, build_recipe


def main() -> None:
    task, clock = start()
    recipe = read_recipe(task)

    from mlcls.learning.allocation import kept_memory
    from mlcls.models.forward import to_scores
    from mlcls.workflows.data import gather
    from mlcls.workflows.epochs import learn
    from mlcls.workflows.setup import preprocessing_for, set_up
    from mlcls.workflows.validating import predict

    console = Console(quiet=True)
    with kept_memory():
        preprocessing = preprocessing_for(recipe)
        data = gather(recipe, console, preprocessing=preprocessing)
        setup = set_up(recipe, data, preprocessing)
        place = {name: row for row, name in enumerate(data.names(data.split.test))}
        order = [place[name] for name in task.rows("test")["image"]]
        scores: list[np.ndarray] = []  # of each epoch

        def score() -> np.ndarray:
            return to_scores(predict(setup, setup.test)[0])[order]

        learned = learn(
            setup,
            console,
            lambda figures: scores.append(
                clock.epoch(score, stage=figures.stage, images_per_second=figures.images_per_second)
            ),
        )
        clock.finish(lambda: scores[learned.best_epoch], best_epoch=learned.best_epoch)


def read_recipe(task: Task) -> Recipe:
    """What `python -m mlcls.train` makes of the flags."""
    parser = Parser("train", "")
    parser.add_argument("--recipe", default="default")
    add_recipe_flags(parser, (TABLE, MODEL, IMAGES, TRAINING, OUTPUT))
    arguments = parser.parse_args(task.flags)
    return build_recipe(arguments.recipe, **recipe_flags(arguments))


if __name__ == "__main__":
    main()
