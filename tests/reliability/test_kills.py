"""A few trainings killed and resumed, as `kills.py` does with hundreds."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the runs are forked")


def test_killed_runs_end_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    # a process of its own: the runs are forked from one that has no threads
    asked = ["--kills", "8", "--interrupts", "4", "--seed", "3", "--only", "steps", "views-workers"]
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), *asked, "--root", str(tmp_path / "root")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 faults" in done.stdout
