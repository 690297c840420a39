"""Side by side: this course's flow decoder, and diffusers' `UNet2DModel` with as many weights in its place.

    pip install diffusers
    python tests/benchmarks/decoder.py    # prints, and writes data/results/ch07_benchmark.json (five minutes)

Without diffusers it says so and ends. One thread. Both predict the plain decoder's error from its noisy
version, and both are told the plain picture and the code vectors, the peer as extra channels. The peer comes
twice: on the pixels, as it is usually used, and on our grid, where 4x4 pixels are one position. Times are CPU
seconds, the fastest of some, taken in turns. Losses are of held-out batches after the same steps with the
same data, noise and optimizer (AdamW, which neither was tuned for). The steps are few, and part of ours' lead
is that its last layer begins at zero, which the library's does not.
"""
import sys
from functools import partial
from importlib import metadata

import numpy as np
import torch
import torch.nn.functional as F
from common import conclude, fastest, one_thread
from torch import nn

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, decoder_loss
from mmcourse.optim import Optim
from mmcourse.recipes.decoder import make_batch
from mmcourse.training import Run, train

STEPS = 60
SEEDS = (0, 1, 2)
BATCH = 16
LR = 2e-3
WIDTH = 40                              # of the peer's first level, twice that below: about our number of weights


class Peer(nn.Module):
    """`UNet2DModel` with the face of ours: noisy error (B, 3, H, W), t (B,), plain (B, 3, H, W), codes (B, D,
    H/8, W/8)."""

    scale = 1

    def __init__(self, patch: int, width: int, code_dim: int = 16, residual_std: float = 0.15):
        from diffusers import UNet2DModel
        super().__init__()
        self.patch, self.residual_std = patch, residual_std
        self.inner = UNet2DModel(
            in_channels=6 * patch**2 + code_dim, out_channels=3 * patch**2, block_out_channels=(width, 2 * width),
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
            layers_per_block=1, norm_num_groups=8, add_attention=False)

    def forward(self, x, t, plain, codes):
        h = F.pixel_unshuffle(torch.cat([x, plain * 2 - 1], 1), self.patch)
        h = torch.cat([h, F.interpolate(codes, size=h.shape[2:], mode="nearest")], 1)
        out = self.inner(h, 1000 * t).sample                           # it expects DDPM's time, 0..1000
        return F.pixel_shuffle(out, self.patch)


def models(code_dim: int) -> dict:
    """Makers of the networks that are compared."""
    return {"ours": lambda: FlowDecoder(code_dim=code_dim),
            "peer, on our grid": lambda: Peer(4, WIDTH, code_dim),
            "peer, on the pixels": lambda: Peer(1, WIDTH, code_dim)}


def seconds(nets: dict, data: tuple, backward: bool, rounds: int) -> dict:
    """CPU seconds of one call, or of one training step without the optimizer: the fastest of some, taken in
    turns."""
    images = data[0]

    def call(net):
        if backward:
            decoder_loss(net, *data).backward()
        else:
            with torch.no_grad():
                net(images, torch.zeros(len(images)), *data[1:])
    return fastest({name: partial(call, net) for name, net in nets.items()}, rounds)


def loss_after(make, batches: dict, seed: int) -> float:
    """The held-out loss after `STEPS` steps, first weights and data drawn from `seed`."""
    torch.manual_seed(seed)
    net = make()
    train(net, batches["train"], decoder_loss, steps=STEPS, optim=Optim(lr=LR, warmup=10),
          run=Run(seed=seed, progress=False))
    total = 0.0
    with torch.no_grad():
        for i in range(4):
            torch.manual_seed(10_000 + i)                              # the same noise and times for all
            total += decoder_loss(net, *batches["test"][i]).item() / 4
    return round(total, 4)


def main() -> None:
    try:
        version = metadata.version("diffusers")
    except metadata.PackageNotFoundError:
        sys.exit("this comparison needs `pip install diffusers`; nothing else in the course does")
    result, vqvae = one_thread(), checkpoints.load("vqvae")
    batch, makers = make_batch(vqvae, BATCH), models(vqvae.config["dim"])
    nets = {name: make() for name, make in makers.items()}
    weights = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    data = batch(np.random.default_rng(0))
    one = tuple(x[:1] for x in data)
    result |= {"peer": f"diffusers {version}", "batch": BATCH, "steps": STEPS, "seeds": list(SEEDS),
               "weights": weights}
    times = {"one picture, ms": seconds({n: m.eval() for n, m in nets.items()}, one, False, 12),
             "training step, ms": seconds({n: m.train() for n, m in nets.items()}, data, True, 3)}
    for what, found in times.items():
        result[what] = {name: round(1000 * s, 2) for name, s in found.items()}
        print(what, result[what], flush=True)
    batches = {"train": batch, "test": [batch(np.random.default_rng(999 + i)) for i in range(4)]}
    # on the pixels a step takes too long to train it: there only the speed is compared
    result["loss"] = {name: [loss_after(makers[name], batches, seed) for seed in SEEDS]
                      for name in ("ours", "peer, on our grid")}
    print("loss", result["loss"], flush=True)
    met = {f"{what[:-4]}: 1.0x {name}": result[what][name] >= result[what]["ours"]
           for what in ("one picture, ms", "training step, ms") for name in nets if name != "ours"}
    met["loss not above the peer's, mean of the seeds"] = \
        np.mean(result["loss"]["ours"]).item() <= np.mean(result["loss"]["peer, on our grid"]).item()
    conclude("ch07_benchmark", result, met)


if __name__ == "__main__":
    main()
