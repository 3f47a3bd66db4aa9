"""The short form of `fuzz_images.py`: damaged and expensive files end in pixels or an ImageError, within the bounds."""

import os
import signal

import pytest
from reliability.bombs import BOMBS
from reliability.fuzz_images import damaged, decoded, run, try_all
from reliability.measured import measure

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

# what is built in a moment
QUICK = [
    "jpeg: a million segments",
    "png: texts of 1 GB",
    "png: a million empty IDAT",
    "gif: a million clear codes",
    "gif: 14,000 x 14,000",
    "gif: a picture larger than its screen",
    "bmp: 14,000 x 14,000 in a kilobyte",
    "tiff: a tile of 16,000 x 16,000 for a pixel",
    "tiff: 100,000 strips of L*a*b*",
    "tiff: 20,000 strips, each the whole file",
    "tiff: 6,000 x 6,000 of 64-bit floats",
    "tiff: a table of 500,000 values 1,000 times",
]


def test_damaged_files_of_every_kind_stay_within_the_bounds() -> None:
    outcomes = run(280, seed=7)
    assert [outcome for outcome in outcomes if not outcome.good] == []
    ends = [outcome.cost.ended for outcome in outcomes]
    assert 0.2 < ends.count("read") / len(ends) < 0.8  # else the damage would be too gentle, or too rough


def test_a_file_is_a_function_of_the_seed_and_its_number() -> None:
    assert list(damaged(50, 3)) == list(damaged(60, 3))[:50]


@pytest.mark.parametrize("name", QUICK)
def test_what_asks_for_much_is_refused_or_decoded_within_the_bounds(name: str) -> None:
    data = BOMBS[name]()
    cost = measure(lambda: decoded(data), spare=4 << 30)
    assert cost.ended in ("read", "refused")
    assert cost.megabytes < 1000
    assert cost.seconds < 5


def test_what_a_child_does_is_found() -> None:
    """The measure itself: memory, time, a crash and an exception are seen."""
    assert measure(lambda: str(len(bytearray(300_000_000)))).megabytes > 250
    assert measure(lambda: str(sum(range(5_000_000)))).seconds > 0.05
    assert measure(lambda: os.kill(os.getpid(), signal.SIGKILL) or "").ended == "killed by SIGKILL"  # type: ignore[func-returns-value]
    assert measure(lambda: str(sum(1 for _ in iter(int, 1))), limit_s=1).ended.startswith("killed by SIG")
    outcomes = try_all(list(damaged(3, 0)))
    assert len(outcomes) == 3
