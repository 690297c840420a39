"""Truly Multimodal: a tiny GPT-4o, built from scratch in the notebooks and backed by this package.

`import mmcourse as mm` is cheap: every name below is imported from its module at first use, torch included.
"""
import importlib

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
