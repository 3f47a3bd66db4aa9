"""Which of a table's images can be read, what is known of each, and where their pixels will come from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.folders import cache_folder
from mlcls.images.cache import ImageStore
from mlcls.images.fingerprint import Fingerprints
from mlcls.images.packs import SPARE
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.survey import CacheRoom, Survey, survey_images
from mlcls.labels.table import LabelTable
from mlcls.recipe import Recipe
from mlcls.reports.console import notes, say
from mlcls.reports.progress import progress
from mlcls.workflows.splitting import select_rows

MAX_LEFT_OUT = 0.1  # more missing or unreadable images than this share of the rows is an error

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Readable:
    """The rows of a table whose image can be read: N of them.

    Attributes:
        unreadable: the names of the others.
        prints: size and fingerprint of each image.
        digests: uint8 [N, 32], SHA-256 of each file.
        store: gives each row's pixels; None where no preprocessing was named.
    """

    table: LabelTable
    unreadable: tuple[str, ...]
    prints: Fingerprints
    digests: NDArray[np.uint8]
    store: ImageStore | None


def survey_table(
    recipe: Recipe, table: LabelTable, console: "Console", preprocessing: Preprocessing | None
) -> Readable:
    """Look at every image of the table, and leave out those that cannot be read.

    Raises:
        TableError: with those missing, the unreadable are more than a tenth of the images.
    """
    room = None
    if recipe.image_cache_gb > 0:
        room = CacheRoom(cache_folder() / "images", int(recipe.image_cache_gb * 1e9))
    count = len(table.images)
    with progress(console, "checking images", count) as advance:
        survey = survey_images(
            PathList(table.images_dir, table.images),
            preprocessing,
            room,
            hashes=recipe.near_duplicates == "together",
            max_pixels=recipe.max_pixels,
            on_progress=lambda done: advance(1),
        )
    _tell(console, survey, count, preprocessing, room)
    if not survey.unreadable:
        return Readable(table, (), survey.prints, survey.digests, survey.store)
    bad = np.array([index for index, _ in survey.unreadable], dtype=np.intp)
    names = tuple(str(name) for name in table.images[bad])
    _check_share(table, survey, names)
    left = np.setdiff1d(np.arange(count), bad)
    store = None if survey.store is None else survey.store.select(left)
    return Readable(select_rows(table, left), names, survey.prints.select(left), survey.digests[left], store)


def _check_share(table: LabelTable, survey: Survey, names: tuple[str, ...]) -> None:
    missing = len(set(table.report.missing))
    asked = len(table.images) + missing  # images, not rows: a table may have many rows an image
    if len(names) + missing <= MAX_LEFT_OUT * asked and len(names) < len(table.images):
        return
    shown = "\n".join(f"  {message}" for _, message in survey.unreadable[:20])
    more = f"\n  and {len(names) - 20} more" if len(names) > 20 else ""
    raise TableError(
        f"{table.report.source}: {len(names)} images cannot be read and {missing} are missing, "
        f"more than a tenth of {asked} images; mend or remove them:\n{shown}{more}"
    )


def _tell(
    console: "Console",
    survey: Survey,
    count: int,
    preprocessing: Preprocessing | None,
    room: CacheRoom | None,
) -> None:
    """One line on how many images had to be decoded, and what became of their pixels."""
    decoded = count - survey.found - len(survey.unreadable)
    if room is None or (preprocessing is None and not survey.found):
        return
    parts = [f"{survey.found:,} from the cache"] if survey.found else []
    if preprocessing is None or not decoded:
        parts.append(f"{decoded:,} decoded" if decoded else "none decoded")
    else:
        size = survey.kept * preprocessing.image_size**2 * 3
        if survey.kept:
            parts.append(f"{survey.kept:,} decoded and kept ({size / 1e6:,.0f} MB)")
        if survey.kept < decoded:
            parts.append(f"{decoded - survey.kept:,} decoded and not kept")
    say(console, f"images: {', '.join(parts)}", style="dim")
    if survey.problem is not None:
        notes(console, [survey.problem])
    elif preprocessing is not None and survey.kept < decoded:
        notes(
            console,
            [
                f"{decoded - survey.kept:,} images have no room in the cache and are decoded each time they are "
                f"needed: it may take {room.limit / 1e9:g} GB (--image-cache-gb) "
                f"and leaves {SPARE / 1e9:g} GB of the disk free"
            ],
        )
