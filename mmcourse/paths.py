"""Where things lie: shipped data beside the package, generated data in a cache folder."""
import os
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
CHECKPOINTS = DATA / "checkpoints"
RESULTS = DATA / "results"


def cache_dir() -> Path:
    """The folder for generated data. `MMCOURSE_CACHE` moves it; it is created at first use."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmcourse"
    path = Path(os.environ.get("MMCOURSE_CACHE") or default).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path
