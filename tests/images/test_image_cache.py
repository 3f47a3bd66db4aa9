"""The cache of decoded images: a second pass decodes nothing, whatever happened to the first, within its bound."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import pytest

from mlcls.errors import ImageError
from mlcls.images import cache, pack_writer, packs, survey
from mlcls.images.augment import build_augmentation
from mlcls.images.catalogue import form_name
from mlcls.images.dataset import ImageDataset, evaluation_batches, training_batches
from mlcls.images.load import load_image
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.survey import CacheRoom, Survey, survey_images

N, SIDE = 12, 24
PREPROCESSING = Preprocessing(SIDE)
ROW = SIDE * SIDE * 3
EACH = ROW + packs.INDEX_BYTES


def write_photos(folder: Path, count: int, seed: int = 0) -> PathList:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = cv2.resize(rng.random((6, 8, 3)) * 255, (90 + number, 70), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), pixels.astype(np.uint8))
    return PathList(folder, [f"{number:03d}.jpg" for number in range(count)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PathList:
    return write_photos(tmp_path_factory.mktemp("photos"), N)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> PathList:
    return write_photos(tmp_path_factory.mktemp("others"), N, seed=1)


@pytest.fixture
def room(tmp_path: Path) -> CacheRoom:
    return CacheRoom(tmp_path / "cache", 10**9)


@pytest.fixture(autouse=True)
def _nothing_goes_on() -> Iterator[None]:
    yield
    pack_writer.finish_commits()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that were decoded, in a pass or by a store."""
    names: list[str] = []

    def counted(of: Callable[..., object], at: int) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            names.append(Path(str(args[at])).name)
            return of(*args, **options)

        return call

    monkeypatch.setattr(survey, "decode_for", counted(survey.decode_for, 1))
    monkeypatch.setattr(survey, "glance", counted(survey.glance, 1))
    monkeypatch.setattr(cache, "load_image", counted(cache.load_image, 0))
    return names


def passed(paths: PathList, room: CacheRoom | None, preprocessing: Preprocessing = PREPROCESSING) -> Survey:
    """A whole pass, its pack written."""
    result = survey_images(paths, preprocessing, room)
    pack_writer.finish_commits()
    return result


def pixels_of(result: Survey) -> list[bytes]:
    assert result.store is not None
    return [result.store(index).tobytes() for index in range(len(result.store))]


def indexes(room: CacheRoom) -> list[Path]:
    return packs.indexes(room.folder)


def files(room: CacheRoom) -> list[str]:
    """The kinds of the files of packs that are there."""
    return sorted(p.suffix for p in room.folder.rglob("*") if p.is_file() and p.name != packs.LOCK)


def taken(room: CacheRoom) -> int:
    return sum(path.stat().st_size for path in room.folder.rglob("*") if path.is_file())


# -- what it gives ---------------------------------------------------------------------------------------------


def test_a_second_pass_decodes_nothing_and_knows_the_same(
    photos: PathList, room: CacheRoom, decoded: list[str]
) -> None:
    plain = passed(photos, None)
    decoded.clear()
    first = passed(photos, room)
    assert (first.found, first.kept, first.problem) == (0, N, None)
    assert sorted(decoded) == [Path(path).name for path in photos]
    decoded.clear()
    second = passed(photos, room)
    assert (second.found, second.kept) == (N, 0)
    assert pixels_of(plain) == pixels_of(first) == pixels_of(second)
    assert decoded == [Path(path).name for path in photos]  # by the store of `plain` alone
    for name in ("sizes", "pictures", "hashes"):
        rows = [getattr(result.prints, name) for result in (plain, first, second)]
        assert np.array_equal(rows[0], rows[1])
        assert np.array_equal(rows[0], rows[2])
    assert second.prints.sizes.tolist() == [[90 + number, 70] for number in range(N)]
    assert np.array_equal(first.digests, second.digests)
    assert first.store is not None
    assert first.store.cached
    assert files(room) == [".npz", ".rows"]


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_pixels_are_those_of_load_image(photos: PathList, room: CacheRoom, fit: str) -> None:
    form = Preprocessing(40, fit)
    for result in (passed(photos, None, form), passed(photos, room, form), passed(photos, room, form)):
        assert result.store is not None
        for index, path in enumerate(photos):
            pixels = result.store.read(index)
            assert np.array_equal(pixels, load_image(path, form))
            assert pixels.shape == (40, 40, 3)


def test_what_a_reader_writes_into_pixels_stays_its_own(photos: PathList, room: CacheRoom) -> None:
    store = passed(photos, room).store
    assert store is not None
    before = store(3)
    before += 1
    assert not np.array_equal(store(3), before)


def test_each_form_has_pixels_of_its_own_and_what_changes_nothing_shares_them(
    photos: PathList, room: CacheRoom
) -> None:
    base = Preprocessing(SIDE)
    same = [
        Preprocessing(SIDE, crop_pct=0.5),
        Preprocessing(SIDE, mean=(0.1, 0.2, 0.3)),
        Preprocessing(SIDE, std=(1, 1, 1)),
    ]
    other = [
        Preprocessing(SIDE + 1),
        Preprocessing(SIDE, "crop"),
        Preprocessing(SIDE, "crop", crop_pct=0.5),
        Preprocessing(SIDE, "pad"),
        Preprocessing(SIDE, "pad", mean=(0.1, 0.2, 0.3)),
        Preprocessing(SIDE, interpolation="bilinear"),
    ]
    assert {form_name(form) for form in same} == {form_name(base)}
    assert len({form_name(form) for form in (base, *other)}) == 1 + len(other)
    passed(photos, room)
    assert [passed(photos, room, form).found for form in same] == [N] * len(same)
    assert [passed(photos, room, form).found for form in other] == [0] * len(other)


def test_a_fit_of_ones_own_is_not_kept(photos: PathList, room: CacheRoom) -> None:
    form = Preprocessing(SIDE, "mlcls.images.preprocess:squash")
    for _ in range(2):
        result = passed(photos, room, form)
        assert (result.found, result.kept) == (0, 0)
        assert "its code may change" in str(result.problem)
    assert pixels_of(result) == pixels_of(passed(photos, None))


def test_it_goes_by_content_not_by_name_or_time(photos: PathList, room: CacheRoom, tmp_path: Path) -> None:
    passed(photos, room)
    copies = tmp_path / "copies"
    copies.mkdir()
    for number, path in enumerate(photos):
        (copies / f"copy {number}").write_bytes(Path(path).read_bytes())
    (copies / "copy 5").write_bytes(Path(photos[4]).read_bytes())
    result = passed(PathList(copies, [f"copy {number}" for number in range(N)]), room)
    assert result.found == N
    assert pixels_of(result)[5] == pixels_of(result)[4]


def test_files_that_are_the_same_are_kept_once(photos: PathList, room: CacheRoom) -> None:
    twice = PathList("", [*photos, *photos])
    result = passed(twice, room)
    assert result.kept == 2 * N
    assert indexes(room)[0].with_suffix(".rows").stat().st_size == N * ROW
    assert pixels_of(result)[:N] == pixels_of(result)[N:]


def test_without_a_form_any_pack_tells_what_is_known(
    photos: PathList, others: PathList, room: CacheRoom, decoded: list[str]
) -> None:
    first = passed(photos, room)
    decoded.clear()
    both = PathList("", [*photos, *others])
    result = survey_images(both, None, room)
    assert (result.found, result.kept, result.store) == (N, 0, None)
    assert sorted(decoded) == [Path(path).name for path in others]
    assert np.array_equal(result.prints.pictures[:N], first.prints.pictures)
    assert result.prints.sizes.tolist() == [[90 + number, 70] for number in range(N)] * 2
    assert len(indexes(room)) == 1


def test_sizes_alone_when_nothing_alike_is_looked_for(photos: PathList, room: CacheRoom) -> None:
    for _ in range(2):
        result = survey_images(photos, PREPROCESSING, room, hashes=False)
        pack_writer.finish_commits()
        assert len(result.prints.hashes) == 0
        assert result.prints.sizes[:, 0].tolist() == [90 + number for number in range(N)]
    assert passed(photos, room).prints.hashes.all()  # they were kept all the same


def test_what_cannot_be_read_is_named_and_not_kept(photos: PathList, room: CacheRoom, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(Path(photos[0]).read_bytes()[:-100])
    paths = PathList("", [*list(photos)[:3], str(tmp_path / "broken.jpg"), str(tmp_path / "absent.jpg")])
    for found in (0, 3):
        result = passed(paths, room)
        assert [index for index, _ in result.unreadable] == [3, 4]
        assert all(message.startswith(paths[index]) for index, message in result.unreadable)
        assert result.found == found
        assert not result.prints.sizes[3:].any()
        assert result.store is not None
        with pytest.raises(ImageError, match="absent"):
            result.store(4)


@pytest.mark.parametrize("threads", [1, 3, None])
def test_a_pass_streams_and_says_how_far_it_is(photos: PathList, threads: int | None) -> None:
    counts: list[int] = []
    survey_images(photos, PREPROCESSING, threads=threads, on_progress=counts.append)
    assert counts == list(range(1, N + 1))
    assert survey_images(PathList("", []), PREPROCESSING).unreadable == []


# -- workers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_and_threads_read_the_same_from_cache_and_files(
    photos: PathList, room: CacheRoom, method: str
) -> None:
    labels = np.zeros((N, 1), np.float32)
    augment = build_augmentation("rich", PREPROCESSING, seed=7)

    def epoch(store: object, **options: object) -> list[bytes]:
        dataset = ImageDataset(store, labels, augment)  # type: ignore[arg-type]
        batches = training_batches(dataset, batch_size=4, seed=7, **options)  # type: ignore[arg-type]
        return [batch.pixels.numpy().tobytes() for batch in batches.epoch(1)]

    kept, plain = passed(photos, room).store, passed(photos, None).store
    assert kept is not None
    assert epoch(kept) == epoch(plain) == epoch(kept, workers=1, start_method=method)
    batches = list(evaluation_batches(ImageDataset(kept, labels), batch_size=5))
    evaluated = [pixels.permute(1, 2, 0).numpy().tobytes() for batch in batches for pixels in batch.pixels]
    assert evaluated == pixels_of(passed(photos, None))


def test_workers_may_start_while_the_pack_goes_to_disk(
    photos: PathList, room: CacheRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    flush = pack_writer.flush

    def slow(file: IO[bytes]) -> None:
        go_on.wait(30)
        flush(file)

    monkeypatch.setattr(pack_writer, "flush", slow)
    store = survey_images(photos, PREPROCESSING, room).store
    assert store is not None
    batches = training_batches(
        ImageDataset(store, np.zeros((N, 1), np.float32)),
        batch_size=4,
        seed=0,
        workers=2,
        start_method="fork",
    )
    pixels = {}
    for batch in batches.epoch(0):
        pixels.update(zip(batch.indices.tolist(), batch.pixels.permute(0, 2, 3, 1), strict=True))
    assert indexes(room) == []
    go_on.set()
    pack_writer.finish_commits()
    assert len(indexes(room)) == 1
    assert files(room) == [".npz", ".rows"]
    assert [pixels[i].numpy().tobytes() for i in range(N)] == pixels_of(passed(photos, None))


def test_a_selection_is_of_its_rows_and_small_when_pickled(photos: PathList, room: CacheRoom) -> None:
    store = passed(photos, room).store
    assert store is not None
    rows = np.array([7, 2, 2, 11])
    selected = store.select(rows)
    assert len(selected) == 4
    again = pickle.loads(pickle.dumps(selected))
    for index, row in enumerate(rows):
        assert np.array_equal(selected(index), store(row))
        assert np.array_equal(again(index), store(row))
    assert len(pickle.dumps(selected)) < 2000  # neither pixels nor maps


def test_few_files_are_open_at_a_time(
    tmp_path: Path, room: CacheRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_OPEN", 3)
    photos = write_photos(tmp_path / "photos", 8)
    for count in range(1, 9):
        passed(PathList("", list(photos)[:count]), room)
    assert len(indexes(room)) == 8
    store = passed(photos, room).store
    assert store is not None
    expected = pixels_of(passed(photos, None))
    for _ in range(2):
        for index in (0, 5, 1, 7, 3, 2, 6, 4):
            assert store(index).tobytes() == expected[index]
            mapped = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
            assert sum(line.endswith(".rows") for line in mapped.splitlines()) <= 3


def test_threads_may_share_a_store(photos: PathList, room: CacheRoom) -> None:
    store, expected = passed(photos, room).store, pixels_of(passed(photos, None))
    assert store is not None
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(i for _ in range(20) for i in range(N) if store(i).tobytes() != expected[i])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- the bound -------------------------------------------------------------------------------------------------


def test_the_pack_used_longest_ago_goes_first(tmp_path: Path, decoded: list[str]) -> None:
    sets = [write_photos(tmp_path / str(seed), 4, seed) for seed in range(4)]
    room = CacheRoom(tmp_path / "cache", 3 * (4 * EACH + packs.INDEX_HEAD))
    for paths in sets[:3]:
        passed(paths, room)
    passed(sets[0], room)  # used again: now the second is the oldest
    passed(sets[3], room)
    assert taken(room) <= room.limit
    assert [passed(paths, room).found for paths in (sets[0], sets[2], sets[3])] == [4, 4, 4]
    decoded.clear()
    assert passed(sets[1], room).found == 0
    assert len(decoded) == 4


def test_the_bound_counts_every_form_and_what_does_not_fit_is_decoded_each_time(
    photos: PathList, tmp_path: Path
) -> None:
    room = CacheRoom(tmp_path / "cache", 5 * EACH + packs.INDEX_HEAD)
    expected = pixels_of(passed(photos, None))
    for form in (PREPROCESSING, Preprocessing(SIDE, interpolation="bilinear")):
        for _ in range(2):
            result = passed(photos, room, form)
            assert taken(room) <= room.limit
            assert result.found + result.kept == 5
            assert result.problem is None
    result = passed(photos, room)
    assert result.store is not None
    assert not result.store.cached
    assert pixels_of(result) == expected


def test_a_pack_that_the_run_uses_is_not_removed_for_its_own_new_images(
    photos: PathList, others: PathList, tmp_path: Path
) -> None:
    room = CacheRoom(tmp_path / "cache", (N + 3) * EACH + 2 * packs.INDEX_HEAD)
    passed(photos, room)
    # the new images come first, so that room is wanted before the old pack is met
    result = passed(PathList("", [*others, *photos]), room)
    assert result.found == N
    assert 3 <= result.kept <= 4
    assert taken(room) <= room.limit


def test_a_lower_bound_is_kept_at_the_next_pass(photos: PathList, others: PathList, room: CacheRoom) -> None:
    passed(photos, room)
    passed(others, room)
    small = room._replace(limit=N * EACH + packs.INDEX_HEAD)
    assert passed(others, small).found == N
    assert len(indexes(room)) == 1
    assert passed(others, room._replace(limit=100)).found == N  # it is used: it stays for this run
    assert len(indexes(room)) == 1


def test_some_of_the_disk_is_left_to_others(
    photos: PathList, others: PathList, room: CacheRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed(photos, room)
    monkeypatch.setattr(packs, "SPARE", 10**18)
    result = passed(others, room)
    assert (result.found, result.kept, result.problem) == (0, 0, None)
    assert indexes(room) == []  # given up for room that did not suffice: the disk is others'


def test_a_crowd_of_packs_is_thinned(
    tmp_path: Path, room: CacheRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MOST_PACKS", 3)
    for seed in range(5):
        passed(write_photos(tmp_path / str(seed), 1, seed), room)
    assert len(indexes(room)) == 3
    assert [passed(write_photos(tmp_path / str(seed), 1, seed), room).found for seed in (4, 3, 2)] == [
        1,
        1,
        1,
    ]


# -- damage ----------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_flipped_bit_of_a_row_is_noticed_and_the_pack_dropped(
    photos: PathList, room: CacheRoom, decoded: list[str]
) -> None:
    expected = pixels_of(passed(photos, room))
    flip(indexes(room)[0].with_suffix(".rows"), 4 * ROW + 100)
    result = passed(photos, room)
    decoded.clear()
    assert result.found == N
    assert pixels_of(result) == expected
    assert decoded == ["004.jpg"]
    assert indexes(room) == []
    again = passed(photos, room)
    assert (again.found, again.kept) == (0, N)
    assert pixels_of(again) == expected


@pytest.mark.parametrize("length", [0, 1, -1, -ROW])
def test_a_shortened_pack_is_dropped(photos: PathList, room: CacheRoom, length: int) -> None:
    expected = pixels_of(passed(photos, room))
    rows = indexes(room)[0].with_suffix(".rows")
    os.truncate(rows, length % (N * ROW) if length < 0 else length)
    result = passed(photos, room)
    assert (result.found, result.kept) == (0, N)
    assert pixels_of(result) == expected
    assert len(indexes(room)) == 1
    assert not rows.exists()


def test_rows_that_vanish_or_shrink_under_a_run_are_decoded(photos: PathList, room: CacheRoom) -> None:
    expected = pixels_of(passed(photos, None))
    for harm in (Path.unlink, lambda path: os.truncate(path, ROW)):
        result = passed(photos, room)
        harm(indexes(room)[0].with_suffix(".rows"))
        assert pixels_of(result) == expected
        passed(photos, room)


def test_a_damaged_index_is_noticed_wherever_it_is(photos: PathList, room: CacheRoom) -> None:
    expected = pixels_of(passed(photos, room))
    index = indexes(room)[0]
    whole, rows = index.read_bytes(), index.with_suffix(".rows").read_bytes()
    rng = np.random.default_rng(0)
    places = np.unique(
        [*rng.integers(0, len(whole), 30), *range(0, 130, 9), *range(len(whole) - 400, len(whole), 17)]
    )
    for at in places.tolist():
        packs.remove_pack(index)
        index.write_bytes(whole)
        index.with_suffix(".rows").write_bytes(rows)
        flip(index, at)
        assert pixels_of(passed(photos, room)) == expected
        for left in indexes(room):
            packs.remove_pack(left)
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        index.write_bytes(whole[:length])
        index.with_suffix(".rows").write_bytes(rows)
        assert pixels_of(passed(photos, room)) == expected
        for left in indexes(room):
            packs.remove_pack(left)


# -- a disk that is full, a folder that is not ours ------------------------------------------------------------


@pytest.mark.parametrize("step", ["write_all", "flush", "rename"])
@pytest.mark.parametrize("after", [0, 1, N])
def test_a_full_disk_costs_the_cache_alone(
    photos: PathList,
    others: PathList,
    room: CacheRoom,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    after: int,
) -> None:
    passed(photos, room)
    done = 0
    real = getattr(pack_writer, step)

    def fails(*args: object) -> None:
        nonlocal done
        done += 1
        if done > after:
            raise OSError(28, "No space left on device")
        real(*args)

    monkeypatch.setattr(pack_writer, step, fails)
    both = PathList("", [*photos, *others])
    result = passed(both, room)
    told = step == "write_all" and after < N  # what fails later, beside the run, is found by the next one
    assert (result.problem is not None) == told
    if told:
        assert f"cannot be kept in {room.folder} (No space left on device)" in str(result.problem)
        assert result.store is not None
        assert not result.store.cached
    assert result.found == N
    assert pixels_of(result) == pixels_of(passed(both, None))
    failed = done > after
    monkeypatch.undo()
    assert files(room) == [".npz"] * (1 + (not failed)) + [".rows"] * (1 + (not failed))
    assert passed(both, room).found == (N if failed else 2 * N)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_read_and_not_written(
    photos: PathList, others: PathList, room: CacheRoom
) -> None:
    passed(photos, room)
    folders = [room.folder, *(path for path in room.folder.iterdir() if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert passed(photos, room).found == N
        result = passed(PathList("", [*photos, *others]), room)
        assert (result.found, result.kept) == (N, 0)
        assert "cannot be kept in" in str(result.problem)
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_a_file_where_the_folder_should_be_is_told_in_a_sentence(photos: PathList, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    result = passed(photos, CacheRoom(tmp_path / "cache" / "images", 10**9))
    assert "cannot be kept in" in str(result.problem)
    assert "MLCLS_CACHE" in str(result.problem)
    assert pixels_of(result) == pixels_of(passed(photos, None))


def test_files_of_others_in_the_folder_are_left_alone(photos: PathList, room: CacheRoom) -> None:
    room.folder.mkdir()
    name = "a" * 32 + ".npz"
    strange = [room.folder / path for path in ("notes.txt", "24-x/x.rows", f"elsewhere/{name}", name)]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    passed(photos, room._replace(limit=6 * EACH))
    assert all(path.read_text() == "mine" for path in strange)


# -- kills, and two at once ------------------------------------------------------------------------------------

RUN = """
import os, signal, sys
from pathlib import Path
from mlcls.images import pack_writer
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.survey import CacheRoom, survey_images

photos, cache, side, step, after = sys.argv[1:]
done = 0
def stop(real):
    def call(*args):
        global done
        done += 1
        if done > int(after):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call
if step:
    setattr(pack_writer, step, stop(getattr(pack_writer, step)))
names = sorted(path.name for path in Path(photos).iterdir())
for _ in range(1 if step else 3):
    result = survey_images(PathList(photos, names), Preprocessing(int(side)), CacheRoom(Path(cache), 10**9))
    assert result.problem is None, result.problem
    assert result.store.cached
    import zlib
    print(zlib.crc32(b"".join(result.store(i).tobytes() for i in range(len(names)))), flush=True)
"""


def started(photos: PathList, room: CacheRoom, step: str = "", after: int = 0) -> "subprocess.Popen[str]":
    arguments = [photos.folder, str(room.folder), str(SIDE), step, str(after)]
    return subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
@pytest.mark.parametrize(
    ("step", "after"),
    [("write_all", 5), ("write_all", N), ("flush", 0), ("flush", 1), ("rename", 0), ("flush_folder", 0)],
)
def test_a_kill_leaves_whole_packs_or_what_the_next_run_clears(
    photos: PathList, others: PathList, room: CacheRoom, step: str, after: int
) -> None:
    passed(others, room)
    killed = started(photos, room, step, after)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = files(room)
    assert len(left) > 2
    result = passed(photos, room)
    if step == "flush_folder":  # the index had its name
        assert (result.found, result.kept) == (N, 0)
    else:
        assert (result.found, result.kept) == (0, N)
    assert pixels_of(result) == pixels_of(passed(photos, None))
    assert passed(others, room).found == N
    assert files(room) == [".npz", ".npz", ".rows", ".rows"]


def test_two_at_once_do_not_disturb_each_other(photos: PathList, room: CacheRoom) -> None:
    runs = [started(photos, room) for _ in range(2)]
    outputs = [run.communicate(timeout=100)[0].split() for run in runs]
    assert all(run.returncode == 0 for run in runs)
    assert len({number for output in outputs for number in output}) == 1
    assert [len(output) for output in outputs] == [3, 3]
    assert set(files(room)) == {".npz", ".rows"}
    assert passed(photos, room).found == N


WRITE_SLOWLY = """
import sys
from pathlib import Path
import numpy as np
from mlcls.images.pack_writer import PackWriter, Row

folder, form, side = sys.argv[1:]
writer = PackWriter(Path(folder), form, 10**9)
pixels, picture = np.zeros((int(side), int(side), 3), np.uint8), np.zeros((32, 32), np.uint8)
writer.append(Row(bytes(32), pixels, (1, 1), picture, 1), set)
print("written", flush=True)
sys.stdin.readline()
writer.commit()
"""


def test_a_pack_that_another_process_writes_is_no_orphan(
    photos: PathList, others: PathList, room: CacheRoom
) -> None:
    arguments = [str(room.folder), str(form_name(PREPROCESSING)), str(SIDE)]
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_SLOWLY, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        passed(photos, room)
        assert files(room) == [".lock", ".npz", ".rows", ".rows"]
        writer.communicate("go on\n", timeout=60)
    assert writer.returncode == 0  # the end of the process waited for the pack
    passed(photos, room)
    assert files(room) == [".npz", ".npz", ".rows", ".rows"]


def test_a_pass_needs_no_torch_and_without_news_no_hash_library(photos: PathList, room: CacheRoom) -> None:
    passed(photos, room)
    code = RUN + "assert not {'torch', 'imagehash', 'PIL', 'pandas'} & set(sys.modules)"
    arguments = [photos.folder, str(room.folder), str(SIDE), "", "0"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60, capture_output=True)
