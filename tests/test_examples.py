"""The examples run as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_data import TINY

from mlcls import train
from mlcls.recipe import build_recipe

ALL_CORES = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
EXAMPLES = Path(__file__).parent.parent / "examples"


def test_a_loss_of_ones_own_is_named_by_its_place(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    out = tmp_path / "o"
    flags = ["--loss", "my_loss:smoothed_bce", "--loss-args", "smoothing=0.3", "--epochs", "1"]
    assert train.main(["--labels", str(toy), "--out", str(out), *TINY, *flags]) == 0
    smoothed = json.loads((out / "metrics.json").read_text())["epochs"][0]["train_loss"]
    flags[3] = "smoothing=0.0"
    assert train.main(["--labels", str(toy), "--out", str(out), "--overwrite", *TINY, *flags]) == 0
    assert json.loads((out / "metrics.json").read_text())["epochs"][0]["train_loss"] != smoothed


def test_a_recipe_of_ones_own_trains(toy: Path, tmp_path: Path) -> None:
    recipe = EXAMPLES / "my_recipe.toml"
    assert build_recipe(str(recipe)).loss == "asl"
    flags = ["--recipe", str(recipe), "--labels", str(toy), "--out", str(tmp_path / "o"), "--epochs", "1"]
    assert train.main([*flags, *TINY]) == 0


def test_the_quickstart_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py")],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, check=True, env=ALL_CORES,
    )  # fmt: skip
    assert "macro average precision on test: 0." in done.stdout
    assert (tmp_path / "outputs/quickstart/bundle.json").is_file()


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "text" in output
    )
    assert "average precision" in shown
