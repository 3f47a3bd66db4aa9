"""The benchmark of prediction runs: its ratios are printed and stored; nothing is asserted of time."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_stream_is_compared_with_decoding_and_computing_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """A regression guard without timed asserts: the ratios are in the output and among the test's properties."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import predict

    out = tmp_path / "figures.json"
    tiny = "--only pipeline --backbone cnn4 --image-size 32 --photos 40 --rounds 1 --out"
    monkeypatch.setattr("sys.argv", ["predict.py", *tiny.split(), str(out)])
    predict.main()
    rows = json.loads(out.read_text())["pipeline"]
    rates = [row["images/s"] for row in rows if row.get("images/s")]
    ratios = {row["what"]: row["ratio"] for row in rows if "ratio" in row}
    assert len(ratios) == 3
    assert all(math.isfinite(figure) and figure > 0 for figure in (*rates, *ratios.values()))
    for what, ratio in ratios.items():
        record_property(what, ratio)
