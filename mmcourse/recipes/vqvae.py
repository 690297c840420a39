"""The shipped image tokenizer: `python -m mmcourse train vqvae`, about 20 CPU minutes.

After 6,000 steps of plain squared error D, O and Q share their two codes: they differ in so few pixels that the error
hardly notices, and 35 % of the signs can no longer be read. Hence a second part, in which the sign's rows count more.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.paths import cache_dir
from mmcourse.training import History, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.pictures import SIGN_TOP, SIZE, draw_batch
from mmcourse.world.scene import sample_scene

STEPS, BATCH, LR, JITTER = 6000, 32, 2e-3, 2
LETTER_STEPS, LETTER_LR, LETTER_WEIGHT = 2000, 1e-3, 6.0


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Training scenes; half of them jittered, half where the transformer's world puts them."""
    return (draw_batch([sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(BATCH)]),)


def letter_loss(model: VQVAE, images: torch.Tensor) -> dict:
    """`vqvae_loss` in which the rows of the sign count `LETTER_WEIGHT` times as much as the others."""
    weights = torch.ones(SIZE, 1)
    weights[SIGN_TOP:] = LETTER_WEIGHT
    return vqvae_loss(model, images, weights)


@torch.no_grad()
def measure(model: VQVAE, n: int = 512, jitter: int = 0) -> dict:
    """PSNR and codes used on held-out scenes."""
    rng = np.random.default_rng((0, 99))
    images = draw_batch([sample_scene(rng, "held-out", jitter=jitter) for _ in range(n)])
    ids = model.encode(images)
    return {"psnr_db": round(-10 * (images - model.decode(ids)).square().mean().log10().item(), 2),
            "codes_used": len(ids.unique())}


def make(seed: int = 0) -> VQVAE:
    """A fresh tokenizer; the seed decides its first weights."""
    torch.manual_seed(seed)
    return VQVAE(codes=512, dim=16, width=128, context=1)


def main(argv: list[str] | None = None) -> History:
    """Train (or go on training) the tokenizer and ship it."""
    from mmcourse.recipes import options
    args = options("vqvae", argv, steps=STEPS)
    model = make(args.seed)
    history = train(model, batch, vqvae_loss, steps=args.steps, lr=LR, seed=args.seed,
                    resume=cache_dir() / "runs" / "vqvae.pt", log_every=50)
    if not history.interrupted:
        minutes = history.cpu_minutes
        history = train(model, batch, letter_loss, steps=LETTER_STEPS, lr=LETTER_LR, seed=args.seed + 1,
                        resume=cache_dir() / "runs" / "vqvae-letters.pt", log_every=50)
    if not history.interrupted:
        metrics = {**measure(model), **{f"{k}_jitter": v for k, v in measure(model, jitter=JITTER).items()}}
        checkpoints.save("vqvae", model, seed=args.seed, steps=args.steps + LETTER_STEPS,
                         cpu_minutes=minutes + history.cpu_minutes, metrics=metrics)
        print(metrics)
    return history
