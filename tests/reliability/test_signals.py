"""Ctrl-C where it does not come out as KeyboardInterrupt."""

import signal
from pathlib import Path
from typing import Any

import pytest
from toy_data import TINY

from mlcls.train import main
from mlcls.workflows import finishing


def test_a_signal_that_compiled_code_turns_into_another_error(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: Any) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:  # as an extension module does while it is imported
            raise ImportError("initialization failed") from error

    out = tmp_path / "out"
    flags = [
        "--labels",
        str(toy),
        "--out",
        str(out),
        *TINY,
        "--epochs",
        "1",
        "--augment",
        "none",
        "--resamples",
        "0",
    ]
    monkeypatch.setattr(finishing, "_draw", lambda *given: "")
    with monkeypatch.context() as patch:
        patch.setattr(finishing, "_export", interrupted)
        assert main(flags) == 130
    assert "--resume" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (out / "bundle.json").exists()
    assert main(["--out", str(out), "--resume"]) == 0
    assert (out / "model.onnx").exists()
