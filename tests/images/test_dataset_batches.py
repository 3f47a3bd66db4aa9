"""Batches: the same bytes with any workers and after a restart, errors by name."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mlcls.errors import ImageError, RecipeError
from mlcls.images import dataset as module
from mlcls.images.augment import build_augmentation
from mlcls.images.cores import auto_workers
from mlcls.images.dataset import (
    Batch,
    ImageDataset,
    Load,
    ThreadFeed,
    WorkerFeed,
    evaluation_batches,
    load_paths,
    training_batches,
)
from mlcls.images.load import load_image
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing

N, SIDE = 13, 24
PREPROCESSING = Preprocessing(SIDE)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(N)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def labels() -> NDArray[np.float32]:
    return np.random.default_rng(1).choice([0.0, 1.0, np.nan], size=(N, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def augmented(paths: list[Path], labels: NDArray[np.float32]) -> ImageDataset:
    return ImageDataset(loaded(paths), labels, build_augmentation("rich", PREPROCESSING, seed=7))


def loaded(paths: list[Path]) -> Load:
    return load_paths(PathList("", map(str, paths)), PREPROCESSING)


def as_bytes(batches: Iterator[Batch]) -> list[tuple[bytes, bytes, bytes]]:
    return [tuple(part.contiguous().numpy().tobytes() for part in batch) for batch in batches]


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_workers_and_restarts_give_the_same_bytes(augmented: ImageDataset, sampler: str) -> None:
    def batches(workers: int) -> module.Batches:
        return training_batches(augmented, batch_size=4, seed=7, sampler=sampler, workers=workers)

    alone, crowd = batches(0), batches(2)
    epochs = [as_bytes(alone.epoch(epoch)) for epoch in range(3)]
    assert [as_bytes(crowd.epoch(epoch)) for epoch in range(3)] == epochs
    assert epochs[0] != epochs[1]
    assert as_bytes(batches(0).epoch(2, start=1)) == epochs[2][1:]  # a new process would build it anew too

    interrupted = crowd.epoch(1)
    next(interrupted)
    assert as_bytes(crowd.epoch(1, start=1)) == epochs[1][1:]  # what the workers had prepared is not mixed in


def test_workers_started_by_spawn_give_the_same_bytes(augmented: ImageDataset) -> None:
    alone = training_batches(augmented, batch_size=4, seed=7)
    spawned = training_batches(augmented, batch_size=4, seed=7, workers=1, start_method="spawn")
    for epoch in range(2):
        assert as_bytes(spawned.epoch(epoch)) == as_bytes(alone.epoch(epoch))


def test_a_batch_holds_what_its_type_says(augmented: ImageDataset, labels: NDArray[np.float32]) -> None:
    batches = training_batches(augmented, batch_size=4, seed=0)
    assert len(batches) == batches.count(5) == 3
    seen = []
    for batch, size in zip(batches.epoch(0), (4, 4, 5), strict=True):
        assert batch.pixels.shape == (size, 3, SIDE, SIDE)
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.float32
        assert batch.indices.dtype == torch.int64
        np.testing.assert_array_equal(
            batch.labels.numpy(), labels[batch.indices.numpy()]
        )  # NaN in its place too
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(N))


def test_the_epoch_reaches_the_augmentation_in_a_thread_too(augmented: ImageDataset) -> None:
    with pytest.raises(ValueError, match="an augmentation in 2 threads would not be repeatable"):
        evaluation_batches(augmented, batch_size=5, threads=2)
    in_order = evaluation_batches(augmented, batch_size=5)
    first, second = list(in_order.epoch(0)), list(in_order.epoch(1))
    for before, after in zip(first, second, strict=True):
        assert torch.equal(before.indices, after.indices)
        assert all(not torch.equal(*pair) for pair in zip(before.pixels, after.pixels, strict=True))


@pytest.mark.parametrize("threads", [None, 1, 3, 8])
def test_evaluation_takes_every_image_once_in_order(
    paths: list[Path], labels: NDArray[np.float32], threads: int | None
) -> None:
    batches = evaluation_batches(ImageDataset(loaded(paths), labels), batch_size=5, threads=threads)
    for _ in range(2):
        got = list(batches)
        assert torch.cat([batch.indices for batch in got]).tolist() == list(range(N))
        pixels = torch.cat([batch.pixels for batch in got]).permute(0, 2, 3, 1).numpy()
        for path, square in zip(paths, pixels, strict=True):
            assert (square == load_image(path, PREPROCESSING)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_any_keys_in_any_batches(augmented: ImageDataset, workers: int) -> None:
    wanted = [[(1, 3), (0, 3)], [(2, 12)], [(0, 0), (0, 0), (1, 3)]]
    batches = training_batches(augmented, batch_size=4, seed=7, workers=workers)
    first_epoch = as_bytes(batches.epoch(0))
    for _ in range(2):
        got = list(batches.of(wanted))
        assert [batch.indices.tolist() for batch in got] == [[3, 3], [12], [0, 0, 3]]
        assert torch.equal(got[0].pixels[0], got[2].pixels[2])
        assert not torch.equal(got[0].pixels[0], got[0].pixels[1])
    assert as_bytes(batches.epoch(0)) == first_epoch
    assert as_bytes(evaluation_batches(augmented, batch_size=1).of(wanted)) == as_bytes(batches.of(wanted))
    positions = batches.positions(2)
    assert [batch.tolist() for batch in positions] == [b.indices.tolist() for b in batches.epoch(2)]


def test_a_pass_that_is_left_early_ends_its_threads(augmented: ImageDataset) -> None:
    batches = evaluation_batches(augmented, batch_size=2)
    one = batches.epoch(0)
    next(one)
    assert any(thread.name.startswith("load-images") for thread in threading.enumerate())
    del one
    assert not any(thread.name.startswith("load-images") for thread in threading.enumerate())


def test_loading_leaves_the_global_generators_alone(augmented: ImageDataset) -> None:
    """Dropout draws from them: with another number of workers it would draw otherwise."""
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    for workers in (0, 1):
        list(training_batches(augmented, batch_size=4, seed=1, workers=workers).epoch(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tobytes() == before[1]  # type: ignore[union-attr]


def test_an_image_that_vanished_is_named_in_one_line(tmp_path: Path, paths: list[Path]) -> None:
    absent = tmp_path / "gone.jpg"
    dataset = ImageDataset(loaded([*paths[:3], absent]), np.zeros((4, 1), np.float32))
    for feed in (WorkerFeed(dataset, 0), WorkerFeed(dataset, 1), ThreadFeed(dataset, 3)):
        batches = module.Batches(dataset, lambda epoch: np.arange(4), batch_size=2, feed=feed)
        got = []
        with pytest.raises(ImageError) as caught:
            got.extend(batches.epoch(0))
        assert str(caught.value) == f"{absent}: no such image; check the name and --images"
        assert len(got) == 1
    with pytest.raises(ImageError):
        dataset[(0, 3)]


def test_images_and_labels_of_different_number_are_refused(paths: list[Path]) -> None:
    with pytest.raises(ValueError, match="13 images, but labels of 2"):
        ImageDataset(loaded(paths), np.zeros((2, 1), np.float32))


def test_an_unknown_sampler_suggests_the_nearest(augmented: ImageDataset) -> None:
    with pytest.raises(RecipeError, match="--sampler: unknown name 'balance'; did you mean 'balanced'"):
        training_batches(augmented, batch_size=2, seed=0, sampler="balance")


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 1), (4, 3), (64, 8)])
def test_auto_workers_leave_a_core_to_training(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert auto_workers() == workers
