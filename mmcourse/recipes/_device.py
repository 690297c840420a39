"""Where a recipe trains: `--device`, `--bf16`, `--compile`, and what is said where they cannot be had."""
import argparse
import importlib.util
import re

import torch

from mmcourse.training import Hardware

BF16 = (8, 0)                           # the compute capability from which an NVIDIA card has bfloat16 (Ampere, 2020)
COMPILED = (7, 0)                       # and from which Triton writes code for it (Volta, 2017)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The three options."""
    parser.add_argument("--device", type=device, default="cpu", help="where it trains: cpu (the default), cuda, cuda:1, mps, or "
                        "auto, the best there is; what comes before and after the training is done on the CPU")
    parser.add_argument("--bf16", action="store_true", help="with bfloat16 where that is safe (NVIDIA cards from 2020 on)")
    parser.add_argument("--compile", action="store_true", help="with torch.compile (NVIDIA cards from 2017 on)")


def devices() -> list[str]:
    """The devices of this machine, the best first: `cuda:0`, `cuda:1`, ..., `mps`, `cpu`."""
    cards = [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    return [*cards, *["mps"] * torch.backends.mps.is_available(), "cpu"]


def device(text: str) -> str:
    """A device that is there, for argparse."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device: choose cpu, cuda, cuda:1, mps or auto, the best there is")
    found = devices()
    wanted = {"auto": found[0], "cuda": "cuda:0"}.get(text, text)
    if wanted not in found:
        raise argparse.ArgumentTypeError(f"there is no {text} here, only {', '.join(found)}: {what_to_do(text)}")
    return wanted


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
    """Train on what was asked for from here on, `Hardware.now`. A usage error for numbers that the device lacks."""
    capability = torch.cuda.get_device_capability(args.device) if args.device.startswith("cuda") else (0, 0)
    here = f"and this would train on {args.device}"
    if args.bf16 and capability < BF16:
        parser.error(f"--bf16 needs an NVIDIA card from 2020 or later (compute capability 8.0), {here}: leave --bf16 out, or "
                     "add --device cuda where there is such a card")
    if args.compile and (capability < COMPILED or importlib.util.find_spec("triton") is None):
        parser.error(f"--compile needs an NVIDIA card from 2017 or later (compute capability 7.0) and the package triton, {here}"
                     f"{'' if capability < COMPILED else ' without triton'}: leave --compile out")
    Hardware.now = Hardware(None if args.device == "cpu" else args.device, args.bf16, args.compile)
    if args.device != "cpu":
        print(f"training on {Hardware.now.called(named(args.device))}")


def named(device: str) -> str:
    """A device with the name of its card: `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device


def trained_on() -> dict:
    """For a manifest: the device, if it was not the CPU."""
    return {"device": Hardware.now.called(named(Hardware.now.device))} if Hardware.now.device else {}
