"""Where what can be made again is kept: the cache folder."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """MLCLS_CACHE if it is set, else the user's cache folder of this platform."""
    return Path(os.environ.get("MLCLS_CACHE") or platformdirs.user_cache_dir("mlcls"))
