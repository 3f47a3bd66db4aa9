"""A sample of the faults that `faults.py` lets every write, flush, rename and removal meet."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the runs are forked")


def test_a_fault_leaves_the_last_good_state_or_a_clear_error(tmp_path: Path) -> None:
    # a process of its own: the runs are forked from one that has no threads
    script, root = Path(__file__).with_name("faults.py"), tmp_path / "root"
    done = subprocess.run(
        [sys.executable, str(script), "--sample", "12", "--seed", "2", "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 not as they should be" in done.stdout
