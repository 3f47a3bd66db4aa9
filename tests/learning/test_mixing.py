"""Changes of batches, by what they make of images whose parents can be told from the labels."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from mlcls.errors import RecipeError
from mlcls.learning.mixing import build_changes, changed, cutmix, growing_size, mixup, shrink, smooth
from mlcls.learning.steps import Batch

NAN = math.nan


def plain_batch(images: int = 8, side: int = 12, dtype: torch.dtype = torch.uint8) -> Batch:
    """Images of one value each, in channels-last memory; image i alone has attribute i, so labels tell parents."""
    values = torch.arange(10, 10 * images + 10, 10).to(dtype)
    pixels = values[:, None, None, None].expand(images, side, side, 3).contiguous().permute(0, 3, 1, 2)
    return pixels, torch.eye(images), torch.arange(images)


def row_batch(dtype: torch.dtype) -> Batch:
    _, labels, indices = plain_batch()
    return (labels[:, :, None] * torch.linspace(-2, 2, 7)).flatten(1).to(dtype), labels, indices


def parents(labels: Tensor) -> list[dict[int, float]]:
    """Of each image, who its parents are and their shares, as the labels of `plain_batch` tell."""
    return [{int(i): float(row[i]) for i in row.nonzero()} for row in labels]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_mixup_mixes_pixels_and_labels_alike() -> None:
    pixels, labels, indices = mixup(plain_batch(), 1.0, random())
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert indices.tolist() == list(range(8))
    for image, shares in enumerate(parents(labels)):
        assert sum(shares.values()) == pytest.approx(1.0)
        expected = sum(share * (10 * parent + 10) for parent, share in shares.items())
        assert pixels[image].amin() == pixels[image].amax()
        assert float(pixels[image, 0, 0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mixup_mixes_activations(dtype: torch.dtype) -> None:
    rows, _, _ = batch = row_batch(dtype)
    mixed, labels, _ = mixup(batch, 0.4, random())
    assert mixed.dtype == dtype
    expected = (labels @ rows.float()).to(dtype)
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("images", [2, 3, 8])
def test_everybody_has_another_partner_and_is_one_once(images: int) -> None:
    for seed in range(20):
        _, labels, _ = mixup(plain_batch(images, 1), 2.0, random(seed))
        others = [
            next(parent for parent in shares if parent != i) for i, shares in enumerate(parents(labels))
        ]
        assert sorted(others) == list(range(images))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha: float) -> None:
    generator = random()
    shares = torch.cat([mixup(plain_batch(50, 1), alpha, generator)[1].diagonal() for _ in range(80)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@settings(deadline=None, max_examples=60)
@given(
    labels=hnp.arrays(np.float32, (5, 3), elements=st.sampled_from([0.0, 1.0, NAN])),
    way=st.sampled_from([mixup, cutmix]),
    seed=st.integers(0, 99),
)
def test_a_cell_is_known_where_both_parents_know_it(labels: np.ndarray, way: Any, seed: int) -> None:
    pixels, told, indices = plain_batch(5, 9)
    _, shares, _ = way((pixels, told, indices), 1.0, random(seed))
    _, mixed, _ = way((pixels, torch.from_numpy(labels), indices), 1.0, random(seed))
    for image, who in enumerate(parents(shares)):
        expected = sum(share * labels[parent] for parent, share in who.items())
        np.testing.assert_allclose(mixed[image].numpy(), expected, atol=1e-6)
        assert ((mixed[image] >= 0) & (mixed[image] <= 1) | mixed[image].isnan()).all()


def test_cutmix_puts_a_rectangle_of_the_partner_into_each() -> None:
    sizes = set()
    for seed in range(30):
        pixels, labels, _ = cutmix(plain_batch(), 1.0, random(seed))
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        for image, shares in enumerate(parents(labels)):
            foreign = pixels[image, 0] != 10 * image + 10
            sizes.add(int(foreign.sum()))
            assert shares.get(image, 0.0) == pytest.approx(1 - float(foreign.float().mean()))
            assert (pixels[image] == pixels[image, 0]).all()
            if foreign.any():  # all of the smallest rectangle around it, and of one partner
                rows, columns = foreign.any(dim=1), foreign.any(dim=0)
                assert (foreign == rows[:, None] & columns).all()
                (other,) = set(shares) - {image}
                assert set(pixels[image, 0][foreign].tolist()) == {10 * other + 10}
    assert {0} < sizes
    assert len(sizes) > 20


def test_of_whom_nothing_came_is_no_parent() -> None:
    pixels, _, indices = plain_batch(6)
    labels = torch.tensor([[1.0], [NAN], [0.0], [NAN], [1.0], [NAN]])
    mixed, mixed_labels, _ = cutmix((pixels, labels, indices), 1e-3, random(1))  # shares of 0 and 1 alone
    kept = (mixed == pixels).flatten(1).all(dim=1)
    assert 0 < int(kept.sum()) < 6
    assert torch.equal(mixed_labels[kept].nan_to_num(-1), labels[kept].nan_to_num(-1))


@pytest.mark.parametrize("own", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_a_lone_image_is_left_alone(own: dict[str, float]) -> None:
    batch = plain_batch(1)
    ((pixels, labels, _),) = changed([batch], build_changes(seed=0, **own), 0)
    assert pixels is batch[0]
    assert labels is batch[1]


def test_activations_are_mixed_but_never_cut() -> None:
    batch = row_batch(torch.bfloat16)
    ((rows, labels, _),) = changed([batch], build_changes(seed=0, cutmix=1.0), 0)
    assert rows is batch[0]
    assert labels is batch[1]
    mixed = list(changed([batch] * 20, build_changes(seed=0, mixup=1.0, cutmix=1.0), 0))
    assert not any(torch.equal(rows, batch[0]) for rows, _, _ in mixed)


def test_one_of_the_two_is_drawn_for_each_batch() -> None:
    found = list(changed([plain_batch()] * 200, build_changes(seed=4, mixup=1.0, cutmix=1.0), 0))
    cut = sum(pixels.dtype == torch.uint8 for pixels, _, _ in found)
    assert 70 < cut < 130


EVERYTHING: dict[str, Any] = {
    "mixup": 0.4,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "size": lambda epoch: 8 + epoch,
}


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(one, other, strict=True))


def test_a_batch_depends_on_seed_epoch_and_number_alone() -> None:
    batches = [plain_batch() for _ in range(9)]
    before = [tuple(tensor.clone() for tensor in batch) for batch in batches]
    chance = torch.get_rng_state()
    whole = list(changed(batches, build_changes(seed=7, **EVERYTHING), 2))
    # one that goes on in the middle of the epoch, in another process
    rest = list(changed(batches[4:], build_changes(seed=7, **EVERYTHING), 2, start=4))
    assert all(same(a, b) for a, b in zip(whole[4:], rest, strict=True))
    assert not any(same(a, b) for a, b in itertools.pairwise(whole))
    for seed, epoch in ((8, 2), (7, 3)):
        others = list(changed(batches, build_changes(seed=seed, **EVERYTHING), epoch))
        assert not any(same(a, b) for a, b in zip(whole, others, strict=True))
    # nothing is written to, and dropout's own chance is not moved
    assert all(same(a, b) for a, b in zip(batches, before, strict=True))
    assert torch.equal(chance, torch.get_rng_state())


def test_nothing_asked_for_changes_nothing() -> None:
    assert build_changes(seed=0) == ()
    batch = plain_batch()
    assert next(changed([batch], (), 0)) is batch


def test_smoothed_labels() -> None:
    pixels, _, indices = plain_batch(1)
    _, labels, _ = smooth((pixels, torch.tensor([[0.0, 1.0, 0.25, NAN]]), indices), 0.2)
    assert labels[0, :3].tolist() == pytest.approx([0.1, 0.9, 0.3])
    assert labels[0, 3].isnan()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shrunk_pixels(dtype: torch.dtype) -> None:
    pixels, labels, indices = plain_batch(dtype=dtype)
    smaller, _, _ = shrink((pixels, labels, indices), 8)
    assert smaller.shape == (8, 3, 8, 8)
    assert smaller.dtype == dtype
    assert smaller.is_contiguous(memory_format=torch.channels_last)
    ends = smaller.flatten(1).float().aminmax(dim=1)
    for end in ends:
        torch.testing.assert_close(end, pixels[:, 0, 0, 0].float())
    board = torch.zeros(1, 3, 30, 30, dtype=dtype)
    board[:, :, ::2, ::2] = board[:, :, 1::2, 1::2] = 200
    ((fine, _, _),) = [shrink((board, labels, indices), 10)]
    assert fine[:, :, 1:-1, 1:-1].float().sub(100).abs().max() < 20  # every pixel counts, none is skipped


def test_pixels_are_not_enlarged_and_activations_stay() -> None:
    pixels, _, _ = batch = plain_batch()
    assert shrink(batch, 12)[0] is pixels
    assert shrink(batch, 64)[0] is pixels
    rows = row_batch(torch.float32)
    assert shrink(rows, 1)[0] is rows[0]


@settings(deadline=None, max_examples=200)
@given(
    first=st.integers(8, 400),
    more=st.integers(0, 300),
    epochs=st.integers(1, 60),
    multiple=st.sampled_from([1, 8, 32]),
)
def test_images_grow_to_the_full_size_by_the_middle(
    first: int, more: int, epochs: int, multiple: int
) -> None:
    full = first + more
    sizes = [
        growing_size(epoch, epochs=epochs, first=first, full=full, multiple=multiple)
        for epoch in range(epochs)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] == (first if epochs > 1 else full)
    assert set(sizes[epochs // 2 :]) == {full}
    assert all(size in (first, full) or size % multiple == 0 for size in sizes)


def test_growing_by_hand() -> None:
    sizes = [growing_size(epoch, epochs=10, first=128, full=224) for epoch in range(10)]
    assert sizes == [128, 160, 160, 192, 192, 224, 224, 224, 224, 224]


def test_mistakes_are_named() -> None:
    with pytest.raises(RecipeError, match=r"--first-image-size: 300 is larger.*224, --image-size"):
        growing_size(0, epochs=5, first=300, full=224)
    for own, flag in (
        ({"mixup": -1.0}, "--mixup"),
        ({"cutmix": NAN}, "--cutmix"),
        ({"label_smoothing": 1.0}, "--label"),
    ):
        with pytest.raises(RecipeError, match=flag):
            build_changes(seed=0, **own)


def test_a_training_on_changed_batches(tiny: Any, train: Any, images: tuple[Tensor, ...]) -> None:
    """Soft targets and unknown cells reach the loss; the same training twice is the same."""
    changes = build_changes(seed=3, mixup=1.0, cutmix=1.0, label_smoothing=0.1)
    seen: list[Tensor] = []

    def own_loss(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(targets)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")

    pixels, labels, indices = (
        torch.cat(parts)
        for parts in zip(
            *changed([tuple(part[s : s + 8] for part in images) for s in (0, 8, 16)], changes, 0), strict=True
        )
    )
    trained = [train(tiny(), epochs=2, loss=own_loss, data=(pixels, labels, indices)) for _ in range(2)]
    assert trained[0][1].train_loss == trained[1][1].train_loss
    assert trained[0][0].skipped_steps == 0
    assert torch.cat(seen).unique().numel() > 10
    known = int((~images[1].isnan()).sum())
    assert 0 < int((~labels.isnan()).sum()) < known
