"""Shipped models: safetensors files and one manifest.json that says how each was made. Strict, checked, atomic."""
import hashlib
import importlib
from pathlib import Path

from mmcourse.files import atomic_write, read_json, write_json
from mmcourse.paths import CHECKPOINTS

SCALE = "|scale"                                        # the name of the scales beside the name of a matrix in int8
# What a manifest may name, and where it is: a module may move, and a manifest can run nothing else.
CLASSES = {
    "BPETokenizer": "mmcourse.bpe",
    "VQVAE": "mmcourse.vqvae",
    "AudioCodec": "mmcourse.codec",
    "Transformer": "mmcourse.transformer",
    "FlowDecoder": "mmcourse.diffusion",
    "SoundDecoder": "mmcourse.sound_decoder",
    "PictureNet": "mmcourse.judges.picture_net",
    "WordJudge": "mmcourse.judges.hearing",
    "SecondListener": "mmcourse.judges.second_listener",
}


def sha256(path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def manifest(folder=CHECKPOINTS) -> dict:
    """Everything that is known of the checkpoints in a folder: name -> entry."""
    path = Path(folder) / "manifest.json"
    return read_json(path) if path.exists() else {}


def identity(name: str, folder=CHECKPOINTS) -> str:
    """What stands for a checkpoint's weights in the names of cached files and in what was trained on it.

    It is the SHA-256 of the file that first held them. A file may be written anew with other names for the same weights; the
    manifest then keeps the first hash as `identity`, and whatever was made with the old file stays valid.
    """
    entry = manifest(folder)[name]
    return entry.get("identity", entry["sha256"])


def record(name: str, file, *, folder=CHECKPOINTS, **entry) -> None:
    """Put a file that already lies in `folder` into its manifest, with its hash and what else is said of it."""
    folder = Path(folder)
    entries = manifest(folder)
    entries[name] = {"file": Path(file).name, "sha256": sha256(folder / Path(file).name), **entry}
    write_json(folder / "manifest.json", dict(sorted(entries.items())))


def save(name: str, model, *, seed: int, steps: int, cpu_minutes: float, metrics: dict, folder=CHECKPOINTS,
         dtype=None, **extra) -> Path:
    """Write a model as `name.safetensors` and record it. Either the old checkpoint stays or the new one is whole.

    `dtype` makes the file smaller: torch.float16, or torch.int8 for the matrices (`to_int8`); `load` gives float32 in any case.
    (A crash between the file and its record leaves a pair that `load` refuses: never new weights under an old name.)
    """
    from safetensors.torch import save_file
    path = Path(folder) / f"{name}.safetensors"
    with atomic_write(path) as draft:
        save_file(quantize_state(model.state_dict(), dtype), draft)
    record(name, path, folder=folder, model=type(model).__qualname__, config=model.config,
           seed=seed, steps=steps, cpu_minutes=round(cpu_minutes, 2), metrics=metrics, **extra)
    return path


def to_int8(matrix) -> tuple:
    """A matrix (rows, columns) as int8 and one float32 scale a row, (rows, 1): the largest number of a row becomes +-127."""
    import torch
    scale = matrix.abs().amax(1, keepdim=True).float().clamp(min=1e-30) / 127
    return (matrix / scale).round().to(torch.int8), scale


def quantize_state(state: dict, dtype) -> dict:
    """A model's state with smaller numbers: float16, or int8 with scales for the matrices; None: as it is."""
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


def dequantize_state(state: dict) -> dict:
    """What `quantize_state` made of a model's state, as numbers of the model again."""
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
    """The model of a checkpoint, in eval mode, or the tokenizer that a `.json` holds.

    The hash, every name and every shape must fit, else ValueError.
    """
    path, entry = verify(name, folder)
    make = class_of(entry["model"], path)
    if path.suffix == ".json":
        return make.load(path)
    return fill(make, path, entry)


def class_of(name: str, path):
    """The class that a manifest names; ValueError if it is not one of `CLASSES`. (Older manifests name its module too.)"""
    cls = name.rpartition(".")[2]
    if cls not in CLASSES:
        raise ValueError(f"{path}: the manifest names the class {name!r}, which is not of this package")
    return getattr(importlib.import_module(CLASSES[cls]), cls)


def fill(make, path: Path, entry: dict):
    """A model made by its config, with the weights of a file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        model = make(**entry["config"])
    except TypeError as error:
        raise ValueError(f"{path}: the config in the manifest is not one of {make.__name__}: {error}. Restore "
                         "data/checkpoints with git") from None
    try:
        model.load_state_dict(dequantize_state(load_file(path)), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} does not fit the config in the manifest: {str(error)[:300]}") from None
    return model.eval()
