"""Owns the cost of augmentation: milliseconds an image, from the square, on one thread.

python benchmarks/augment.py
"""

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
from machine import machine_words

from mlcls.images.augment import AUGMENTATIONS, build_augmentation
from mlcls.images.preprocess import Preprocessing

SIDES = [160, 224]
Run = Callable[[np.ndarray, int, int], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeat", type=int, default=15, help="interleaved runs of which the medians are shown"
    )
    parser.add_argument("--images", type=int, default=200, help="a run")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{machine_words()}, OpenCV {cv2.__version__}; one thread, its own time\n")
    print("| S | what | ms an image | least |\n|---|---|---|---|")
    for side in SIDES:
        preprocessing = Preprocessing(side)
        runs: dict[str, Run] = {name: build_augmentation(name, preprocessing) for name in AUGMENTATIONS}
        for name, times in clock(runs, squares(side), flags.repeat, flags.images).items():
            print(f"| {side} | {name} | {1e3 * np.median(times):.3f} | {1e3 * min(times):.3f} |")


def clock(runs: dict[str, Run], images: list[np.ndarray], repeat: int, count: int) -> dict[str, list[float]]:
    """Seconds an image, of each run; the runs take turns, so that what else the machine does meets them all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for epoch in range(repeat + 1):
        for name, run in runs.items():
            start = time.thread_time()
            for index in range(count):
                run(images[index % len(images)], epoch, index)
            if epoch > 0:
                times[name].append((time.thread_time() - start) / count)
    return times


def squares(side: int) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (32, side, side, 3), dtype=np.uint8)
    return [cv2.GaussianBlur(image, (0, 0), 2) for image in noise]


if __name__ == "__main__":
    main()
