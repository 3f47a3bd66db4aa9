"""The toy data and a bundle trained on it once, for the tests of workflows and commands."""

import os
from pathlib import Path

import pytest
from toy_data import TINY, write_toy

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: tiny networks lose more to threads than they gain


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests cache lies with their other files, and is not found by the next session."""
    os.environ["MLCLS_CACHE"] = str(tmp_path_factory.mktemp("mlcls-cache"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of the toy data; its images stand in images/ beside it."""
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_bundle(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on the toy data through the command line. Tests must not change it: copy it first."""
    from mlcls.train import main

    out = tmp_path_factory.mktemp("bundle") / "outputs"
    flags = ["--epochs", "4", "--unfreeze-epoch", "2", "--augment", "light", "--split", "0.6,0.2,0.2"]
    assert main(["--labels", str(toy), "--out", str(out), *TINY, *flags]) == 0
    return out
