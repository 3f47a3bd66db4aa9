"""timm's own weights: from the hub's cache without network, and what is said when they cannot be had.

The cache is a real one, laid out as huggingface_hub lays it out; the network is one that does not answer.
"""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file

from mlcls.errors import WeightsError
from mlcls.models import pretrained
from mlcls.models.classifier import build_classifier

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path / "hub"


def put_in_cache(cache: Path, repository: str, tensors: dict[str, torch.Tensor]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    revision = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    (folder / "snapshots" / revision).mkdir(parents=True)
    save_file(tensors, folder / "snapshots" / revision / "model.safetensors")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_cached_weights_need_no_network(cache: Path, name: str) -> None:
    tensors = dict(timm.create_model(name).state_dict())
    put_in_cache(cache, f"timm/{name}.r160_in1k", tensors)
    model = build_classifier(name, "linear", 3, weights="pretrained")
    own = model.backbone.state_dict()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in own.items())
    assert model.weights.source == "pretrained"
    assert model.weights.loaded == len(own)
    assert set(model.weights.left_out) == tensors.keys() - own.keys()


def test_a_vit_at_another_image_size_gets_its_cached_weights_resampled(cache: Path) -> None:
    tensors = dict(timm.create_model("test_vit").state_dict())
    put_in_cache(cache, "timm/test_vit.r160_in1k", tensors)
    model = build_classifier("test_vit", "linear", 3, weights="pretrained", image_size=64)
    assert model.backbone.pos_embed.shape == (1, 17, 64)
    assert torch.equal(model.backbone.blocks[0].norm1.weight, tensors["blocks.0.norm1.weight"])


def test_arguments_that_make_another_network_are_refused(cache: Path) -> None:
    put_in_cache(cache, "timm/test_resnet.r160_in1k", dict(timm.create_model("test_resnet").state_dict()))
    with pytest.raises(WeightsError, match=r"--weights pretrained: .*do not fit .*--backbone-args"):
        build_classifier(
            "test_resnet", "linear", 3, backbone_args={"layers": [2, 1, 1, 1]}, weights="pretrained"
        )


def test_a_damaged_copy_in_the_cache_is_named(cache: Path) -> None:
    put_in_cache(cache, "timm/test_resnet.r160_in1k", {"x": torch.zeros(1)})
    file = next(cache.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(WeightsError, match=f"--weights pretrained: .*{cache}.*damaged"):
        build_classifier("test_resnet", "linear", 3, weights="pretrained")


@pytest.mark.parametrize("name", ["test_resnet", "gcvit_xxtiny"], ids=["hub", "plain address"])
def test_offline_with_nothing_cached_the_message_says_what_to_do_and_comes_soon(
    cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise pretrained.URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    start = time.monotonic()
    with pytest.raises(WeightsError) as raised:
        build_classifier(name, "linear", 3, weights="pretrained")
    assert time.monotonic() - start < 10
    message = str(raised.value)
    assert name in message
    for remedy in ("--weights none", "--weights FILE", str(cache)):
        assert remedy in message


def test_offline_mode_is_believed_without_asking_the_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(pretrained, "urlopen", None)
    with pytest.raises(WeightsError, match="--weights none"):
        build_classifier("test_resnet", "linear", 3, weights="pretrained")


def test_a_backbone_without_weights_says_so(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"timm has no weights for 'cnn4'.*--weights none"):
        build_classifier("cnn4", "linear", 3, weights="pretrained")


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for files that it has, with 404 for all others."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content or b""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on this machine, with no file in it; its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_Hub, "files", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_any_answer_means_that_the_network_is_there(hub: str) -> None:
    assert pretrained._reachable(hub)
    assert not pretrained._reachable(NOWHERE)


def test_what_is_not_cached_is_fetched_once(hub: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = dict(timm.create_model("test_resnet").state_dict())
    _Hub.files["/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"] = save(tensors)
    for address in (hub, NOWHERE):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        model = build_classifier("test_resnet", "linear", 3, weights="pretrained")
        own = model.backbone.state_dict()
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in own.items())
    assert list(cache.rglob("model.safetensors"))


def test_a_hub_without_the_file_is_told(hub: str) -> None:
    with pytest.raises(
        WeightsError, match=r"--weights pretrained: .*test_resnet.*cannot be fetched: .*--weights"
    ):
        build_classifier("test_resnet", "linear", 3, weights="pretrained")
