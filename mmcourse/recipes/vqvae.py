"""The shipped image tokenizer: `python -m mmcourse train vqvae`, about 12 CPU minutes.

The squared error hardly notices that D, O and Q differ, in so few pixels do they; left alone it lets them share two codes,
and a third of the signs can no longer be read. Hence the sign's rows count more.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.optim import Optim
from mmcourse.paths import CHECKPOINTS, cache_dir
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.pictures import SIGN_TOP, SIZE, draw_batch
from mmcourse.world.scene import sample_scene

STEPS, BATCH, LR, MUON_LR, JITTER = 4400, 32, 2e-3, 0.04, 2
SIGN_WEIGHT = 4.0                                        # how much a pixel in the sign's rows counts


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Training scenes; most of them jittered, the others where the transformer's world puts them."""
    return (draw_batch([sample_scene(rng, jitter=JITTER * int(rng.random() < 0.6), unnamed=0.25) for _ in range(BATCH)]),)


def loss(model: VQVAE, images: torch.Tensor) -> dict:
    """`vqvae_loss` in which the rows of the sign count `SIGN_WEIGHT` times as much as the others."""
    weights = torch.ones(SIZE, 1)
    weights[SIGN_TOP - JITTER:] = SIGN_WEIGHT
    return vqvae_loss(model, images, weights)


@torch.no_grad()
def measure(model: VQVAE, n: int = 512, jitter: int = 0, unnamed: float = 0.0) -> dict:
    """PSNR and codes used on held-out scenes."""
    rng = np.random.default_rng((0, 99))
    images = draw_batch([sample_scene(rng, "held-out", jitter=jitter, unnamed=unnamed) for _ in range(n)])
    ids = model.encode(images)
    return {"psnr_db": round(-10 * (images - model.decode(ids)).square().mean().log10().item(), 2),
            "codes_used": len(ids.unique())}


def measures(model: VQVAE) -> dict:
    """`measure` in place, with jitter, and with jitter and colours without a name."""
    worlds = {"": {}, "_jitter": {"jitter": JITTER}, "_unnamed": {"jitter": JITTER, "unnamed": 0.25}}
    return {f"{key}{name}": value for name, world in worlds.items() for key, value in measure(model, **world).items()}


def make(seed: int = 0) -> VQVAE:
    """A fresh tokenizer; the seed decides its first weights."""
    torch.manual_seed(seed)
    return VQVAE(codebook_size=512, dim=16, width=128, context=1)


def main(argv: list[str] | None = None, folder=CHECKPOINTS) -> History:
    """Train (or go on training) the tokenizer and ship it."""
    from mmcourse.recipes import options
    args = options("vqvae", argv, steps=STEPS)
    model = make(args.seed)
    history = train(model, batch, loss, steps=args.steps, optim=Optim("muon", lr=LR, muon_lr=MUON_LR),
                    run=Run(seed=args.seed, resume=cache_dir() / "runs" / "vqvae.pt", log_every=50))
    if not history.interrupted:
        metrics = measures(model)
        checkpoints.save("vqvae", model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes, metrics=metrics,
                         folder=folder)
        print(metrics)
    return history
