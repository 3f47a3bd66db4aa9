"""What is made of the epochs at the end: a soup of the best ones, and the validation that goes with it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlcls.learning.averaging import Ingredient, Weights, greedy_soup
from mlcls.learning.losses import masked_loss
from mlcls.models.forward import to_scores
from mlcls.scoring.metrics import evaluate
from mlcls.workflows.epochs import Learned
from mlcls.workflows.setup import Setup
from mlcls.workflows.views import logits_of, predict_views

FIGURES = {"val_map": "average_precision", "val_f1": "f1"}  # of `--monitor`, as a macro mean is called


def refine(
    setup: Setup, first: dict[str, Tensor], ingredients: Sequence[Ingredient], learned: Learned
) -> Learned:
    """The best epoch as the recipe's `soup` and `tta` make it better, chosen on validation alone.

    Args:
        first: the weights that the run began with.
        ingredients: the best epochs, best first.

    Returns:
        what was learned, with the soup's weights where there is one, and the validation predictions of the weights
        and views that the bundle will predict with.
    """
    if setup.recipe.soup and len(ingredients) > 1:
        soup = greedy_soup(ingredients, first, lambda weights: _score(setup, first, weights))
        if len(soup.epochs) > 1:
            weights = {**first, **soup.weights}
            learned = dataclasses.replace(learned, best_weights=weights, soup=soup.epochs)
    if learned.soup or setup.recipe.tta != "none":
        setup.classifier.load_state_dict(learned.best_weights)
        scores, _ = predict_views(setup, setup.val)
        learned = dataclasses.replace(learned, val=dataclasses.replace(learned.val, scores=scores))
    return learned


def _score(setup: Setup, first: dict[str, Tensor], weights: Weights) -> float:
    """The monitored figure of these weights on validation, higher is better; NaN where it is undefined."""
    setup.classifier.load_state_dict({**first, **weights})
    logits, labels = logits_of(setup, setup.val)
    monitor = setup.recipe.monitor
    if monitor == "val_loss":
        total, known = masked_loss(
            setup.loss, torch.from_numpy(logits).to(setup.device), torch.from_numpy(labels).to(setup.device)
        )
        return -float(total) / int(known)
    figure = evaluate(labels, to_scores(logits), np.full(labels.shape[1], 0.5))["macro"][FIGURES[monitor]]
    return float("nan") if figure is None else float(figure)
