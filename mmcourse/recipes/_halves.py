"""A batch in two halves, a process and a core for each: two threads on small matrices wait for each other too often.

On the two cores that this was measured on, a step of `mmcourse train chat` took 1.8 s in two processes and 3.1 s in two threads.
"""
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.multiprocessing as processes
from torch import nn

from mmcourse.dataset import mixture_loss
from mmcourse.training import Hardware
from mmcourse.transformer import next_token_loss

Part = tuple[torch.Tensor, torch.Tensor]
OWN_WORK = 0.14                 # what the first process has to do beside its half: the optimizer's steps, as a share of all


def share_of_loss(model: nn.Module, parts: list[Part], count: torch.Tensor) -> torch.Tensor:
    """What these parts of a batch, ids and weights (B, T), add to `mixture_loss`; `count`: the weights of the whole batch."""
    total = torch.zeros(())
    for ids, weights in parts:
        total = total + weights[:, 1:].sum() * next_token_loss(model, ids, weights)
    return total / count


def halved(parts: tuple[torch.Tensor, ...]) -> tuple[list[Part], list[Part]]:
    """ids, weights, ids, weights, ... of a batch, dealt to two processes that shall be ready at the same time."""
    rows = [(ids[half], weights[half]) for ids, weights in zip(parts[::2], parts[1::2])
            for half in (slice(0, len(ids) // 2), slice(len(ids) // 2, None)) if len(ids[half])]
    piles: tuple[list[Part], list[Part]] = ([], [])
    cost = [OWN_WORK * sum(ids.numel() for ids, _ in rows), 0.0]
    for ids, weights in sorted(rows, key=lambda row: -row[0].numel()):
        lighter = int(cost[1] < cost[0])
        piles[lighter].append((ids, weights))
        cost[lighter] += ids.numel()
    return piles


def work(model: nn.Module, gradients: list[torch.Tensor], line) -> None:
    """The second process: losses and gradients of what it is sent, until nobody sends any more. It shares the weights."""
    torch.set_num_threads(1)
    parameters = list(model.parameters())
    while True:
        try:
            asked = line.recv()
        except EOFError:
            return
        loss = share_of_loss(model, *asked)
        line.send(loss.item())
        model.zero_grad()
        if loss.requires_grad:
            loss.backward()
        for gradient, parameter in zip(gradients, parameters):
            gradient.zero_() if parameter.grad is None else gradient.copy_(parameter.grad)
        line.send(time.process_time())


class _OtherHalf(torch.autograd.Function):
    """A loss whose gradient another process has, once it is done."""

    @staticmethod
    def forward(ctx, halves, *parameters):
        ctx.halves = halves
        return torch.zeros(())

    @staticmethod
    def backward(ctx, factor):
        ctx.halves.cpu_seconds = ctx.halves.line.recv()
        return None, *(gradient * factor for gradient in ctx.halves.gradients)


class Halves:
    """`mixture_loss` for a model on the CPU, half of each batch computed by a second process. `cpu_seconds`: what that one has
    spent so far."""

    def __init__(self, model: nn.Module):
        context = processes.get_context("spawn")
        model.share_memory()
        self.gradients = [torch.zeros_like(parameter).share_memory_() for parameter in model.parameters()]
        self.line, other_end = context.Pipe()
        self.helper = context.Process(target=work, args=(model, self.gradients, other_end), daemon=True)
        self.helper.start()
        other_end.close()                               # so that a helper that died is noticed: recv raises EOFError
        self.cpu_seconds = 0.0

    def __call__(self, model: nn.Module, *parts: torch.Tensor) -> dict:
        mine, theirs = halved(parts)
        count = sum(weights[:, 1:].sum() for weights in parts[1::2])
        self.line.send((theirs, count))
        other = _OtherHalf.apply(self, *model.parameters())     # made first: its gradient is waited for last
        own = share_of_loss(model, mine, count)
        other.data.fill_(self.line.recv())
        return {"loss": own + other}

    def close(self) -> None:
        """End the second process."""
        self.line.close()
        self.helper.join(5)
        self.helper.kill()
        self.helper.join()


class Whole:
    """`mixture_loss` by this process alone: off the CPU no core waits to take a half."""
    cpu_seconds = 0.0

    def __call__(self, model: nn.Module, *parts: torch.Tensor) -> dict:
        return mixture_loss(model, *parts)


@contextmanager
def in_two_processes(model: nn.Module) -> Iterator["Halves | Whole"]:
    """`Halves` of a model, closed with the block; where it trains on another device than the CPU, `Whole`."""
    if Hardware.now.device:
        yield Whole()
        return
    halves = Halves(model)
    try:
        yield halves
    finally:
        halves.close()
