"""The one pass over all images of a table: each is read and looked up in the cache, else decoded, once, and kept there.

Without torch. In threads: reading, hashing, decoding and resizing let go of the GIL.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import ImageError
from mlcls.images.cache import DECODED, ImageStore, PackReader, Rows
from mlcls.images.catalogue import Catalogue, Place, form_name, open_catalogue
from mlcls.images.cores import usable_cores
from mlcls.images.fingerprint import Fingerprints, fingerprint, make_fingerprints
from mlcls.images.load import decode_for, glance
from mlcls.images.pack_writer import PackWriter, Row, finish_commits
from mlcls.images.packs import folder_lock, make_room, total_bytes, touch
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.read import MAX_PIXELS, check_size, read_bytes

PEEKED = 200  # images looked up beforehand, before packs are removed, so as to keep those that will be used


class CacheRoom(NamedTuple):
    """Where decoded images are kept, and how many bytes they may take."""

    folder: Path
    limit: int


@dataclass(frozen=True)
class Survey:
    """What one pass over N images has shown.

    Attributes:
        prints: size and fingerprint of each; zeros for one that cannot be read.
        digests: uint8 [N, 32], SHA-256 of each file; zeros for one that cannot be opened.
        unreadable: (index, message) of each image that cannot be read, in order; the message begins with the path.
        store: gives their pixels; None where no preprocessing was named.
        found: how many images the cache held.
        kept: how many of those decoded it holds now.
        problem: a sentence on why it holds no more; None where there is nothing to say.
    """

    prints: Fingerprints
    digests: NDArray[np.uint8]
    unreadable: list[tuple[int, str]]
    store: ImageStore | None
    found: int
    kept: int
    problem: str | None


def survey_images(
    paths: PathList,
    preprocessing: Preprocessing | None = None,
    room: CacheRoom | None = None,
    *,
    hashes: bool = True,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Survey:
    """Look at every image once.

    Args:
        paths: [N]; streamed, with a few images in memory at a time.
        preprocessing: the form in which their pixels will be needed. None where they will not: then an image is
            decoded to see whether it can be read, unless the cache holds it in any form, and nothing is kept.
        room: the cache; None for none.
        hashes: whether near-identical images are to be found.
        max_pixels: a larger image counts as one that cannot be read, also where the cache holds it.
        threads: None for one a core.
        on_progress: called in this thread, after each image, with how many are done.
    """
    threads = max(1, threads if threads is not None else usable_cores())
    one_pass = _Pass(paths, preprocessing, room, hashes, max_pixels)
    pending: deque[tuple[int, Future[_Seen]]] = deque()

    def take_first() -> None:
        index, future = pending.popleft()
        one_pass.take(index, future.result())
        if on_progress is not None:
            on_progress(index + 1)

    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="survey-images") as pool:
            for index in range(len(paths)):
                pending.append((index, pool.submit(one_pass.look, index)))
                if len(pending) >= 4 * threads:
                    take_first()
            while pending:
                take_first()
    except BaseException:
        one_pass.abandon(None)
        raise
    return one_pass.finish()


# of one image: why it cannot be read; where the cache holds it; what is to be kept; None where nothing is
_Seen = str | Place | Row | None


class _Pass:
    """A pass that goes on: `look` in many threads, the rest in one."""

    def __init__(
        self,
        paths: PathList,
        preprocessing: Preprocessing | None,
        room: CacheRoom | None,
        hashes: bool,
        max_pixels: int,
    ) -> None:
        self.paths, self.preprocessing, self.room, self.max_pixels = paths, preprocessing, room, max_pixels
        self.form = form_name(preprocessing) if preprocessing is not None else None
        finish_commits()  # this process's own, of a run before
        useful = room is not None and (preprocessing is None or self.form is not None)
        self.catalogue = open_catalogue(room.folder, self.form) if room and useful else Catalogue(())
        self.keeps = useful and self.form is not None
        self.prints = make_fingerprints(len(paths), hashes=hashes)
        self.digests = np.zeros((len(paths), 32), dtype=np.uint8)
        self.packs = np.full(len(paths), DECODED, dtype=np.int32)
        self.rows = np.zeros(len(paths), dtype=np.int32)
        self.unreadable: list[tuple[int, str]] = []
        self.used: set[Path] = set()
        self.writer: PackWriter | None = None
        self.written: dict[bytes, int] = {}  # rows of the new pack: one for images that are the same file
        self.found = 0
        self.peeked = False
        self.problem: str | None = None
        if room is not None and preprocessing is not None and self.form is None:
            self.problem = (
                f"images are decoded each time they are needed: what --fit {preprocessing.fit} makes of them is not "
                "kept, since its code may change"
            )

    def look(self, index: int) -> _Seen:
        """Read an image and look it up, or decode it."""
        path = self.paths[index]
        try:
            data = read_bytes(path)
            key = hashlib.sha256(data).digest()
            self.digests[index] = np.frombuffer(key, dtype=np.uint8)
            known = self.catalogue.look_up(key)
            if known is not None:
                place, (size, picture, hash) = known
                check_size(int(size[0]), int(size[1]), path, self.max_pixels)
                self.prints.put(index, size, (picture, int(hash)))
                return place
            if self.preprocessing is None:
                seen = glance(data, path, max_pixels=self.max_pixels)
                self.prints.put(
                    index, seen.size, fingerprint(seen.pixels) if len(self.prints.hashes) else None
                )
                return None
            decoded = decode_for(data, path, self.preprocessing, max_pixels=self.max_pixels)
        except ImageError as error:
            return str(error)
        keeps = self.keeps
        found = fingerprint(decoded.pixels) if keeps or len(self.prints.hashes) else None
        self.prints.put(index, decoded.size, found)
        return Row(key, decoded.prepared, decoded.size, *found) if keeps and found else None

    def take(self, index: int, seen: _Seen) -> None:
        """Note what was seen of an image, and keep its pixels; in the order of the images."""
        if isinstance(seen, str):
            self.unreadable.append((index, seen))
        elif isinstance(seen, Place):
            self.packs[index], self.rows[index] = seen
            self.used.add(self.catalogue.packs[seen.pack].index)
            self.found += 1
        elif seen is not None and self.keeps:
            try:
                self._keep(index, seen)
            except OSError as error:
                self.abandon(error)

    def _keep(self, index: int, row: Row) -> None:
        assert self.room is not None
        assert self.form is not None
        if row.key not in self.written:
            if self.writer is None:
                self.writer = PackWriter(self.room.folder, self.form, self.room.limit)
            if not self.writer.append(row, self._to_keep):
                return
            self.written[row.key] = len(self.written)
        self.packs[index], self.rows[index] = len(self.catalogue.packs), self.written[row.key]

    def _to_keep(self) -> Collection[Path]:
        """The packs that this run uses, as far as that is known; a sample of all images tells most of them."""
        if not self.peeked:
            self.peeked = True
            step = max(1, len(self.paths) // PEEKED)
            for index in range(0, len(self.paths), step):
                with contextlib.suppress(ImageError):
                    place = self.catalogue.find(hashlib.sha256(read_bytes(self.paths[index])).digest())
                    if place is not None:
                        self.used.add(self.catalogue.packs[place.pack].index)
        return self.used

    def abandon(self, error: OSError | None) -> None:
        """Keep nothing that was decoded in this pass."""
        if self.writer is not None:
            self.writer.discard()
        self.writer, self.keeps = None, False
        self.packs[self.packs == len(self.catalogue.packs)] = DECODED
        if error is not None and self.room is not None:
            self.problem = (
                f"decoded images cannot be kept in {self.room.folder} ({error.strerror or error}), so they are decoded "
                "each time they are needed; name another folder with the environment variable MLCLS_CACHE"
            )

    def finish(self) -> Survey:
        """What the pass has shown; what is new in the cache is committed."""
        if self.writer is not None and not self.written:  # no room for a single one
            self.abandon(None)
        if self.writer is not None:
            try:
                self.writer.commit()
            except OSError as error:
                self.abandon(error)
        packs = [Rows(pack.rows, pack.checksums) for pack in self.catalogue.packs]
        if self.writer is not None:
            packs.append(Rows(self.writer.rows, self.writer.checksums()))
        for index in self.used:
            touch(index)
        store = None
        if self.preprocessing is not None:
            reader = PackReader(packs, self.preprocessing.image_size)
            store = ImageStore(self.paths, self.preprocessing, reader, self.packs, self.rows, self.max_pixels)
            if self.room is not None:
                self._trim(self.room)
        kept = int((self.packs == len(self.catalogue.packs)).sum())
        return Survey(self.prints, self.digests, self.unreadable, store, self.found, kept, self.problem)

    def _trim(self, room: CacheRoom) -> None:
        """Down to the limit, where it was higher before."""
        with contextlib.suppress(OSError):
            if total_bytes(room.folder) > room.limit:
                with folder_lock(room.folder):
                    make_room(room.folder, 0, room.limit, self.used)
