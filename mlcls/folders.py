"""Where what can be made again is kept: the cache folder."""

import os
import tempfile
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """MLCLS_CACHE if it is set, else the user's cache folder of this platform, or a temporary one without a home."""
    if given := os.environ.get("MLCLS_CACHE"):
        return Path(given)
    try:
        return Path(platformdirs.user_cache_dir("mlcls"))
    except RuntimeError:  # as in a container that runs under a number that is no user
        return Path(tempfile.gettempdir()) / "mlcls"
