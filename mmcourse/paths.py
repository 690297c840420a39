"""Where things lie: shipped data beside the package, generated data in a cache folder."""
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# In a clone the data lie beside the package; a wheel carries them inside it (setup.py).
DATA = PACKAGE / "data" if (PACKAGE / "data").is_dir() else PACKAGE.parent / "data"
CHECKPOINTS = DATA / "checkpoints"
RESULTS = DATA / "results"


def cache_home() -> Path:
    """Where generated data belong: `MMCOURSE_CACHE`, else the user's cache folder. It need not exist."""
    try:
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmcourse"
        return Path(os.environ.get("MMCOURSE_CACHE") or default).expanduser().absolute()
    except RuntimeError as error:                       # no home, or ~nobody
        raise OSError(f"there is no folder for generated data ({error}): set MMCOURSE_CACHE to a folder that you "
                      "may write to") from None


def cache_dir() -> Path:
    """`cache_home()`, created at first use. OSError that names `MMCOURSE_CACHE` if that cannot be."""
    path = cache_home()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"the folder for generated data, {path}, cannot be made ({error.strerror}): set "
                      "MMCOURSE_CACHE to a folder that you may write to") from None
    return path
