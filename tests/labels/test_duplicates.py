"""Byte-identical files are found whatever their names, and told apart where they differ in a single byte."""

import os
from pathlib import Path

import numpy as np

from mlcls.labels.duplicates import TAIL, find_conflicts, find_duplicates


def write(folder: Path, contents: list[bytes]) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def test_equal_files_are_grouped(tmp_path: Path) -> None:
    paths = write(tmp_path, [b"cat", b"dog", b"cat", b"bird", b"dog", b"cat"])
    assert find_duplicates(paths) == ((0, 2, 5), (1, 4))


def test_one_byte_anywhere_tells_files_apart(tmp_path: Path) -> None:
    data = bytearray(np.random.default_rng(0).bytes(3 * TAIL))
    contents = [bytes(data)]
    for place in (0, TAIL, 2 * TAIL + 1, 3 * TAIL - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        contents.append(bytes(changed))
    paths = write(tmp_path, [*contents, bytes(data)])
    assert find_duplicates(paths) == ((0, 5),)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    paths = write(tmp_path, [b"", b"", b"same", b"same"])
    (tmp_path / "folder").mkdir()
    assert find_duplicates([*paths, tmp_path / "gone.png", tmp_path / "folder", tmp_path / "folder"]) == (
        (2, 3),
    )
    assert find_duplicates([]) == ()


def test_a_link_is_the_same_as_its_file(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [b"photo"])
    os.link(path, tmp_path / "again.png")
    assert find_duplicates([path, tmp_path / "again.png"]) == ((0, 1),)


def test_a_conflict_is_two_known_labels_that_are_opposite() -> None:
    unknown = np.nan
    labels = np.array(
        [[1, 0], [1, unknown], [0, 0], [unknown, 1], [unknown, unknown], [1, 1]], dtype=np.float32
    )
    assert find_conflicts(labels, ((0, 1), (1, 3), (3, 4, 5))) == ()
    assert find_conflicts(labels, ((0, 2), (0, 3), (1, 4, 2))) == ((0, 2), (0, 3), (1, 4, 2))
    assert find_conflicts(labels, ()) == ()
