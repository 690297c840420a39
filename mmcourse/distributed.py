"""Several processes, one training: each finds the gradients of its share of a batch, and they
are added up (chapter 14).

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m mmcourse train NAME`
starts them. Every process makes the whole batch of a step, from the same dice, and takes its
own rows: a run is the same run in any number of processes, but for the order in which numbers
are added up.

Sources: Li et al. 2020 (PyTorch's DDP). A mean over parts that weigh differently: the bug of
gradient accumulation that was found in October 2024 (Unsloth; Hugging Face).
"""
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

MEETING = timedelta(minutes=5)          # how long a process waits for the others to come
PATIENCE = timedelta(hours=3)           # and, once they are there, for what they say
OTHER_DICE = 2_654_435_769              # 2^32 / golden ratio (the CPU's dice hear 32 bits)
START = "python -m torch.distributed.run --standalone --nproc-per-node 2 ..."
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


# ---------------------------------------------------------------- who am I, how many are we

@dataclass(frozen=True)
class Place:
    """A process among others: number `rank` of `processes`, number `local_rank` of those on
    its machine."""
    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    local_processes: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Place":
        """What torchrun wrote into the environment; alone if it says nothing. ValueError
        for half of it, and for nonsense."""
        said = {name: environment[name] for name in ENVIRONMENT if environment.get(name)}
        if not said or said.get("WORLD_SIZE") == "1":
            return cls()
        here = ", ".join(f"{name}={said.get(name, 'nothing')}" for name in ENVIRONMENT)
        if len(said) < len(ENVIRONMENT):
            raise ValueError("the environment says half of where this process stands among "
                             f"others ({here}): start them with `{START}`, or unset these to "
                             "train alone")
        whole = all(number.isdecimal() for number in said.values())
        place = cls(*(int(said[name]) if whole else 0 for name in ENVIRONMENT))
        if not (place.rank < place.processes >= place.local_processes > place.local_rank):
            raise ValueError(f"no process stands there ({here}): they are counted from 0, by "
                             f"`{START}`")
        return place


def join(device: str = "cpu") -> Place:
    """Meet the other processes, if torchrun started any. This one trains on `device`.
    TimeoutError if they do not come."""
    place = Place.of()
    if place.processes == 1 or processes() > 1:
        return place
    if not dist.is_available():
        raise ValueError("this PyTorch has no torch.distributed: train in one process")
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    try:                                        # a board to write on; all say that they came
        board, _, _ = next(dist.rendezvous("env://", timeout=MEETING))
        board.set(f"here {place.rank}", "yes")
        board.wait([f"here {i}" for i in range(place.processes)], MEETING)
    except RuntimeError as error:
        raise TimeoutError(f"rank {place.rank} has waited {MEETING} for the others, and not all "
                           f"{place.processes} came: start all of them ({error})") from None
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", store=board,
                            rank=place.rank, world_size=place.processes, timeout=PATIENCE)
    return place


def leave() -> None:
    """Part from the other processes: from here on each is alone."""
    if processes() > 1:
        dist.barrier()                          # nobody hangs up before all are done
        dist.destroy_process_group()


def processes() -> int:
    """How many have joined; 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 alone. Rank 0 is the one that writes and prints."""
    return dist.get_rank() if processes() > 1 else 0


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Rank 0 runs the block while the others wait; then they do, and find its files."""
    if rank():
        dist.barrier()
    yield
    if processes() > 1 and rank() == 0:
        dist.barrier()


# ---------------------------------------------------------------- what all know of each

@torch.no_grad()
def summed(x: torch.Tensor) -> torch.Tensor:
    """The sum of what all processes have, in place; alone: x as it is."""
    if processes() > 1:
        dist.all_reduce(x)
    return x


@torch.no_grad()
def from_first(x: torch.Tensor) -> torch.Tensor:
    """What rank 0 has, in place; alone: x as it is."""
    if processes() > 1:
        dist.broadcast(x, 0)
    return x


@torch.no_grad()
def gathered(x: torch.Tensor) -> torch.Tensor:
    """The rows (N, d) of all processes, those of rank 0 first: (processes * N, d).
    ValueError if one has more than another."""
    if processes() == 1:
        return x
    agree(rows=len(x))
    parts = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def agree(**what) -> None:
    """ValueError in every process, with the same words, unless all say the same."""
    if processes() == 1:
        return
    said: list = [None] * processes()
    dist.all_gather_object(said, what)
    for name in (name for each in said for name in each):
        first, *others = (each.get(name, "none") for each in said)
        for i, other in enumerate(others, 1):
            if other != first:
                raise ValueError(f"the processes do not agree on {name}: {first} in rank 0, "
                                 f"{other} in rank {i}; start all of them with the same "
                                 "command, and give all of them the same files")


# ---------------------------------------------------------------- training together

@torch.no_grad()
def same_start(model: nn.Module) -> None:
    """Every process begins with the weights and buffers of rank 0."""
    for x in [*model.parameters(), *model.buffers()]:
        from_first(x)


@torch.no_grad()
def add_gradients(model: nn.Module) -> None:
    """Each gradient becomes the sum of those of all processes: after `backward`, before the
    step. What has none anywhere (a layer that was not used) keeps none."""
    if processes() == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    users = summed(torch.tensor([int(p.grad is not None) for p in parameters]))
    used = [p for p, n in zip(parameters, users.tolist()) if n]
    for p in used:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    flat = summed(torch.cat([p.grad.flatten() for p in used]))  # one message, not a hundred
    for p, gradient in zip(used, flat.split([p.numel() for p in used])):
        p.grad.copy_(gradient.view_as(p))


def rows(*batch: torch.Tensor) -> int:
    """What a loss is the mean of, if all rows count alike: `my_loss.mean_over = rows`."""
    return len(batch[0])


def share(batch: tuple, i: int, n: int) -> tuple:
    """Part i of n of a batch: some rows of each tensor, in order. A tensor of which it has
    no rows is left out."""
    parts = (x.tensor_split(n)[i] for x in batch)
    return tuple(part for part in parts if len(part))


class Divided:
    """The loss of a whole batch, found in parts: each process has its own, and takes them
    one micro-batch after the other.

    The gradients are there when it returns, and `backward` of what it returns adds nothing.

    Args:
        loss: of a part, the mean of as many things as `mean_over(*part)` says.
    """

    def __init__(self, loss: Callable, mean_over: Callable, micro_batches: int = 1):
        self.loss, self.mean_over, self.micro_batches = loss, mean_over, micro_batches
        self.looked = False

    def __call__(self, model: nn.Module, *batch: torch.Tensor) -> dict:
        n, dice, total = processes() * self.micro_batches, torch.initial_seed(), {}
        self.look_at(batch, n)
        everything = self.mean_over(*batch)
        for i in range(rank() * self.micro_batches, (rank() + 1) * self.micro_batches):
            if i:                               # other rows have other noise
                torch.manual_seed(dice + OTHER_DICE * i)
            part = share(batch, i, n)
            with unmoved(model) if self.micro_batches > 1 else contextlib.nullcontext():
                result = self.loss(model, *part)
            result = result if isinstance(result, dict) else {"loss": result}
            weight = self.mean_over(*part) / everything
            (weight * result["loss"]).backward()
            for name, value in result.items():
                value = torch.as_tensor(value).detach().to(result["loss"])
                total[name] = total.get(name, 0.0) + weight * value
        add_gradients(model)
        means = dict(zip(total, summed(torch.stack([*total.values()]))))
        return {**means, "loss": means["loss"].requires_grad_()}

    def look_at(self, batch: tuple, n: int) -> None:
        """ValueError, the same in every process, for a batch that cannot be divided by `n`,
        and for processes whose first batches differ."""
        check_divisible(batch, n, self.mean_over is rows)
        if not self.looked:
            whole = b"".join(x.detach().cpu().numpy().tobytes() for x in batch)
            agree(**{"the first batch (SHA-256)": hashlib.sha256(whole).hexdigest()[:16]})
        self.looked = True


def divided(loss: Callable, known: Callable, micro_batches: int = 1) -> Callable:
    """`loss`, divided if there is anybody to divide it with. `known`: the same loss as its
    author wrote it. ValueError if that does not say what it is the mean of."""
    if processes() * micro_batches == 1:
        return loss
    if not hasattr(known, "mean_over"):
        name = getattr(known, "__name__", type(known).__name__)
        raise ValueError(f"{name} does not say what it is the mean of, so its parts have no "
                         f"weights: train in one process, or say it ({name}.mean_over = rows, if "
                         "all count alike; see mmcourse.distributed)")
    return Divided(loss, known.mean_over, micro_batches)


def check_divisible(batch: tuple, n: int, alike: bool) -> None:
    """ValueError unless `n` parts can be made of a batch, each with a row or more; with as
    many rows each if they count `alike`."""
    if not all(isinstance(x, torch.Tensor) and x.ndim for x in batch):
        raise ValueError("a batch that is divided is made of tensors, a row for each example; "
                         "got " + ", ".join(type(x).__name__ for x in batch))
    sizes = [len(x) for x in batch]
    if alike and (sizes[0] % n or len({*sizes}) > 1) or max(sizes) < n:
        many = " and ".join(map(str, dict.fromkeys(sizes)))
        raise ValueError(f"a batch of {many} rows cannot be divided into {n} parts"
                         f"{' alike' * alike}: take another number of processes, times "
                         "micro-batches")


@contextlib.contextmanager
def unmoved(model: nn.Module) -> Iterator[None]:
    """ValueError for a buffer that moves in the block: each micro-batch would see another
    model."""
    before = {name: x.clone() for name, x in model.named_buffers()}
    yield
    for name, x in model.named_buffers():
        if not torch.equal(x, before[name]):
            raise ValueError(f"{name} moves whenever the model sees a batch, so micro-batches "
                             "are not the same as one batch: leave them out, or take more "
                             "processes")
