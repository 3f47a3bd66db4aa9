"""The folder `checkpoint/` of a run that has not ended: whether one stands, what to say of it, and its removal.

A run is unfinished exactly when `checkpoint/manifest.json` stands.
"""

import contextlib
import shlex
import shutil
import stat
from pathlib import Path

from mlcls import durable
from mlcls.errors import BundleError, OutputError

MANIFEST = "bundle.json"  # of a finished bundle
CHECKPOINT, CHECKPOINT_MANIFEST, STAGED, LOCK = "checkpoint", "manifest.json", "bundle", "lock"
RUNS, MEMBER = "members", "fold-"  # a run of folds has its members' runs in `checkpoint/members/fold-0`, ...
REPLACED = "replaced.json"  # the `bundle.json` of the bundle that one is moved over
ENDINGS = (".safetensors", ".rows", durable.PART)  # of the files that a run writes there


def is_unfinished(folder: Path) -> bool:
    """Whether an unfinished run stands in a folder that `--out` named."""
    return (folder / CHECKPOINT / CHECKPOINT_MANIFEST).exists()


def how_to_go_on(folder: Path) -> str:
    """The command that goes on with the run in a folder."""
    return f"python -m mlcls.train --out {shlex.quote(str(folder))} --resume"


def unfinished_notes(*folders: str | Path) -> list[str]:
    """What to tell who uses finished bundles over which unfinished runs stand: a line each, with its end."""
    return [
        f"an unfinished run stands in {folder / CHECKPOINT}; the finished bundle beside it is used. To go on with the "
        f"run: {how_to_go_on(folder)}\n"
        for folder in map(Path, folders)
        if is_unfinished(folder) and (folder / MANIFEST).exists()
    ]


def check_checkpoint_folder(folder: Path) -> None:
    """Make sure that `checkpoint/` in `folder`, if it is there, is a folder of a run's own.

    Raises:
        BundleError: it is a link or a file, or holds what no run has written.
    """
    place = folder / CHECKPOINT
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise BundleError(f"--out {folder}: {place} is no folder; remove it, or name another folder")
        if is_unfinished(folder):
            return
        for path in sorted((*place.iterdir(), *_in_runs(place / RUNS))):
            if path.name not in (STAGED, LOCK, REPLACED, RUNS) and path.suffix not in ENDINGS:
                raise BundleError(
                    f"--out {folder}: {path} was not written by a training, which would remove it; move it away, or "
                    "name another folder"
                )


def _in_runs(runs: Path) -> list[Path]:
    """What stands beside the runs of members, and is none."""
    if runs.is_symlink() or not runs.is_dir():
        return []
    return [path for path in runs.iterdir() if not path.is_dir() or not path.name.startswith(MEMBER)]


def remove_checkpoint(folder: Path) -> None:
    """Remove the unfinished run in `folder`, and what is left of one, but for the lock, which `hold_folder` removes.

    Its manifest goes first: half removed it counts as none. Nothing in `folder` itself is touched.

    Raises:
        OutputError: a file cannot be removed.
    """
    place = folder / CHECKPOINT
    if place.is_symlink() or not place.is_dir():
        return
    try:
        durable.remove(place / CHECKPOINT_MANIFEST)
        durable.flush_folder(place)
        clear_staged(folder)
        _remove_runs(place / RUNS)
        for path in sorted(place.iterdir()):
            if path.name != LOCK and (path.is_symlink() or not path.is_dir()):
                durable.remove(path)
    except OSError as error:
        raise OutputError(
            f"{error.filename or place}: cannot be removed ({error.strerror or error}); remove {place} by hand"
        ) from error
    with contextlib.suppress(OSError):  # the lock is there still
        place.rmdir()
    durable.flush_folder(folder)


def _remove_runs(runs: Path) -> None:
    """Remove the runs of members. Raises OSError."""
    if runs.is_symlink():
        durable.remove(runs)
    elif runs.is_dir():
        shutil.rmtree(runs)


def clear_staged(folder: Path) -> None:
    """Remove the files of a bundle that were not yet moved to their place. Raises OSError."""
    staged = folder / CHECKPOINT / STAGED
    if staged.is_symlink() or staged.is_file():
        durable.remove(staged)
    elif staged.is_dir():
        for path in sorted(staged.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                durable.remove(path)
        staged.rmdir()
