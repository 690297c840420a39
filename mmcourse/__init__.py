"""Truly Multimodal: a tiny GPT-4o, built from scratch in the notebooks and backed by this package.

`import mmcourse as mm` is cheap: every name below is imported from its module at first use, torch included.
"""
import importlib
import os

# Before torch is imported, which reads it once: a thread that waits for another shall sleep, not spin. On an idle machine
# that costs nearly nothing; on a busy one, two spinning threads are ten times slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_HOME = {
    "load": "assistant", "Assistant": "assistant", "Text": "assistant", "Image": "assistant", "Audio": "assistant",
    "setup": "show",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"mmcourse.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mmcourse' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
