"""What two processes do for tests/core/test_distributed.py, which launches them with a folder as their argument.

Each check is a function; what it returns stands under its name in FOLDER/rank0.json and FOLDER/rank1.json.
"""
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mmcourse import quantize
from mmcourse.dataset import mixture_loss
from mmcourse.distributed import (
    add_gradients,
    agree,
    from_first,
    gathered,
    join,
    leave,
    processes,
    rank,
    rows,
    same_start,
    share,
    summed,
)
from mmcourse.experiments.sharding import sharded, train_sharded
from mmcourse.optim import Optim
from mmcourse.quantize import VectorQuantizer
from mmcourse.training import Hardware, Run, train
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vqvae import VQVAE, vqvae_loss

QUIET = Run(progress=False, log_every=1)
ADAMW = Optim("adamw", lr=1e-2, warmup=2)
OPTIM = Optim("muon", lr=3e-3, warmup=2, ema_decay=0.9)


# ---- models and batches, the same here and in the test

def transformer(seed: int = 0, width: int = 16) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(40, width=width, layers=2, heads=2, context=32, segment_starts=(1,))


def mixture(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Two parts; rows of the second half weigh far less, some tokens nothing: a mean of means would be another number."""
    parts = []
    for n, length in ((6, 7), (5, 16)):
        ids = torch.from_numpy(rng.integers(2, 40, (n, length)))
        weights = torch.from_numpy(rng.choice([0.0, 0.1, 1.0, 4.0], (n, length)).astype(np.float32))
        weights[n // 2:] *= 0.1
        parts += [ids, weights]
    return tuple(parts)


def vqvae(seed: int = 0) -> VQVAE:
    torch.manual_seed(seed)
    return VQVAE(24, 4, 16)


def pictures(rng: np.random.Generator) -> tuple[torch.Tensor]:
    return (torch.from_numpy(rng.random((8, 3, 16, 16), dtype=np.float32)),)


def vectors(step: int) -> torch.Tensor:
    """64 vectors in two heaps, one for each process; which heaps they are changes after ten steps."""
    rng = np.random.default_rng(step)
    return torch.from_numpy(rng.normal(np.repeat([0, 9], 32)[:, None] + 30 * (step > 10), 1.0, (64, 2)).astype(np.float32))


def numbers(model: nn.Module) -> dict:
    return {name: x.flatten().tolist() for name, x in model.state_dict().items()}


def words(call) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was wrong"


# ---- checks

def messages(folder):
    x = torch.tensor([[1.0, 2.0]]) * (rank() + 1)
    agree(this="the same")
    return {"processes": processes(), "rank": rank(), "sum": summed(x.clone()).tolist(), "first": from_first(x.clone()).tolist(),
            "all": gathered(x).tolist(), "disagree": words(lambda: agree(colour=["red", "blue"][rank()])),
            "unequal": words(lambda: gathered(torch.zeros(1 + rank(), 2)))}


def gradients(folder):
    """By hand, by torch's DDP, and by FSDP2, all of the loss of the union batch; some steps of AdamW after it."""
    torch.manual_seed(0)
    batch = torch.randint(2, 40, (8, 12))
    batch[5:, 6:] = 0                                       # padding: the halves have not as many tokens
    mine = share((batch,), rank(), 2)[0]
    weight = next_token_loss.mean_over(mine) / next_token_loss.mean_over(batch)
    result = {}
    for way in ("by hand", "DDP", "FSDP2", "naive"):
        model = transformer(seed=rank() if way == "by hand" else 0)     # other weights: rank 0's count
        wrapped = model
        if way == "DDP":
            wrapped = DistributedDataParallel(Loss(model))
        elif way == "FSDP2":
            for block in model.blocks:
                fully_shard(block)
            fully_shard(model)
            wrapped = Loss(model)
        else:
            same_start(model)
            wrapped = Loss(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(4):
            factor = {"by hand": weight, "naive": 0.5}.get(way, 2 * weight)      # DDP and FSDP2 take the mean over processes
            (factor * wrapped(mine)).backward()
            if way in ("by hand", "naive"):
                add_gradients(model)
            if step == 0:
                result[f"{way}: gradients"] = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
            optimizer.zero_grad()
        result[f"{way}: weights"] = {name: whole(p) for name, p in model.named_parameters()}
    return result


class Loss(nn.Module):
    """A model whose output is its loss, as DDP wants it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        logits = self.model(ids[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)


def whole(x: torch.Tensor) -> list:
    x = x.detach()
    return (x.full_tensor() if hasattr(x, "full_tensor") else x).flatten().tolist()


def trained(folder):
    """A run of the mixture, straight; and one that is stopped after three steps and goes on."""
    model = transformer(seed=rank())
    history = train(model, mixture, mixture_loss, steps=6, optim=OPTIM, run=QUIET)
    halves, file = transformer(seed=rank()), folder / "mixture.pt"
    run = Run(progress=False, log_every=1, resume=file)
    train(halves, mixture, mixture_loss, steps=6, optim=OPTIM, run=Run(progress=False, log_every=1, resume=file, until=3))
    if rank() == 0:
        (folder / "half.pt").write_bytes(file.read_bytes())
    again = train(halves, mixture, mixture_loss, steps=6, optim=OPTIM, run=run)
    return {"weights": numbers(model), "losses": history.column("loss"), "resumed": numbers(halves) == numbers(model),
            "resumed losses": again.column("loss") == history.column("loss"), "norms": history.column("grad_norm"),
            "minutes": again.cpu_minutes, "files": sorted(path.name for path in folder.glob("mixture*"))}


def codebooks(folder):
    """One codebook for all, as it is, and as it was before: every process for itself, but for the gradients."""
    result = {}
    for way in ("together", "naive"):
        with pretending_to_be_alone(way == "naive"):
            torch.manual_seed(0)
            quantizer = VectorQuantizer(16, 2)
            for step in range(20):
                torch.manual_seed(step + 100 * rank())          # rank 0's dice are those of one process
                quantizer(share((vectors(step),), rank(), 2)[0])
            result[way] = numbers(quantizer)
    model = vqvae(seed=rank())
    history = train(model, pictures, vqvae_loss, steps=3, optim=OPTIM, run=QUIET)
    return {**result, "trained": numbers(model), "losses": history.column("loss"), "psnr": history.column("psnr")}


class pretending_to_be_alone:
    """Without this, and with `alone` true, the quantizer knows nothing of other processes."""
    names = {"summed": lambda x: x, "from_first": lambda x: x, "gathered": lambda x: x, "processes": lambda: 1}

    def __init__(self, alone):
        self.before = {name: getattr(quantize, name) for name in self.names} if alone else {}

    def __enter__(self):
        for name in self.before:
            setattr(quantize, name, self.names[name])

    def __exit__(self, *error):
        for name, function in self.before.items():
            setattr(quantize, name, function)


def noise(folder):
    """A loss that draws noise: each row has its own, whichever process has it."""
    seen = []

    def loss(model, x):
        seen.append(torch.rand(len(x)).tolist())
        return model(x).square().mean()
    loss.mean_over = rows
    Hardware.now = Hardware(micro_batches=2)
    train(nn.Linear(2, 1), lambda rng: (torch.from_numpy(rng.random((8, 2), dtype=np.float32)),), loss, steps=2, run=QUIET)
    Hardware.now = Hardware()
    return seen


def dealt(folder):
    """Weights in shards: straight, and stopped after three steps; what is said of a folder that is not whole."""
    straight, halves = sharded(transformer()), sharded(transformer())
    run = train_sharded(straight, mixture, mixture_loss, steps=6, optim=ADAMW)
    train_sharded(halves, mixture, mixture_loss, steps=6, optim=ADAMW, folder=folder / "half", until=3)
    if rank() == 0:
        shutil.copytree(folder / "half", folder / "shards")
        shutil.copytree(folder / "half", folder / "broken")
        (folder / "broken" / "__1_0.distcp").unlink()
    agree(copied=True)
    halves = sharded(transformer(seed=7))
    again = train_sharded(halves, mixture, mixture_loss, steps=6, optim=ADAMW, folder=folder / "shards")
    weights = {name: whole(p) for name, p in straight.named_parameters()}
    return {"weights": weights, "losses": run["losses"], "bytes": run["bytes"],
            "resumed": {name: whole(p) for name, p in halves.named_parameters()} == weights and again["losses"] == run["losses"][3:],
            "broken": words(lambda: train_sharded(halves, mixture, mixture_loss, steps=6, optim=ADAMW, folder=folder / "broken")),
            "muon": words(lambda: train_sharded(halves, mixture, mixture_loss, steps=6, optim=OPTIM)),
            "other": words(lambda: train_sharded(sharded(transformer(width=32)), mixture, mixture_loss, steps=6, optim=ADAMW,
                                                 folder=folder / "half"))}


def going_on(folder):
    """What one process has begun, two go on with: a run of `train`, and one in shards."""
    plain, shards = transformer(seed=3 + rank()), sharded(transformer(seed=3))
    train(plain, mixture, mixture_loss, steps=6, optim=OPTIM, run=Run(progress=False, resume=folder / "one.pt"))
    train_sharded(shards, mixture, mixture_loss, steps=6, optim=ADAMW, folder=folder / "one")
    return {"train": numbers(plain), "shards": {name: whole(p) for name, p in shards.named_parameters()}}


def refused(folder):
    """What is said, and that it is said in both processes and nobody waits."""
    def go(loss=mixture_loss, batch=mixture, model=None, **run):
        return words(lambda: train(model or transformer(), batch, loss, steps=2, optim=run.pop("optim", OPTIM),
                                   run=Run(progress=False, **run)))

    def unlike(rng):
        return tuple(x + (i == 0) * rank() for i, x in enumerate(mixture(rng)))

    def silent(model, *batch):
        return mixture_loss(model, *batch)

    def not_a_number(model, *batch):
        return mixture_loss(model, *batch)["loss"] * (float("nan") if rank() else 1.0)
    not_a_number.mean_over = mixture_loss.mean_over
    other = Transformer(40, width=16, layers=1 + rank(), heads=2, context=32)
    for name in ("other.pt", "half.pt"):
        if rank() == 0 and not (folder / name).exists():
            (folder / name).write_bytes(b"")
    return {"seed": go(seed=rank()), "rate": go(optim=Optim(lr=0.1 + rank())), "until": go(until=1 + rank()), "model": go(model=other),
            "batch": go(batch=unlike), "loss": go(silent), "nan": go(not_a_number),
            "rows": go(vqvae_loss, lambda rng: (pictures(rng)[0][:7],), vqvae()),
            "few": go(batch=lambda rng: tuple(x[:1] for x in mixture(rng))),
            "file": go(resume=folder / ("half.pt" if rank() else "mixture.pt"))}


def stopped(folder):
    """Ctrl-C in one process, in the middle of a step: both stop after it."""
    def press(model, *batch):
        if rank() == 1 and len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return mixture_loss(model, *batch)
    press.mean_over, steps = mixture_loss.mean_over, []
    history = train(transformer(), mixture, press, steps=6, optim=OPTIM, after_step=lambda model, step: steps.append(step),
                    run=Run(progress=False, log_every=1, resume=folder / "stopped.pt"))
    return {"interrupted": history.interrupted, "steps": steps, "file": (folder / "stopped.pt").exists()}


def unused(folder):
    """A layer that no process uses keeps no gradient; one that a single process uses has it everywhere."""
    model = nn.ModuleDict({"both": nn.Linear(2, 1), "one": nn.Linear(2, 1), "none": nn.Linear(2, 1)})
    same_start(model)
    x = torch.ones(1, 2)
    (model["both"](x) + (model["one"](x) if rank() else 0)).sum().backward()
    add_gradients(model)
    return {name: None if layer.bias.grad is None else layer.bias.grad.item() for name, layer in model.items()}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.manual_seed(0)
    where = Path(sys.argv[1])
    join()
    found = {check.__name__: check(where) for check in (messages, gradients, trained, codebooks, noise, dealt, going_on, refused, stopped, unused)}
    (where / f"rank{rank()}.json").write_text(json.dumps(found))
    leave()
    assert processes() == 1 and rank() == 0
