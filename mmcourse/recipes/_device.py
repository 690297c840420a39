"""Where a recipe trains: `--device`, `--bf16`, `--compile`, `--micro-batches`, the processes that torchrun started, and what is
said where they cannot be had."""
import argparse
import importlib.util
import os
import re
import sys

import torch

from mmcourse.distributed import Place, join
from mmcourse.training import Hardware

BF16 = (8, 0)                           # the compute capability from which an NVIDIA card has bfloat16 (Ampere, 2020)
COMPILED = (7, 0)                       # and from which Triton writes code for it (Volta, 2017)


def add_options(parser: argparse.ArgumentParser, together: bool) -> None:
    """The options; `together`: whether several processes may train, and a step may be taken in micro-batches."""
    parser.add_argument("--device", type=device, default="cpu", help="where it trains: cpu (the default), cuda, cuda:1, mps, or "
                        "auto, the best there is; what comes before and after the training is done on the CPU")
    parser.add_argument("--bf16", action="store_true", help="with bfloat16 where that is safe (NVIDIA cards from 2020 on)")
    parser.add_argument("--compile", action="store_true", help="with torch.compile (NVIDIA cards from 2017 on)")
    if together:
        parser.add_argument("--micro-batches", type=int, default=1, metavar="N", help="compute a batch (each process: its "
                            "share) in N parts, one after the other: less memory, the same step")


def devices() -> list[str]:
    """The devices of this machine, the best first: `cuda:0`, `cuda:1`, ..., `mps`, `cpu`."""
    cards = [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    return [*cards, *["mps"] * torch.backends.mps.is_available(), "cpu"]


def device(text: str) -> str:
    """A device that is there, for argparse."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device: choose cpu, cuda, cuda:1, mps or auto, the best there is")
    found, place = devices(), Place.of()
    wanted = {"auto": found[0], "cuda": "cuda:0"}.get(text, text)
    if wanted not in found:
        raise argparse.ArgumentTypeError(f"there is no {text} here, only {', '.join(found)}: {what_to_do(text)}")
    if place.processes > 1 and wanted != "cpu":
        return own_device(text, wanted, [card for card in found if card.startswith("cuda")], place)
    return wanted


def own_device(text: str, wanted: str, cards: list[str], place: Place) -> str:
    """The card of this process among others, for argparse: each has one to itself."""
    if not cards or wanted == "mps" or text.startswith("cuda:"):
        raise argparse.ArgumentTypeError("several processes train on the CPU, or on an NVIDIA card each (--device cuda), not on "
                                         f"{text}{'' if cards else '; PyTorch sees no such card here'}")
    if place.local_rank >= len(cards):
        raise argparse.ArgumentTypeError(f"{place.local_processes} processes on this machine need as many cards, and there "
                                         f"{'is' if len(cards) == 1 else 'are'} {len(cards)}: --nproc-per-node {len(cards)}")
    return cards[place.local_rank]


def what_to_do(text: str) -> str:
    """About a device that is not there."""
    otherwise = "leave --device out to train on the CPU"
    if text.startswith("cuda") and torch.cuda.is_available():
        return "choose one of these"
    if text.startswith("cuda") and torch.version.cuda is None:
        return f"this PyTorch was built without CUDA; install one with it (pytorch.org, Get Started), or {otherwise}"
    if text.startswith("cuda"):
        return f"PyTorch sees no card (does nvidia-smi?); {otherwise}"
    return f"mps is the GPU of a Mac with Apple silicon; {otherwise}"


def use(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Train on what was asked for from here on, `Hardware.now`, together with the other processes. A usage error for numbers
    that the device lacks."""
    capability = torch.cuda.get_device_capability(args.device) if args.device.startswith("cuda") else (0, 0)
    here = f"and this would train on {args.device}"
    if args.bf16 and capability < BF16:
        parser.error(f"--bf16 needs an NVIDIA card from 2020 or later (compute capability 8.0), {here}: leave --bf16 out, or "
                     "add --device cuda where there is such a card")
    if args.compile and (capability < COMPILED or importlib.util.find_spec("triton") is None):
        parser.error(f"--compile needs an NVIDIA card from 2017 or later (compute capability 7.0) and the package triton, {here}"
                     f"{'' if capability < COMPILED else ' without triton'}: leave --compile out")
    micro_batches = getattr(args, "micro_batches", 1)
    if micro_batches < 1:
        parser.error(f"--micro-batches is a whole number from 1 on, got {micro_batches}")
    Hardware.now = Hardware(None if args.device == "cpu" else args.device, args.bf16, args.compile, micro_batches)
    place = join(args.device)
    if place.rank:
        sys.stdout = open(os.devnull, "w")              # rank 0 speaks for all
    if args.device != "cpu" or place.processes > 1:
        print(f"training on {Hardware.now.called(named(args.device))}")


def check_alone(parser: argparse.ArgumentParser, together: bool) -> None:
    """A usage error unless this is one process, or one of several that may train `together`."""
    try:
        several = Place.of().processes
    except ValueError as error:
        parser.error(str(error))
    if several > 1 and not together:
        parser.error(f"this is trained in one process, and torchrun started {several}: leave torchrun out")


def named(device: str) -> str:
    """A device with the name of its card: `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device


def trained_on() -> dict:
    """For a manifest: the device, if it was not the CPU, and what else was not as usual."""
    several = Place.of().processes
    usual = Hardware.now == Hardware() and several == 1
    return {} if usual else {"device": Hardware.now.called(named(Hardware.now.device or "cpu"), several)}
