"""Pretrained weights from timm's own source: the Hugging Face hub or a plain address, kept in their cache."""

import pickle
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import huggingface_hub.errors
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from timm.models import PretrainedCfg
from torch import nn

from mlcls.errors import WeightsError
from mlcls.models.weights import WeightsReport, fit_tensors

PROBE_SECONDS = 5.0
# The file names under which timm looks for safetensors weights in a repository, in its order.
_HUB_FILES = ("model.safetensors", "open_clip_model.safetensors")
# The hub's client is httpx or requests, by its version; both have one class above all their errors.
_TRANSFER_ERRORS: tuple[type[Exception], ...] = (
    OSError,  # URLError, LocalEntryNotFoundError, HfHubHTTPError, a full disk
    huggingface_hub.errors.HfHubHTTPError.__mro__[1],
    huggingface_hub.errors.EntryNotFoundError,
)


def load_pretrained(
    backbone: nn.Module, name: str, create: Callable[..., nn.Module], settings: PretrainedCfg
) -> WeightsReport:
    """Load the weights that timm names for a model; from the cache without network, when they are there.

    timm loads them into a second model that has their own classifier, because only then it is strict: into a
    model without classifier it would leave what does not fit at random, and say so at log level alone.

    Args:
        backbone: the model without classifier; changed in place.
        name: timm's name of it, for the messages.
        create: makes the model again; takes timm's `num_classes`, `pretrained` and `pretrained_cfg_overlay`.
        settings: timm's record of the model.

    Raises:
        WeightsError: timm has no weights for it; they are not cached and the network does not answer; they
            do not fit the model that its arguments make.
    """
    if not settings.has_weights:
        raise WeightsError(
            f"--weights pretrained: timm has no weights for '{name}'; "
            "train it from scratch with --weights none, or give a file with --weights FILE"
        )
    source = str(settings.hf_hub_id or settings.url or settings.file)
    overlay: dict[str, Any] = {}
    if settings.hf_hub_id:
        cached = _cached(settings)
        if cached is not None:
            overlay = {"pretrained_cfg_overlay": {"file": str(cached), "custom_load": False}}
        elif not _reachable(constants.ENDPOINT):
            raise _unavailable(name, source, f"{constants.ENDPOINT} does not answer")
    try:
        whole = create(num_classes=settings.num_classes, pretrained=True, **overlay)
    except _TRANSFER_ERRORS as error:
        raise _unavailable(name, source, str(error).partition("\n")[0]) from error
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"--weights pretrained: the copy of '{source}' in {constants.HF_HUB_CACHE} is damaged ({error}); "
            "delete it, and it will be fetched again"
        ) from error
    except RuntimeError as error:  # what load_state_dict raises
        raise WeightsError(
            f"--weights pretrained: the weights of '{name}' ({source}) do not fit the model that --backbone-args "
            f"and --image-size make ({_one_line(error)}); leave them out, or use --weights none"
        ) from error
    return fit_tensors(backbone, whole.state_dict(), "pretrained")


def _cached(settings: PretrainedCfg) -> Path | None:
    """The weights in the hub's cache, when they are there as safetensors: then no network is needed."""
    repository, _, revision = str(settings.hf_hub_id).partition("@")
    names = (settings.hf_hub_filename,) if settings.hf_hub_filename else _HUB_FILES
    for name in names:
        if name.endswith(".safetensors"):
            found = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    return None


def _reachable(address: str) -> bool:
    """Whether anything answers there within `PROBE_SECONDS`.

    Asked first because the hub's client tries for three quarters of a minute before it gives up
    (measured without network: 47 s with huggingface_hub 2.4).
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(address, method="HEAD"), timeout=PROBE_SECONDS):
            return True
    except HTTPError:
        return True  # an answer, whatever it says
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the client has certificates of its own
    except OSError:
        return False


def _unavailable(name: str, source: str, reason: str) -> WeightsError:
    return WeightsError(
        f"--weights pretrained: the weights of '{name}' ({source}) are not on this machine and cannot be "
        f"fetched: {reason}. Go online once; or copy them into {constants.HF_HUB_CACHE}; or give a file with "
        "--weights FILE; or train from scratch with --weights none"
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
