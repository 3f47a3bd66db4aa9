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
from mlcls.models.weights import WeightsReport

PROBE_SECONDS = 5.0
# The file names under which timm looks for safetensors weights in a repository, in its order.
_HUB_FILES = ("model.safetensors", "open_clip_model.safetensors")
# The hub's client is httpx or requests, by its version; both have one class above all their errors.
_TRANSFER_ERRORS: tuple[type[Exception], ...] = (
    OSError,  # URLError, LocalEntryNotFoundError, HfHubHTTPError, a full disk
    huggingface_hub.errors.HfHubHTTPError.__mro__[1],
    huggingface_hub.errors.EntryNotFoundError,
)


def create_pretrained(
    backbone: str, create: Callable[..., nn.Module], settings: PretrainedCfg, altered: bool
) -> tuple[nn.Module, WeightsReport]:
    """A backbone with the weights that timm names for it.

    Args:
        backbone: timm's name, for the messages.
        create: makes the model; takes timm's `pretrained` and `pretrained_cfg_overlay`.
        settings: timm's record of the model.
        altered: whether the constructor gets arguments that may change what the weights have to fit.

    Raises:
        WeightsError: timm has no weights for it; they are not cached and the network does not answer; they
            do not fit the model that the arguments make.
    """
    if not settings.has_weights:
        raise WeightsError(
            f"--weights pretrained: timm has no weights for '{backbone}'; "
            "train it from scratch with --weights none, or give a file with --weights FILE"
        )
    source = str(settings.hf_hub_id or settings.url or settings.file)
    overlay: dict[str, Any] = {}
    if settings.hf_hub_id:
        cached = _cached(settings)
        if cached is not None:
            overlay = {
                "pretrained_cfg_overlay": {"file": str(cached), "custom_load": False, "hf_hub_id": None}
            }
        elif not _reachable(constants.ENDPOINT):
            raise _unavailable(backbone, source, f"{constants.ENDPOINT} does not answer")
    try:
        model = create(pretrained=True, **overlay)
    except _TRANSFER_ERRORS as error:
        raise _unavailable(backbone, source, str(error).partition("\n")[0]) from error
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"--weights pretrained: the copy of '{source}' in {constants.HF_HUB_CACHE} is damaged ({error}); "
            "delete it, and it will be fetched again"
        ) from error
    return model, WeightsReport(source, len(model.state_dict()), ())


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


def _unavailable(backbone: str, source: str, reason: str) -> WeightsError:
    return WeightsError(
        f"--weights pretrained: the weights of '{backbone}' ({source}) are not on this machine and cannot be "
        f"fetched: {reason}. Go online once; or copy them into {constants.HF_HUB_CACHE}; or give a file with "
        "--weights FILE; or train from scratch with --weights none"
    )
