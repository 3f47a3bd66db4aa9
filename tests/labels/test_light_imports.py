"""What a training reads its table with is imported quickly: a small CSV needs neither pandas nor SciPy."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("pandas", "scipy", "sklearn", "matplotlib", "jinja2", "pyarrow", "torch")

PROGRAM = """
import sys
import numpy as np
import mlcls.labels.alignment, mlcls.labels.combine, mlcls.scoring.assessment, mlcls.scoring.differences
import mlcls.scoring.thresholds, mlcls.reports.console_scores, mlcls.reports.html
from mlcls.labels.health import describe_health
from mlcls.labels.split import combine_groups, split_table
from mlcls.labels.table import read_table

table = read_table(sys.argv[1])
assert table.labels.shape == (60, 2)
describe_health(table.labels, table.attributes, np.full((60, 2), 100, np.int32))
split_table(table.labels, groups=combine_groups(60, ()))
print(*[name for name in sys.argv[2:] if name in sys.modules])
"""


def test_a_table_is_read_checked_and_split_without_what_is_slow_to_import(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{i % 2},{'NA' if i % 7 == 0 else i // 3 % 2}" for i in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,cat,dog", *rows, "0.jpg,0,1"]))
    for i in range(60):
        (tmp_path / f"{i}.jpg").touch()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "labels.csv"), *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
