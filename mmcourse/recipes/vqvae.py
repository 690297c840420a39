"""The shipped image tokenizer: `python -m mmcourse train vqvae`, about 12 CPU minutes."""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.paths import cache_dir
from mmcourse.training import History, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STEPS, BATCH, LR, JITTER = 6000, 32, 2e-3, 2


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Training scenes; half of them jittered, half where the transformer's world puts them."""
    return (draw_batch([sample_scene(rng, jitter=JITTER * int(rng.integers(2))) for _ in range(BATCH)]),)


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
        metrics = {**measure(model), **{f"{k}_jitter": v for k, v in measure(model, jitter=JITTER).items()}}
        checkpoints.save("vqvae", model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes, metrics=metrics)
        print(metrics)
    return history
