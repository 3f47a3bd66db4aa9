"""The bundle's network with its trained weights, through PyTorch."""

import safetensors
import safetensors.torch

from mlcls.bundle.files import WEIGHTS, Bundle, read_verified
from mlcls.bundle.unfinished import MANIFEST
from mlcls.errors import BundleError, RecipeError
from mlcls.models.classifier import Classifier, build_classifier
from mlcls.models.heads import HEADS


def load_classifier(bundle: Bundle) -> Classifier:
    """The bundle's network with its weights, on the CPU, in the mode `torch` builds it (training).

    Raises:
        BundleError: the weights are damaged or do not fit the network that `bundle.json` describes.
    """
    manifest, preprocessing = bundle.manifest, bundle.preprocessing
    if manifest["head"] not in HEADS:  # a bundle may come from a stranger: it names no code to import
        raise BundleError(f"{bundle.folder / MANIFEST}: unknown head '{manifest['head']}'")
    try:
        classifier = build_classifier(
            manifest["backbone"],
            manifest["head"],
            len(bundle.attributes),
            backbone_args=manifest["backbone_args"],
            weights="none",
            dropout=manifest["dropout"],
            image_size=preprocessing.image_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
    except (KeyError, TypeError, RecipeError) as error:
        raise BundleError(f"{bundle.folder / MANIFEST}: its network cannot be built: {error}") from error
    try:
        classifier.load_state_dict(safetensors.torch.load(read_verified(bundle, WEIGHTS)))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{bundle.folder / WEIGHTS}: does not fit the network of bundle.json: {error}"
        ) from error
    return classifier
