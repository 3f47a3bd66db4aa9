"""A classifier as its training sees it: whole for pixels, and the part above the frozen one for packed activations."""

from torch import Tensor, nn

from mlcls.models.classifier import Classifier


class StagedClassifier(nn.Module):
    """What a stage trains: `classifier`, of which `rest` is the part that packed activations go through.

    Args:
        classifier: the whole; `rest` shares its modules and parameters.

    Attributes:
        rest: see `mlcls.models.frontier.Cut`; None in a stage that is not cut.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.attributes = classifier.attributes
        self.rest: nn.Module | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] or packed activations [B, K] -> logits [B, A].

        Raises:
            RuntimeError: packed activations, and no `rest`.
        """
        if inputs.ndim == 4:
            logits: Tensor = self.classifier(inputs)
            return logits
        if self.rest is None:
            raise RuntimeError("packed activations came to a stage that is not cut")
        packed: Tensor = self.rest(inputs)
        return packed
