"""Owns the cost of decoding: a JPEG in full and at the smallest scale that is large enough, to the same square.

python benchmarks/decode.py
python benchmarks/decode.py --fit crop --repeat 51
python benchmarks/decode.py --images photos/    # those JPEGs (the first 200) instead of generated ones
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from machine import machine_words

from mlcls.images.load import decode_for
from mlcls.images.preprocess import FITS, Preprocessing, prepare
from mlcls.images.read import decode_image, read_bytes

SIZES = [(640, 480), (1600, 1200), (4000, 3000), (1023, 766)]  # the last: no multiple of any scale
SIDES = [224, 160]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", choices=sorted(FITS), default="squash")
    parser.add_argument("--repeat", type=int, default=21, help="pairs of runs of which the medians are shown")
    parser.add_argument("--quality", type=int, default=90, help="of the generated JPEGs, 4:2:0")
    parser.add_argument("--images", type=Path, help="a folder of JPEGs to take instead")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{machine_words()}, OpenCV {cv2.__version__}; one thread, its own time; fit {flags.fit}\n")
    print("| file | S | decoded | full, ms | scaled, ms | times faster | mean difference of 255 |")
    print("|---|---|---|---|---|---|---|")
    if flags.images is not None:
        paths = [p for p in sorted(flags.images.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg")][:200]
        files = {f"{len(paths)} files": [read_bytes(path) for path in paths]}
    else:
        files = {f"{w} x {h}": [encode(scene(h, w), flags.quality)] for w, h in SIZES}
    for name, datas in files.items():
        for side in SIDES:
            show(name, datas, Preprocessing(side, flags.fit), flags.repeat)


def show(name: str, datas: list[bytes], preprocessing: Preprocessing, repeat: int) -> None:
    def full(data: bytes) -> np.ndarray:
        return prepare(decode_image(data, name), preprocessing)

    def scaled(data: bytes) -> np.ndarray:
        return decode_for(data, name, preprocessing).prepared

    differences, divisors = [], set()
    for data in datas:
        differences.append(np.abs(full(data).astype(int) - scaled(data)).mean())
        decoded = decode_for(data, name, preprocessing)
        divisors.add(round(decoded.size[0] / decoded.pixels.shape[1]))
    rounds = range(max(1, repeat // len(datas)))
    times = np.array([[clock(full, data), clock(scaled, data)] for _ in rounds for data in datas])
    slow, fast = np.median(times, axis=0)
    scales = ", ".join(f"1/{divisor}" for divisor in sorted(divisors))
    print(
        f"| {name} | {preprocessing.image_size} | {scales} | {1e3 * slow:.2f} | {1e3 * fast:.2f} "
        f"| {slow / fast:.1f} | {np.mean(differences):.2f} |"
    )


def clock(work: Callable[[bytes], object], data: bytes) -> float:
    start = time.thread_time()
    work(data)
    return time.thread_time() - start


def scene(height: int, width: int) -> np.ndarray:
    """Something like a photo: detail at every scale, edges, and three channels that mostly agree."""
    random = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    cells = 4
    while cells < max(height, width):
        rough = random.normal(size=(max(2, cells * height // width), cells, 3)).astype(np.float32)
        rough = 0.8 * rough.mean(axis=2, keepdims=True) + 0.3 * rough
        total += cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC) * (40 / cells**0.5)
        cells *= 2
    total = 118 + total
    for _ in range(40):
        centre = (int(random.integers(width)), int(random.integers(height)))
        colour = [float(value) for value in random.integers(0, 256, 3)]
        cv2.circle(total, centre, int(random.integers(4, max(5, height // 8))), colour, -1, cv2.LINE_AA)
    return np.clip(total + random.normal(size=total.shape) * 3, 0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1])


if __name__ == "__main__":
    main()
