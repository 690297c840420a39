"""Weights that no process holds whole: FSDP2 (of PyTorch 2.6 or later), its checkpoint for any number of processes, and one file
made of that (chapter 14).

Each process keeps a part of every parameter, of its gradient and of what AdamW remembers of it; a block's parameters are whole
only while the block computes. Sources: Rajbhandari et al. 2020 (ZeRO), Zhao et al. 2023 (PyTorch FSDP).

`mmcourse train` does without: its models are small, and Muon orthogonalizes whole matrices, which here nobody has.
"""
import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as shards
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from mmcourse.distributed import agree, processes, rank, share, summed
from mmcourse.files import atomic_write
from mmcourse.optim import Optim, make_optimizers, schedule, set_rates
from mmcourse.transformer import Transformer


def sharded(model: Transformer) -> Transformer:
    """The same transformer, its parameters dealt to the processes that have joined; alone: as it is."""
    if processes() > 1:
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
        register_fsdp_forward_method(model, "hidden")       # called from outside, as `forward` is
    return model


def make_adamw(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """AdamW, number by number: it does not matter who has which. ValueError for what needs more than that."""
    if optim.name == "muon" or optim.ema_decay:
        raise ValueError("sharded weights are trained by AdamW, without a running mean: Muon orthogonalizes whole matrices, and "
                         "no process has one; use Optim('adamw'), or train unsharded")
    return make_optimizers(model, optim)[0]


def local(x: torch.Tensor) -> torch.Tensor:
    """What of a tensor lies in this process."""
    return x.to_local() if hasattr(x, "to_local") else x


def memory(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes in this process now: of the parameters, their gradients and what the optimizer remembers."""
    def count(tensors) -> int:
        return sum(local(x).numel() * x.element_size() for x in tensors if isinstance(x, torch.Tensor))
    return {"parameters": count(model.parameters()), "gradients": count(p.grad for p in model.parameters()),
            "optimizer": count(x for state in optimizer.state.values() for x in state.values())}


def train_sharded(model: Transformer, batch: Callable, loss: Callable, *, steps: int, optim: Optim, seed: int = 0,
                  folder: Path | None = None, until: int | None = None) -> dict:
    """`mmcourse.training.train`, the bare loop, of a model that is `sharded`: `losses` and the `bytes` of this process.

    Args:
        loss: says what it is the mean of (`loss.mean_over`).
        folder: a checkpoint, written in the end; one that is there is gone on from, whichever number of processes wrote it.
        until: stop here though the schedule spans `steps`.
    """
    optimizer, losses, held = make_adamw(model, optim), [], {}
    agree(steps=steps, until=until, seed=seed, optim=str(optim))
    first = load_shards(folder, model, optimizer) if folder is not None and Path(folder).exists() else 0
    model.train()
    for step in range(first, steps if until is None else until):
        set_rates([optimizer], schedule(step, steps, optim.warmup))
        torch.manual_seed(seed * 1_000_003 + step)
        whole = batch(np.random.default_rng((seed, step)))
        part = share(whole, rank(), processes())
        result = loss(model, *part)
        weight = loss.mean_over(*part) / loss.mean_over(*whole)
        mine = weight * (result["loss"] if isinstance(result, dict) else result)
        (processes() * mine).backward()                     # FSDP2 takes the mean over processes
        nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
        losses.append(float(summed(mine.detach())))
        held = memory(model, optimizer) if step > first else held
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    if folder is not None:
        save_shards(folder, model, optimizer, until or steps)
    return {"losses": losses, "bytes": held}


def save_shards(folder, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A folder with a file from each process, in place of the one that is there, once it is whole."""
    folder = Path(folder)
    draft = folder.with_name(f".{folder.name}.part")
    weights, moments = get_state_dict(model, optimizer)
    with one_may_suffice() as alone:
        shards.save({"model": weights, "optimizer": moments, "step": torch.tensor(step)}, checkpoint_id=draft, no_dist=alone)
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    if processes() > 1:
        dist.barrier()                                      # from here on all find it


def load_shards(folder, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take over what `save_shards` wrote, whichever number of processes did, and return its step. ValueError for a folder that
    is not whole, or of another model."""
    there = whole_shards(folder)
    weights, moments = get_state_dict(model, optimizer)
    for name, x in weights.items():
        found = getattr(there.get(f"model.{name}"), "size", None)
        if found != x.shape:
            raise ValueError(f"{folder} belongs to another model: {name} is {tuple(found) if found else 'not there'} in it, not "
                             f"{tuple(x.shape)}")
    state = {"model": weights, "optimizer": moments, "step": torch.tensor(0)}
    with one_may_suffice() as alone:
        shards.load(state, checkpoint_id=folder, no_dist=alone)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return int(state["step"])


@contextlib.contextmanager
def one_may_suffice() -> Iterator[bool]:
    """Whether this process is alone; then torch does not warn that it is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield processes() == 1


def whole_shards(folder) -> dict:
    """What a folder says that it holds, by name. ValueError if it is no such folder, or files are missing."""
    try:
        said = shards.FileSystemReader(folder).read_metadata()
    except Exception as error:
        raise ValueError(f"{folder} is no checkpoint in shards ({type(error).__name__}): delete it to begin anew") from None
    files = {item.relative_path for item in said.storage_data.values()}
    if lost := sorted(name for name in files if not Path(folder, name).exists()):
        raise ValueError(f"{folder} is not whole: of {len(files)} files {', '.join(lost)} is missing; copy those of all machines "
                         "into it, or delete it to begin anew")
    return said.state_dict_metadata


def to_safetensors(folder, file) -> None:
    """One file of whole weights from a folder of shards; it needs one process, and room for the model."""
    import safetensors.torch
    weights = {name.removeprefix("model."): torch.empty(entry.size, dtype=entry.properties.dtype)
               for name, entry in whole_shards(folder).items() if name.startswith("model.")}
    with one_may_suffice():
        shards.load({"model": weights}, checkpoint_id=folder, no_dist=True)
    with atomic_write(file) as draft:
        safetensors.torch.save_file(weights, draft)
