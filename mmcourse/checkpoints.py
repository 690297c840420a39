"""Shipped models: safetensors files and one manifest.json that says how each was made. Strict, checked, atomic."""
import hashlib
import importlib
import json
import os
from pathlib import Path

from mmcourse.paths import CHECKPOINTS

SCALE = "|scale"                                        # the name of the scales beside the name of a matrix in int8


def sha256(path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def manifest(folder=CHECKPOINTS) -> dict:
    """Everything that is known of the checkpoints in a folder: name -> entry."""
    path = Path(folder) / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON any more ({error}): restore it with git") from None


def record(name: str, file, *, folder=CHECKPOINTS, **entry) -> None:
    """Put a file that already lies in `folder` into its manifest, with its hash and what else is said of it."""
    folder = Path(folder)
    entries = manifest(folder)
    entries[name] = {"file": Path(file).name, "sha256": sha256(folder / Path(file).name), **entry}
    temporary = folder / f"manifest.{os.getpid()}.part"
    temporary.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "manifest.json")


def save(name: str, model, *, seed: int, steps: int, cpu_minutes: float, metrics: dict, folder=CHECKPOINTS,
         dtype=None, **extra) -> Path:
    """Write a model as `name.safetensors` and record it. Either the old checkpoint stays or the new one is whole.

    `dtype` makes the file smaller: torch.float16, or torch.int8 for the matrices (`to_int8`); `load` gives float32 in any case.
    (A crash between the file and its record leaves a pair that `load` refuses: never new weights under an old name.)
    """
    from safetensors.torch import save_file
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / f"{name}.safetensors", folder / f"{name}.{os.getpid()}.part"
    try:
        save_file(_smaller(model.state_dict(), dtype), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    record(name, path, folder=folder, model=f"{type(model).__module__}.{type(model).__qualname__}", config=model.config,
           seed=seed, steps=steps, cpu_minutes=round(cpu_minutes, 2), metrics=metrics, **extra)
    return path


def to_int8(matrix) -> tuple:
    """A matrix (rows, columns) as int8 and one float32 scale a row, (rows, 1): the largest number of a row becomes +-127."""
    import torch
    scale = matrix.abs().amax(1, keepdim=True).float().clamp(min=1e-30) / 127
    return (matrix / scale).round().to(torch.int8), scale


def _smaller(state: dict, dtype) -> dict:
    import torch
    out = {}
    for name, value in state.items():
        if dtype == torch.int8 and value.is_floating_point() and value.ndim == 2:
            out[name], out[name + SCALE] = to_int8(value)
        elif dtype and dtype != torch.int8 and value.is_floating_point():
            out[name] = value.to(dtype).contiguous()
        else:
            out[name] = value.contiguous().clone()
    return out


def _whole(state: dict) -> dict:
    """What `_smaller` made of a model's state, as numbers of the model again."""
    bare = [name for name, value in state.items() if str(value.dtype) == "torch.int8" and name + SCALE not in state]
    if bare:
        raise RuntimeError(f"no scale for the 8-bit numbers of {', '.join(bare)}")
    return {name: value * state[name + SCALE] if name + SCALE in state else value
            for name, value in state.items() if not name.endswith(SCALE)}


def verify(name: str, folder=CHECKPOINTS) -> tuple[Path, dict]:
    """The file and the manifest entry of a checkpoint; ValueError if the file is not the one that was recorded."""
    folder = Path(folder)
    entry = manifest(folder).get(name)
    if entry is None:
        raise FileNotFoundError(f"no checkpoint {name!r} in {folder} (it has: {', '.join(manifest(folder)) or 'none'}); "
                                f"`python -m mmcourse train {name}` makes one")
    path = folder / entry["file"]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing though the manifest names it; "
                                f"restore it with git or run `python -m mmcourse train {name}`")
    if sha256(path) != entry["sha256"]:
        raise ValueError(f"{path} is not the file that the manifest records: its contents have changed. "
                         f"Restore it with git or run `python -m mmcourse train {name}`")
    return path, entry


def load(name: str, folder=CHECKPOINTS):
    """The model of a checkpoint, in eval mode. The hash, every name and every shape must fit, else ValueError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    path, entry = verify(name, folder)
    module, _, cls = entry["model"].rpartition(".")
    try:
        if not module.startswith("mmcourse."):
            raise ImportError
        make = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError):
        raise ValueError(f"{path}: the manifest names the class {entry['model']!r}, which is not of this package") from None
    try:
        model = make(**entry["config"])
    except TypeError as error:
        raise ValueError(f"{path}: the config in the manifest is not one of {cls}: {error}. Restore data/checkpoints "
                         "with git") from None
    try:
        model.load_state_dict(_whole(load_file(path)), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} does not fit the config in the manifest: {str(error)[:300]}") from None
    return model.eval()
