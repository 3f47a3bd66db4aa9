"""fastai as its own documentation trains: `vision_learner` with a timm body, `aug_transforms`, `fine_tune(4)`."""

from functools import partial

import numpy as np
import pandas as pd
import torch
from clock import start
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    MultiCategoryBlock,
    Resize,
    accuracy_multi,
    aug_transforms,
    set_seed,
    vision_learner,
)
from masked import masked_bce


class EachEpoch(Callback):
    """Calls a function after each epoch's validation."""

    order = 90

    def __init__(self, call):
        self.call = call

    def after_epoch(self):
        self.call()


def main() -> None:
    task, clock = start()
    set_seed(task.seed)
    train, val = task.rows("train"), task.rows("val")
    train["is_valid"], val["is_valid"] = False, True
    table = pd.concat([train, val], ignore_index=True)
    batch = {"bs": task.scratch["batch_size"]} if task.scratch else {}  # fastai's own is 64
    loaders = ImageDataLoaders.from_df(
        table,
        path=task.images,
        label_col=task.attributes,
        y_block=MultiCategoryBlock(encoded=True, vocab=task.attributes),
        valid_col="is_valid",
        item_tfms=Resize(task.image_size),
        batch_tfms=aug_transforms(do_flip=task.flips),
        **batch,
    )
    unknown = table[task.attributes].isna().any(axis=None)
    learner = vision_learner(
        loaders,
        task.backbone,
        metrics=partial(accuracy_multi, thresh=0.5),
        n_out=len(task.attributes),
        loss_func=masked_bce if unknown else None,
        **task.timm_arguments(),
    )
    test = loaders.test_dl(task.rows("test"))

    def score() -> np.ndarray:
        training = learner.model.training
        learner.model.eval()
        with torch.no_grad():
            scores = torch.cat([torch.sigmoid(learner.model(batch[0])) for batch in test])
        learner.model.train(training)
        return np.asarray(scores, dtype=np.float32)

    hook = EachEpoch(lambda: clock.epoch(score))
    with learner.no_bar():
        if task.scratch:
            learner.fit_one_cycle(task.epochs or task.scratch["epochs"], task.scratch["lr"], cbs=hook)
        else:
            learner.fine_tune(4 if task.epochs is None else task.epochs, cbs=hook)
    clock.finish(score)


if __name__ == "__main__":
    main()
