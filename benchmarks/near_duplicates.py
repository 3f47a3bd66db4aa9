"""Near-identical images: copies found, look-alikes left alone, what it costs, and how it grows.

    python benchmarks/near_duplicates.py [FOLDER ...] [--sample 250]

For each folder of images (and the built-in digits) prints the share of copies that are found, the groups found in
the folder itself, for the eye to judge, and the processor time that the fingerprints add to decoding.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.images.fingerprint import Fingerprints, make_fingerprints
from mlcls.images.paths import PathList
from mlcls.images.read import IMAGE_SUFFIXES, read_image
from mlcls.images.survey import survey_images
from mlcls.labels.demo import write_digits
from mlcls.labels.near_duplicates import candidate_pairs, find_near_duplicates

Pixels = NDArray[np.uint8]


def jpeg(pixels: Pixels, quality: int = 85) -> Pixels:
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def resized(pixels: Pixels, share: float) -> Pixels:
    return jpeg(cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))


def cropped(pixels: Pixels, share: float) -> Pixels:
    top, left = (max(1, round(side * share / 2)) for side in pixels.shape[:2])
    return jpeg(np.ascontiguousarray(pixels[top:-top, left:-left]))


def scaled(pixels: Pixels, factor: float) -> Pixels:
    return jpeg(np.clip(pixels * factor, 0, 255).astype(np.uint8))


def grayed(pixels: Pixels) -> Pixels:
    return jpeg(np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2))


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG quality 30": lambda pixels: jpeg(pixels, 30),
    "JPEG quality 50": lambda pixels: jpeg(pixels, 50),
    "JPEG quality 90": lambda pixels: jpeg(pixels, 90),
    "resized to 75%": lambda pixels: resized(pixels, 0.75),
    "resized to 50%": lambda pixels: resized(pixels, 0.5),
    "cropped by 2% (middle kept)": lambda pixels: cropped(pixels, 0.02),
    "cropped by 4% (middle kept)": lambda pixels: cropped(pixels, 0.04),
    "10% brighter": lambda pixels: scaled(pixels, 1.1),
    "20% darker": lambda pixels: scaled(pixels, 0.8),
    "gray": grayed,
    "mirrored (not meant to be found)": lambda pixels: jpeg(np.ascontiguousarray(pixels[:, ::-1])),
}


def fingerprints(images: Sequence[Pixels]) -> Fingerprints:
    prints = make_fingerprints(len(images))
    for index, pixels in enumerate(images):
        prints.add(index, pixels)
    return prints


def found(originals: Sequence[Pixels], copies: Sequence[Pixels]) -> float:
    """The share of the originals whose copy is in their group."""
    prints = fingerprints([*originals, *copies])
    groups = find_near_duplicates(prints.hashes, prints.pictures, prints.sizes).groups
    group_of = {row: number for number, group in enumerate(groups) for row in group}
    count = len(originals)
    return sum(group_of.get(row, -1) == group_of.get(row + count, -2) for row in range(count)) / count


def measure_folder(name: str, paths: list[Path], sample: int) -> None:
    chosen = np.random.default_rng(0).permutation(len(paths))[:sample]
    originals = [read_image(paths[index]) for index in chosen]
    print(f"\n{name}: {len(paths):,} images\n\n| copy | found |\n|---|---|")
    for kind, copy in COPIES.items():
        print(f"| {kind} | {found(originals, [copy(pixels) for pixels in originals]):.1%} |")
    seconds = {"decoding": [], "with fingerprints": []}
    for _ in range(3):
        for label, hashes in (("decoding", False), ("with fingerprints", True)):
            started = time.process_time()
            prints = survey_images(PathList("", map(str, paths)), hashes=hashes, threads=1).prints
            seconds[label].append(time.process_time() - started)
    decoding, both = (float(np.median(part)) * 1e3 / len(paths) for part in seconds.values())
    print(
        f"\nprocessor ms an image: decoding {decoding:.2f}, with fingerprints {both:.2f} (+{both / decoding - 1:.0%})"
    )
    started = time.process_time()
    groups = find_near_duplicates(prints.hashes, prints.pictures, prints.sizes).groups
    pairs, candidates = len(paths) * (len(paths) - 1) // 2, len(candidate_pairs(prints.hashes)[0])
    print(
        f"{pairs:,} pairs, {candidates:,} candidates, {len(groups)} groups in {time.process_time() - started:.1f} s:"
    )
    for group in groups[:30]:
        print("   ", " ~ ".join(paths[row].name for row in group))


def measure_growth() -> None:
    print("\n| random hashes | seconds of the processor | candidates |\n|---|---|---|")
    for count in (10_000, 100_000, 1_000_000):
        hashes = np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)
        started = time.process_time()
        pairs = candidate_pairs(hashes)[0]
        print(f"| {count:,} | {time.process_time() - started:.1f} | {len(pairs):,} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--sample", type=int, default=250, help="images of each folder that are copied")
    arguments = parser.parse_args()
    for folder in (*arguments.folders, write_digits().parent):
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        measure_folder(folder.name, paths, arguments.sample)
    measure_growth()


if __name__ == "__main__":
    main()
