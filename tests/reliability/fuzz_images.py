"""Damaged images of every kind through the decoder, in children with a bound on memory and a clock.

    python tests/reliability/fuzz_images.py --count 10000

prints a Markdown table: what came of them, the slowest and the largest. Exit code 1 where a child crashed, raised
another exception than ImageError, or went beyond 1 GB or 5 seconds. `--keep DIR` writes those files there. `--bombs`
measures the files that were built to be expensive, and large plain pictures, in the same way.
"""

import argparse
import ctypes
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from reliability.bombs import BOMBS, LARGE
from reliability.measured import Cost, measure
from reliability.zoo import deep, every_kind, gradient, turned

from mlcls.errors import ImageError
from mlcls.images.fingerprint import fingerprint
from mlcls.images.load import decode_for
from mlcls.images.preprocess import Preprocessing
from mlcls.images.read import decode_image

MEGABYTES, SECONDS = 1000.0, 5.0
PREPROCESSING = Preprocessing(32, "pad")
SPARE = (
    4 << 30
)  # bytes of address space: more than is allowed, so that too much is seen and not merely refused
BATCH = 100  # files a child: a crash costs one child for each of them


class Damaged(NamedTuple):
    """A file, and what was done to it."""

    name: str
    data: bytes


def decoded(data: bytes) -> str:
    """What comes of a file in full and prepared: `read`, `refused`, or the name of an exception that must not be."""
    try:
        pixels = decode_image(data, "file")
        fingerprint(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            return f"pixels {pixels.dtype} {pixels.shape}"
        decode_for(data, "file", PREPROCESSING)
    except ImageError as error:
        return "refused" if str(error).startswith("file: ") else f"a message without the name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


# -- damage ---------------------------------------------------------------------------------------------------


def flip_bits(data: bytearray, numbers: random.Random, others: list[bytes]) -> None:
    for _ in range(numbers.choice((1, 1, 2, 4, 16))):
        data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)


def set_bytes(data: bytearray, numbers: random.Random, others: list[bytes]) -> None:
    for _ in range(numbers.choice((1, 2, 4))):
        data[numbers.randrange(len(data))] = numbers.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))


def cut(data: bytearray, numbers: random.Random, others: list[bytes]) -> None:
    del data[numbers.randrange(len(data)) :]


def splice(data: bytearray, numbers: random.Random, others: list[bytes]) -> None:
    """A piece of another file in the place of one of this."""
    other = numbers.choice(others)
    start, length = numbers.randrange(len(other)), numbers.randrange(1, 200)
    at = numbers.randrange(len(data))
    data[at : at + numbers.choice((0, length))] = other[start : start + length]


def repeat(data: bytearray, numbers: random.Random, others: list[bytes]) -> None:
    start, length = numbers.randrange(len(data)), numbers.randrange(1, 100)
    data[start:start] = data[start : start + length] * numbers.choice((2, 10, 1000))


def large_field(data: bytearray, numbers: random.Random, others: list[bytes]) -> None:
    """A number near the beginning, where headers are, or near the end, where a TIFF has its directory."""
    size = numbers.choice((2, 4, 4))
    value = numbers.choice(
        (0, 1, 2, 1000, 14_000, 60_000, 65_535, 1 << 20, 1 << 27, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    )
    near = numbers.randrange(min(len(data), 220))
    at = near if numbers.random() < 0.7 else len(data) - 1 - near
    value &= (1 << 8 * size) - 1
    data[at : at + size] = value.to_bytes(size, numbers.choice(("little", "big")))


DAMAGES: list[Callable[[bytearray, random.Random, list[bytes]], None]] = [
    flip_bits,
    set_bytes,
    cut,
    splice,
    repeat,
    large_field,
]


def mend_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have checksums that fit: else no damage would come past them."""
    import struct
    import zlib

    mended, at = bytearray(data), 8
    while at + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, at)
        if at + 12 + length > len(mended):
            break
        struct.pack_into(">I", mended, at + 8 + length, zlib.crc32(mended[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(mended)


def damaged(count: int, seed: int) -> Iterator[Damaged]:
    """So many damaged files, each a function of the seed and its number; every kind in turn."""
    numbers = random.Random(seed)
    picture = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    zoo: dict[str, bytes] = {}
    for number, one in enumerate((gradient(), picture)):
        zoo |= {f"{name} ({number})": data for name, data in {**every_kind(one), **turned(one)}.items()}
    zoo |= deep()
    names, files = list(zoo), list(zoo.values())
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(zoo[name])
        done = numbers.choices(DAMAGES, k=numbers.choice((1, 1, 2, 3)))
        for damage in done:
            if data:
                damage(data, numbers, files)
        mended = (
            mend_checksums(bytes(data)) if name.startswith("png") and numbers.random() < 0.8 else bytes(data)
        )
        yield Damaged(f"{number}: {name}, {', '.join(damage.__name__ for damage in done)}", mended)


# -- measuring ------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a file, and what it cost."""

    file: Damaged
    cost: Cost

    @property
    def good(self) -> bool:
        ended = self.cost.ended in ("read", "refused")
        return ended and self.cost.megabytes <= MEGABYTES and self.cost.seconds <= SECONDS


def try_all(files: list[Damaged]) -> list[Outcome]:
    """Each file's outcome; one child for all, and where that does not end well, or is dear, one for each."""

    def work() -> str:
        ends = []
        for file in files:
            start = time.process_time()
            end = decoded(file.data)
            ends.append(f"{end.split(':')[0]}={time.process_time() - start:.3f}")
        return "|".join(ends)

    cost = measure(work, limit_s=120, spare=SPARE)
    ends = [end.rpartition("=") for end in cost.ended.split("|")]
    if (
        len(ends) != len(files)
        or cost.megabytes > 300
        or not {end for end, _, _ in ends} <= {"read", "refused"}
    ):
        return [
            Outcome(file, measure(lambda file=file: decoded(file.data), limit_s=30, spare=SPARE))
            for file in files
        ]  # type: ignore[misc]
    return [
        Outcome(file, Cost(end, cost.megabytes, float(seconds)))
        for file, (end, _, seconds) in zip(files, ends, strict=True)
    ]


def run(count: int, seed: int, told: Callable[[int], None] = lambda done: None) -> list[Outcome]:
    """All outcomes."""
    cv2.setNumThreads(1)
    fingerprint(decode_image(every_kind(gradient())["png"], "warm"))  # imports, once for all children
    outcomes, batch = [], []
    for number, file in enumerate(damaged(count, seed), 1):
        batch.append(file)
        if len(batch) == BATCH or number == count:
            outcomes += try_all(batch)
            batch = []
            told(number)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """The outcomes in Markdown."""
    lines = ["| outcome | files |", "|---|---:|"]
    lines += [f"| {end} | {n:,} |" for end, n in Counter(o.cost.ended for o in outcomes).most_common()]
    lines += ["", "| | file | MB | s |", "|---|---|---:|---:|"]
    for title, key in (("slowest", lambda o: o.cost.seconds), ("largest", lambda o: o.cost.megabytes)):
        for outcome in sorted(outcomes, key=key, reverse=True)[:5]:
            cost = outcome.cost
            lines.append(f"| {title} | {outcome.file.name} | {cost.megabytes:,.0f} | {cost.seconds:.2f} |")
    return "\n".join(lines)


def try_bombs() -> list[Outcome]:
    """The files that were built to be expensive, and large plain ones, each in a child."""
    cv2.setNumThreads(1)
    fingerprint(decode_image(every_kind(gradient())["png"], "warm"))
    outcomes = []
    for name, build in {**BOMBS, **LARGE}.items():
        file = Damaged(name, build())
        if (
            sys.platform == "linux"
        ):  # what building it took, and gave back, must not be there to be used again
            ctypes.CDLL(None).malloc_trim(0)
        # both at once would be twice the time: in full here, prepared there
        for form, work in (("in full", _full), ("prepared", _prepared)):
            cost = measure(lambda data=file.data, work=work: work(data), limit_s=120, spare=SPARE)  # type: ignore[misc]
            outcomes.append(Outcome(Damaged(f"{name}, {form}", b""), cost))
    return outcomes


def _full(data: bytes) -> str:
    try:
        fingerprint(decode_image(data, "file"))
    except ImageError:
        return "refused"
    return "read"


def _prepared(data: bytes) -> str:
    try:
        decode_for(data, "file", PREPROCESSING)
    except ImageError:
        return "refused"
    return "read"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--bombs", action="store_true")
    arguments = parser.parse_args()
    if arguments.bombs:
        outcomes = try_bombs()
        print("| file | outcome | MB | s |\n|---|---|---:|---:|")
        for o in outcomes:
            print(f"| {o.file.name} | {o.cost.ended} | {o.cost.megabytes:,.0f} | {o.cost.seconds:.2f} |")
    else:
        told = lambda done: print(f"\r{done:,} of {arguments.count:,}", end="", file=sys.stderr)  # noqa: E731
        outcomes = run(arguments.count, arguments.seed, told)
        print(table(outcomes))
    bad = [outcome for outcome in outcomes if not outcome.good]
    for outcome in bad:
        print(f"- {outcome.file.name}: {outcome.cost}")
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / outcome.file.name.split(":")[0]).write_bytes(outcome.file.data)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
