"""The short form of damage.py: truncations and bit flips over every file of a small bundle and of a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
from reliability.damage import DAMAGES, Target, damage, make_bundle, make_checkpoint, make_rows

COUNT = 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return make_bundle(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return make_checkpoint(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return make_rows(tmp_path_factory.mktemp("damage") / "rows")


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("what", ["bundle", "checkpoint", "rows"])
def test_every_damage_is_found_and_its_file_named(
    what: str, kind: str, request: pytest.FixtureRequest
) -> None:
    target: Target = request.getfixturevalue(what)
    before = {path: path.read_bytes() for path in Path(target.folder).iterdir() if path.is_file()}
    outcomes = list(damage(target, kind, COUNT, np.random.default_rng(0)))
    assert {one.file for one in outcomes} == set(target.files)
    assert [one for one in outcomes if one.missed is not None] == []
    assert {path: path.read_bytes() for path in before} == before


def test_a_damage_that_nobody_looks_for_is_missed(bundle: Target) -> None:
    blind = Target("blind", bundle.folder, ("loss_curve.png",), {"": (lambda folder: None,)})
    (outcome,) = damage(blind, "a bit flipped", 1, np.random.default_rng(0))
    assert outcome.missed == "not found"
