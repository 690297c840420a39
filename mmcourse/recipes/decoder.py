"""The shipped diffusion decoder: `mmcourse train decoder`, about 14 CPU minutes.

What it buys is measured by `mmcourse study ch07_decoder`.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, decoder_loss, plain_and_codes
from mmcourse.judges.metrics import measure_decoders
from mmcourse.optim import Optim
from mmcourse.paths import CHECKPOINTS, cache_dir
from mmcourse.recipes import options
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STEPS = 3600
BATCH = 32
LR = 1.5e-3
MUON_LR = 0.02
EMA_DECAY = 0.998                       # of the shipped weights
JITTER = 2                              # pixels by which half of the drawings are moved


def make_batch(vqvae: VQVAE, batch: int = BATCH):
    """`batch(rng)` for `train`: true pictures, and what is left of them after the tokenizer."""
    def make(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images = draw_batch([sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(batch)])
        return images, *plain_and_codes(vqvae, vqvae.encode(images))
    return make


def main(argv: list[str] | None = None, folder=CHECKPOINTS) -> History:
    """Train (or go on training) the decoder and ship it."""
    args = options("decoder", argv, STEPS)
    vqvae, made_with = checkpoints.load("vqvae"), checkpoints.identity("vqvae")
    torch.manual_seed(args.seed)
    model = FlowDecoder(code_dim=vqvae.config["dim"])
    run = cache_dir() / "runs" / f"decoder-{made_with[:8]}.pt"
    history = train(model, make_batch(vqvae), decoder_loss, steps=args.steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=EMA_DECAY),
                    run=Run(seed=args.seed, resume=run, log_every=25, save_every=250))
    if not history.interrupted:
        metrics = measure_decoders(vqvae, model, checkpoints.load("picture_judge"))
        checkpoints.save("decoder", model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes,
                         metrics=metrics, folder=folder, vqvae=made_with)
        print(metrics, "\nnow measure it: mmcourse study ch07_decoder --fresh")
    return history
