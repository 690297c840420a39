"""The tokenizer of signs (chapter 08): `mmcourse train sign_vqvae`, about 2 CPU minutes.

A smaller VQ-VAE of the same kind as the course's, for pictures of 32x64 pixels: 4x8 tokens. It sees the words of
the training split alone.
"""
import numpy as np
import torch

from mmcourse.judges.metrics import pooled_psnr
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.signs import all_pictures, draw_signs

STEPS = 2500
BATCH = 32
OPTIM = Optim("muon", lr=2e-3, muon_lr=0.04)


def make(seed: int = 0) -> VQVAE:
    """A fresh tokenizer; the seed decides its first weights."""
    torch.manual_seed(seed)
    return VQVAE(codebook_size=256, dim=16, width=64, context=1)


def batches(scenes: list):
    """`batch(rng)` of random ones of these scenes' pictures."""
    def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
        return (draw_signs([scenes[i] for i in rng.integers(len(scenes), size=BATCH)]),)
    return batch


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the tokenizer and ship it."""
    args = options("sign_vqvae", argv, STEPS)
    run = begin(run_file("sign_vqvae", seed=args.seed, steps=args.steps), args)
    model = make(args.seed)
    history = train(model, batches(all_pictures("train")), vqvae_loss, steps=args.steps, optim=OPTIM,
                    run=Run(seed=args.seed, resume=run, log_every=50))
    ship("sign_vqvae", model, finished(history), args, run, measure(model), folder)
    return history


@torch.no_grad()
def measure(model: VQVAE, n: int = 512) -> dict:
    """PSNR and codes used on validation words."""
    truth = draw_signs(all_pictures("validation")[:n])
    ids = model.encode(truth)
    return {"psnr_db": round(pooled_psnr(model.decode(ids), truth), 2), "codes_used": len(ids.unique())}
