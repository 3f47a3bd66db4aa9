"""Where an image lies: by its whole key, among several packs, the one used last first."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.images.catalogue import Catalogue, Place
from mlcls.images.packs import Pack

keys = st.binary(min_size=2, max_size=2).map(lambda tail: bytes(30) + tail)  # all begin alike


def pack(rows: list[bytes]) -> Pack:
    found = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)
    return Pack(Path("x.npz"), found, np.zeros(len(rows), np.uint32))


@settings(deadline=None, max_examples=100)
@given(packs=st.lists(st.lists(keys, max_size=6), max_size=4), other=keys)
def test_a_key_is_found_where_it_stands_first(packs: list[list[bytes]], other: bytes) -> None:
    catalogue = Catalogue([pack(rows) for rows in packs])
    first: dict[bytes, Place] = {}
    for number, rows in enumerate(packs):
        for row, key in enumerate(rows):
            first.setdefault(key, Place(number, row))
    for key in [*first, other]:
        assert catalogue.find(key) == first.get(key)


def test_an_empty_catalogue_finds_nothing() -> None:
    assert Catalogue(()).find(bytes(32)) is None
    assert Catalogue(()).look_up(bytes(32)) is None
