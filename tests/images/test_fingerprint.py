"""What is kept of each image while all are checked: its size, a small gray picture, and ImageHash's hash of it."""

import subprocess
import sys
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from mlcls.images.fingerprint import SIDE, shrink
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.read import read_image
from mlcls.images.survey import survey_images


def scene(seed: int, height: int = 300, width: int = 420) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(rng.random((6, 8, 3)), (width, height), interpolation=cv2.INTER_CUBIC) * 255
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("threads", [1, 3])
def test_one_pass_finds_the_unreadable_and_fills_the_rows_of_the_others(tmp_path: Path, threads: int) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(9)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), scene(index, 40 + index, 60))
    paths[4].write_bytes(b"no image")
    seen = survey_images(PathList("", map(str, paths)), threads=threads)
    prints = seen.prints
    assert [index for index, _ in seen.unreadable] == [4]
    for index in (0, 1, 2, 3, 5, 6, 7, 8):
        picture = shrink(read_image(paths[index]))
        assert np.array_equal(prints.pictures[index], picture)
        assert tuple(prints.sizes[index]) == (60, 40 + index)
        bits = imagehash.phash(Image.fromarray(picture)).hash.ravel()
        assert f"{int(prints.hashes[index]):064b}" == "".join(str(int(bit)) for bit in bits)
    assert not prints.sizes[4].any()
    left = prints.select(np.array([0, 5]))
    assert left.sizes.tolist() == [[60, 40], [60, 45]]
    assert np.array_equal(left.hashes, prints.hashes[[0, 5]])
    assert np.array_equal(left.pictures, prints.pictures[[0, 5]])


def test_a_smaller_decoding_tells_the_true_size_and_nearly_the_same(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), scene(3, 600, 800))
    paths = PathList(tmp_path, ["a.jpg"])
    whole, reduced = survey_images(paths).prints, survey_images(paths, Preprocessing(48)).prints
    assert whole.sizes.tolist() == reduced.sizes.tolist() == [[800, 600]]
    assert np.abs(whole.pictures.astype(int) - reduced.pictures).max() <= 4
    assert int(whole.hashes[0] ^ reduced.hashes[0]).bit_count() <= 2


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 500), (3000, 2), (255, 256), (256, 256), (257, 1023), (2000, 1500)]
)
def test_the_small_picture_is_the_mean_of_what_each_pixel_covers(shape: tuple[int, int]) -> None:
    pixels = scene(1, *shape)
    small = shrink(pixels)
    assert small.shape == (SIDE, SIDE)
    assert small.dtype == np.uint8
    assert abs(float(small.mean()) - float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())) < 2
    if min(shape) >= SIDE:
        whole = cv2.resize(
            cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA
        )
        assert np.abs(small.astype(int) - whole).max() <= 4  # halving drops an odd last row or column


def test_sizes_alone_load_no_hash_library() -> None:
    code = (
        "import sys; from mlcls.images.fingerprint import make_fingerprints; import numpy as np; "
        "prints = make_fingerprints(2, hashes=False); prints.add(1, np.zeros((4, 6, 3), np.uint8)); "
        "left = prints.select(np.array([1])); assert left.sizes.tolist() == [[6, 4]]; assert not len(left.hashes); "
        "assert 'imagehash' not in sys.modules and 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
