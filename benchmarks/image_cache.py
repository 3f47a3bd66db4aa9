"""What the cache of decoded images costs in the first pass over a folder, and what it saves in the second.

    python benchmarks/image_cache.py [--images 1000] [--width 2000] [--height 1500] [--size 224]

Photos are generated (JPEG, smooth colours with noise of a camera's grain). All passes run in one process, on all of
its cores, with the files in the system's own cache: what is measured is the processor's work, not the disk's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mlcls.images import pack_writer
from mlcls.images.cores import usable_cores
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.survey import CacheRoom, survey_images


def write_photos(folder: Path, count: int, width: int, height: int) -> PathList:
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 6, (height, width, 3)).astype(np.float32)
    for number in range(count):
        smooth = cv2.resize(rng.random((9, 12, 3), dtype=np.float32) * 255, (width, height))
        photo = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return PathList(folder, [f"{number:05d}.jpg" for number in range(count)])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of the processor, all threads together."""
    started, of_processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - of_processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--size", type=int, default=224)
    asked = parser.parse_args()
    preprocessing = Preprocessing(asked.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        paths = write_photos(folder / "photos", asked.images, asked.width, asked.height)
        encoded = sum(Path(path).stat().st_size for path in paths)
        room = CacheRoom(folder / "cache", 100 * 10**9)
        synced: list[float] = []
        flush = pack_writer.flush

        def timed_flush(file: object) -> None:
            synced.append(timed(lambda: flush(file))[0])  # type: ignore[arg-type]

        pack_writer.flush = timed_flush  # type: ignore[assignment]
        print(
            f"{asked.images:,} photos of {asked.width} x {asked.height} px, {encoded / 1e6:,.0f} MB, "
            f"to {asked.size} px; {usable_cores()} cores\n"
        )
        print("| pass over all images | seconds | of the processor | its ms an image |\n|---|---|---|---|")

        def row(what: str, seconds: tuple[float, float]) -> None:
            wall, of_processor = seconds
            print(f"| {what} | {wall:.2f} | {of_processor:.2f} | {of_processor * 1e3 / asked.images:.3f} |")

        row("warming up", timed(lambda: [Path(path).read_bytes() for path in paths]))
        row("decoded and fingerprinted, without a cache", timed(lambda: survey_images(paths, preprocessing)))
        row("the first with a cache", timed(lambda: survey_images(paths, preprocessing, room)))
        row("waiting for the disk, beside the run", timed(pack_writer.finish_commits))
        again = survey_images(paths, preprocessing, room)
        assert again.found == asked.images
        assert again.store is not None
        row("the second with a cache", timed(lambda: survey_images(paths, preprocessing, room)))
        row("pixels of all, checksums compared", timed(lambda: [again.store(i) for i in range(len(paths))]))
        row("pixels of all, once more", timed(lambda: [again.store(i) for i in range(len(paths))]))
        plain = survey_images(paths, preprocessing).store
        assert plain is not None
        row("pixels of all, decoded", timed(lambda: [plain(i) for i in range(len(paths))]))
        taken = sum(path.stat().st_size for path in room.folder.rglob("*") if path.is_file())
        print(f"\nthe cache: {taken / 1e6:,.0f} MB; fsync took {sum(synced):.2f} s")


if __name__ == "__main__":
    main()
