"""Owns the built-in data: scenes of scanned digits, written out once as an ordinary table and folder of images."""

import csv
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from mlcls.errors import OutputError
from mlcls.folders import cache_folder

VERSION = 1  # of the scenes; a change of what is drawn takes the next number, and so another folder
SCENES = {"train": 6000, "val": 1000, "test": 1000}
SCANS = {"train": 0.7, "val": 0.15, "test": 0.15}  # shares of each digit's scans
SIDE = 64  # pixels
MOST_DIGITS = 4
SIZES = (20.0, 30.0)  # a scan's side in the scene, pixels; less where many have to find room
TURN = 12.0  # degrees to either side
NEAREST = 0.9  # of the mean of two scans' sides: so far apart are their centres, along one axis at least
ARRANGEMENTS = 100  # tried before the digits are made smaller
UNKNOWN = 0.1  # share of the labels
ATTRIBUTES = (*(f"has_{digit}" for digit in range(10)), "two_or_more_equal", "sum_over_15")


def write_digits(
    folder: Path | None = None, *, seed: int = 0, scenes: Mapping[str, int] | None = None
) -> Path:
    """Scenes of 64 x 64 pixels with one to four of scikit-learn's scanned digits (`load_digits`), as table and images.

    Twelve attributes: `has_0` to `has_9`, and two that need the whole scene, `two_or_more_equal` and `sum_over_15`;
    a tenth of the labels is unknown. The column `subset` says train, val or test: the scans are divided before the
    scenes are drawn, so that no digit of a test scene was seen in training.

    Written once, whole or not at all; a folder that is there already is used as it is.

    Args:
        folder: where; by default below the environment variable MLCLS_CACHE, or else the user's cache folder.
        seed: of everything drawn; the same seed gives the same bytes.
        scenes: how many of train, val and test; by default SCENES.

    Returns:
        The path of the table, `labels.csv`; its images stand in `images/` beside it.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
    """
    counts = {**SCENES, **(scenes or {})}
    name = "-".join(str(part) for part in ("digits", VERSION, *counts.values(), "seed", seed))
    return _write_once(folder or cache_folder() / name, lambda target: _write_scenes(target, seed, counts))


DEMOS: dict[str, Callable[[], Path]] = {"digits": write_digits}
"""What `--labels demo:NAME` writes: `fn() -> path of the table`."""


def _write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary folder, then rename it: what has the final name is complete."""
    table = folder / "labels.csv"
    if table.is_file():
        return table
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(
                f"{folder}: has files but no labels.csv; remove it, or choose another with MLCLS_CACHE"
            )
        temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            if folder.exists() and not table.is_file():
                folder.rmdir()
            temporary.rename(folder)
        except OSError:
            if not table.is_file():  # else another run was first, with the same bytes
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write the built-in data to {folder}: {error.strerror}; name a folder that can be written with "
            "the environment variable MLCLS_CACHE"
        ) from error
    return table


def _write_scenes(folder: Path, seed: int, counts: Mapping[str, int]) -> None:
    """labels.csv (image, the attributes, subset) and images/*.png."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(seed)
    number = 0
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *ATTRIBUTES, "subset"])
        for subset, scans in divide_scans(rng).items():
            for pixels, labels in _scenes(scans, counts[subset], rng):
                name = f"{number:05d}.png"
                (folder / "images" / name).write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
                unknown = rng.random(len(labels)) < UNKNOWN
                cells = [
                    "NA" if hidden else int(label) for label, hidden in zip(labels, unknown, strict=True)
                ]
                writer.writerow([name, *cells, subset])
                number += 1


@dataclass(frozen=True, slots=True)
class Scans:
    """Scans of each digit: ten arrays float32 [n, 8, 8], ink from 0 to 1."""

    of_digit: tuple[NDArray[np.float32], ...]


def divide_scans(rng: np.random.Generator) -> dict[str, Scans]:
    """scikit-learn's 1,797 scans, each in one of train, val and test."""
    scans = load_digits()
    parts: dict[str, list[NDArray[np.float32]]] = {subset: [] for subset in SCANS}
    for digit in range(10):
        images = rng.permutation(scans.images[scans.target == digit].astype(np.float32) / 16)
        ends = (np.cumsum(list(SCANS.values())) * len(images)).round().astype(int)
        for subset, part in zip(SCANS, np.split(images, ends[:-1]), strict=True):
            parts[subset].append(part)
    return {subset: Scans(tuple(of_digit)) for subset, of_digit in parts.items()}


def _scenes(
    scans: Scans, count: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Pixels uint8 RGB [64, 64, 3] and labels bool [12] of `count` scenes."""
    for _ in range(count):
        scene = _background(rng)
        digits = rng.integers(0, 10, rng.integers(1, MOST_DIGITS + 1))
        if len(digits) > 1 and rng.random() < 0.3:
            digits[1] = digits[0]  # else two equal digits would be rare
        for digit, place in zip(digits, arrange(len(digits), rng), strict=True):
            images = scans.of_digit[digit]
            _draw(scene, images[rng.integers(len(images))], place, rng)
        yield scene.round().clip(0, 255).astype(np.uint8), _labels(digits)


def _labels(digits: NDArray[np.int64]) -> NDArray[np.bool_]:
    counts = np.bincount(digits, minlength=10)
    return np.array([*(counts > 0), counts.max() > 1, digits.sum() > 15])


def _background(rng: np.random.Generator) -> NDArray[np.float32]:
    """A dark colour that changes evenly from edge to edge, float32 [64, 64, 3]."""
    ramp = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    down, right = rng.uniform(-25, 25, (2, 1, 3)).astype(np.float32)
    colour = rng.uniform(0, 90, 3).astype(np.float32)
    return np.asarray(
        colour + (ramp[:, None] * down)[:, None] + (ramp[:, None] * right)[None], dtype=np.float32
    )


def arrange(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[count, 4] x, y, side and turn (radians) of each digit: none cut by the edge, none upon another.

    The first of many random arrangements that has room for all; where none has, all are made smaller.
    """
    sides, turns = rng.uniform(*SIZES, count), np.deg2rad(rng.uniform(-TURN, TURN, count))
    one, other = np.triu_indices(count, k=1)
    while True:
        # of the turned square: half a side, and half a scan's pixel over which interpolated ink fades
        reach = sides * 9 / 16 * (np.cos(turns) + np.sin(np.abs(turns))) + 0.5  # half a pixel of the scene
        centres = rng.uniform(reach[:, None], SIDE - reach[:, None], (ARRANGEMENTS, count, 2))
        distances = np.abs(centres[:, one] - centres[:, other]).max(axis=-1)
        fits = (distances >= NEAREST * (sides[one] + sides[other]) / 2).all(axis=1)
        if fits.any():
            return np.column_stack([centres[fits.argmax()], sides, turns])
        sides *= 0.9


def _draw(
    scene: NDArray[np.float32],
    scan: NDArray[np.float32],
    place: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Paint the ink of a scan in a bright colour, scaled and turned, into the scene."""
    x, y, side, turn = place
    reach = int(np.ceil(side * 0.6)) + 1
    left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
    patch = scene[top : int(y) + reach + 1, left : int(x) + reach + 1]
    zoom = side / len(scan)
    turned = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = (len(scan) - 1) / 2  # OpenCV counts from the first pixel's middle
    shift = np.array([x - left - 0.5, y - top - 0.5]) - turned @ [centre, centre]
    matrix = np.column_stack([turned, shift])
    ink = cv2.warpAffine(scan, matrix, (patch.shape[1], patch.shape[0]), flags=cv2.INTER_LINEAR)[..., None]
    colour = rng.uniform(130, 255, 3).astype(np.float32)
    colour[rng.integers(3)] = rng.uniform(200, 255)
    patch += ink * (colour - patch)
