"""The shipped diffusion decoder: `mmcourse train decoder`, about 14 CPU minutes.

What it buys is measured by `mmcourse study ch07_decoder`.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import FlowDecoder, decoder_loss, plain_and_codes
from mmcourse.judges.metrics import measure_decoders
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, rank_0_goes_on, run_file, ship
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


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the decoder and ship it."""
    args = options("decoder", argv, STEPS, together=True)
    vqvae, made_with = checkpoints.load("vqvae"), checkpoints.identity("vqvae")
    torch.manual_seed(args.seed)
    model = FlowDecoder(code_dim=vqvae.config["dim"])
    run = begin(run_file("decoder", seed=args.seed, steps=args.steps, vqvae=made_with), args)
    history = train(model, make_batch(vqvae), decoder_loss, steps=args.steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=100, ema_decay=EMA_DECAY),
                    run=Run(seed=args.seed, resume=run, log_every=25, save_every=250))
    finished(history)
    rank_0_goes_on()
    metrics = measure_decoders(vqvae, model, checkpoints.load("picture_judge"))
    ship("decoder", model, history, args, run, metrics, folder, vqvae=made_with)
    print("once it is shipped, measure it: mmcourse study ch07_decoder --fresh")
    return history
