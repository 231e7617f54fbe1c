"""The cache folder: where converted bases and hashes of weights are kept between runs.

Knows only where it is; what is in it may be deleted at any time and is made again.
"""

import os
from pathlib import Path

from platformdirs import user_cache_dir

CACHE_VARIABLE = "INSTRUCTEDIT_CACHE"


def cache_folder() -> Path:
    """Return the cache folder: the user's, or what the environment variable INSTRUCTEDIT_CACHE names.

    The folder may not exist yet.
    """
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path(user_cache_dir("instructedit"))
