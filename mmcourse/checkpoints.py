"""Shipped models: safetensors files and one manifest.json that says how each was made. Strict, checked, atomic.

A folder of checkpoints runs no code: a manifest names one of `CLASSES`, its config is that class's arguments, its files are
numbers. Each entry carries a hash of itself, so that a damaged one is noticed.
"""
import hashlib
import importlib
import inspect
import json
import re
from pathlib import Path

from mmcourse.files import atomic_write, locked, read_json, write_json
from mmcourse.paths import CHECKPOINTS

SCALE = "|scale"                                        # the name of the scales beside the name of a matrix in int8
# What a manifest may name, and where it is: a module may move, and a manifest can run nothing else.
CLASSES = {
    "BPETokenizer": "mmcourse.bpe",
    "VQVAE": "mmcourse.vqvae",
    "AudioCodec": "mmcourse.codec",
    "Transformer": "mmcourse.transformer",
    "TokenPainter": "mmcourse.painters",
    "FlowDecoder": "mmcourse.diffusion",
    "SoundDecoder": "mmcourse.sound_decoder",
    "SignPainters": "mmcourse.experiments.sign_data",
    "Learners": "mmcourse.experiments.learners",
    "ShelfNets": "mmcourse.experiments.shelf_nets",
    "PictureNet": "mmcourse.judges.picture_net",
    "WordJudge": "mmcourse.judges.hearing",
    "SecondListener": "mmcourse.judges.second_listener",
    "PhraseListener": "mmcourse.judges.phrase_listener",
    "SignReader": "mmcourse.judges.signs",
}


# What an entry holds must be of these kinds; what else is said in it is for people.
KINDS = {"file": str, "sha256": str, "model": str, "config": dict, "tokenizers": dict, "vocabulary": dict}
RESTORE = "restore data/checkpoints with git"


def sha256(path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def manifest(folder=CHECKPOINTS) -> dict:
    """Everything that is known of the checkpoints in a folder: name -> entry. ValueError if an entry was altered."""
    path = Path(folder) / "manifest.json"
    entries = read_json(path) if path.is_file() else {}
    for name, entry in entries.items() if isinstance(entries, dict) else [("", None)]:
        if not isinstance(entry, dict) or entry.pop("seal", None) != seal(name, entry):
            raise ValueError(f"{path}: the entry {name!r} is not as it was recorded (damaged, edited, or of an older version "
                             f"of the course): {RESTORE}")
        check_entry(name, entry, path)
    return entries


def seal(name: str, entry: dict) -> str:
    """The hash of an entry and its name."""
    return hashlib.sha256(json.dumps([name, entry], sort_keys=True).encode()).hexdigest()


def check_entry(name: str, entry: dict, path) -> None:
    """ValueError for an entry that could lead out of its folder, or is of no shape that `load` knows."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"{path}: {name!r} is no name of a checkpoint: letters, digits, - and _ make one")
    if entry.get("file") not in (f"{name}.safetensors", f"{name}.json"):
        raise ValueError(f"{path}: {name!r} lies in {name}.safetensors or {name}.json beside it, not in {entry.get('file')!r}")
    for key, kind in KINDS.items():
        if not isinstance(entry.get(key, kind()), kind):
            raise ValueError(f"{path}: {key} of {name!r} is no {kind.__name__}: {entry[key]!r:.80}")


def write_manifest(entries: dict, folder=CHECKPOINTS) -> None:
    """The manifest of a folder, atomically, each entry with its seal."""
    write_json(Path(folder) / "manifest.json", {name: {**entries[name], "seal": seal(name, entries[name])}
                                                for name in sorted(entries)})


def identity(name: str, folder=CHECKPOINTS) -> str:
    """What stands for a checkpoint's weights in the names of cached files and in what was trained on it.

    It is the SHA-256 of the file that first held them. A file may be written anew with other names for the same weights; the
    manifest then keeps the first hash as `identity`, and whatever was made with the old file stays valid.
    """
    entry = manifest(folder)[name]
    return entry.get("identity", entry["sha256"])


def strangers(folder=CHECKPOINTS) -> dict[str, str]:
    """{name: part} of the checkpoints of a folder that were trained on another `part` than the one beside them."""
    entries, found = manifest(folder), {}
    for name, entry in entries.items():
        parts = entry.get("tokenizers", {}) | {part: entry[part] for part in ("vqvae", "codec") if part in entry}
        for part, hashed in parts.items():
            if part in entries and hashed != entries[part].get("identity", entries[part].get("sha256")):
                found[name] = part
    return found


def record(name: str, file, *, folder=CHECKPOINTS, content: bytes | None = None, **entry) -> None:
    """Put a file into the manifest of its folder, with its hash and what else is said of it.

    It lies there already, or is written with the `content` that is given: file and manifest both, or neither. (A crash
    between the two leaves a pair that `load` refuses: never new weights under an old name.)
    """
    path = Path(folder) / Path(file).name
    digest = sha256(path) if content is None else hashlib.sha256(content).hexdigest()
    entry = {"file": path.name, "sha256": digest, **plain(entry)}
    check_entry(name, entry, path.parent / "manifest.json")
    with locked(path.parent / "manifest.json"):
        entries = {**manifest(folder), name: entry}
        if content is None:
            write_manifest(entries, folder)
        else:
            with atomic_write(path) as draft:
                draft.write_bytes(content)
                write_manifest(entries, folder)


def plain(entry: dict) -> dict:
    """An entry as JSON gives it back: numbers of numpy and torch are Python's. TypeError or ValueError for what JSON lacks."""
    def number(value):
        return value.tolist() if hasattr(value, "tolist") else json.JSONEncoder().default(value)     # TypeError
    return json.loads(json.dumps(entry, allow_nan=False, default=number))


def save(name: str, model, *, seed: int, steps: int, cpu_minutes: float, metrics: dict, folder=CHECKPOINTS,
         dtype=None, **extra) -> Path:
    """Write a model as `name.safetensors` and record it. Either the old checkpoint stays or the new one is whole.

    `dtype` makes the file smaller: torch.float16, or torch.int8 for the matrices (`to_int8`); `load` gives float32 in any case.
    """
    import safetensors.torch
    state = quantize_state(model.state_dict(), dtype)
    check_finite_weights(state, f"{name} is not saved")
    file = f"{name}.safetensors"
    record(name, file, folder=folder, content=safetensors.torch.save(state), model=type(model).__qualname__,
           config=model.config, seed=seed, steps=steps, cpu_minutes=round(cpu_minutes, 2), metrics=metrics, **extra)
    return Path(folder) / file


def check_finite_weights(state: dict, what: str) -> None:
    """ValueError that names the weights that are not finite."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise ValueError(f"{what}: it holds NaN or infinity in {', '.join(bad[:3])}")


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
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no {folder}: this installation lacks the data of the course; clone the "
                                    "course and run `pip install -e .` in it")
        raise FileNotFoundError(f"no checkpoint {name!r} in {folder} (it has: {', '.join(manifest(folder)) or 'none'}); "
                                f"`python -m mmcourse train {name} --ship` makes one")
    path = folder / entry["file"]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing though the manifest names it; "
                                f"restore it with git or run `python -m mmcourse train {name} --ship`")
    if sha256(path) != entry.get("sha256"):
        raise ValueError(f"{path} is not the file that the manifest records: its contents have changed. "
                         f"Restore it with git or run `python -m mmcourse train {name} --ship`")
    return path, entry


def load(name: str, folder=CHECKPOINTS):
    """The model of a checkpoint, in eval mode, or the tokenizer that a `.json` holds.

    The hash, every name, shape and kind of number must fit, and so must the tokenizer beside it that it was trained on; else
    ValueError.
    """
    path, entry = verify(name, folder)
    part = strangers(folder).get(name)
    if part:
        raise ValueError(f"the {name} was trained on another {part}: its ids would mean other things. Restore "
                         f"data/checkpoints with git or run `python -m mmcourse train {name} --ship`")
    make = class_of(entry.get("model", ""), path)
    if (path.suffix == ".json") != (make.__name__ == "BPETokenizer"):
        raise ValueError(f"{path}: the manifest names the class {make.__name__}, which is in no such file: {RESTORE}")
    return make.load(path) if path.suffix == ".json" else fill(make, path, entry)


def class_of(name: str, path):
    """The class that a manifest names; ValueError if it is not one of `CLASSES`. (Older manifests name its module too.)"""
    cls = name.rpartition(".")[2]
    if cls not in CLASSES:
        raise ValueError(f"{path}: the manifest names the class {name!r}, which is not of this package")
    return getattr(importlib.import_module(CLASSES[cls]), cls)


def fill(make, path: Path, entry: dict):
    """A model made by its config, with the weights of a file."""
    from safetensors.torch import load_file
    config = entry.get("config", {})
    try:
        inspect.signature(make).bind(**config)
        model = make(**config)
    except Exception as error:                          # a config may hold anything
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: the config in the manifest is not one of {make.__name__}: {why}; {RESTORE}") from None
    try:
        state, wanted = dequantize_state(load_file(path)), model.state_dict()
        kinds = [name for name in state.keys() & wanted.keys() if state[name].dtype != wanted[name].dtype
                 and not (state[name].is_floating_point() and wanted[name].is_floating_point())]
        if kinds:
            raise ValueError(f"{sorted(kinds)[0]} is of another kind of number")
        model.load_state_dict(state, strict=True)
    except Exception as error:                          # and so may a file
        raise ValueError(f"{path} does not fit the config in the manifest: {str(error)[:300]}") from None
    check_finite_weights(state, f"{path} is not a model")
    return model.eval()
