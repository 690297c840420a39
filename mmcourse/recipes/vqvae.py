"""The shipped image tokenizer: `mmcourse train vqvae`, about 11 CPU minutes.

The squared error hardly notices that D, O and Q differ, in so few pixels do they; left alone it lets them
share two codes, and a third of the signs can no longer be read. Hence the sign's rows count more.
"""
import numpy as np
import torch

from mmcourse.distributed import rows
from mmcourse.judges.metrics import pooled_psnr
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, rank_0_goes_on, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.pictures import SIGN_TOP, SIZE, draw_batch
from mmcourse.world.scene import sample_scene

STEPS = 4400
BATCH = 32
LR = 2e-3
MUON_LR = 0.04
JITTER = 2                              # pixels by which most of the drawings are moved
JITTERED = 0.6                          # the share of them
UNNAMED = 0.25                          # the share of scenes on a colour without a name
SIGN_WEIGHT = 4.0                       # how much a pixel in the sign's rows counts


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Training scenes; most of them jittered, the others where the transformer's world puts them."""
    return (draw_batch([sample_scene(rng, jitter=JITTER * int(rng.random() < JITTERED), unnamed=UNNAMED)
                        for _ in range(BATCH)]),)


def loss(model: VQVAE, images: torch.Tensor) -> dict:
    """`vqvae_loss` in which the rows of the sign count `SIGN_WEIGHT` times as much as the others."""
    weights = torch.ones(SIZE, 1, device=images.device)
    weights[SIGN_TOP - JITTER:] = SIGN_WEIGHT
    return vqvae_loss(model, images, weights)


loss.mean_over = rows


@torch.no_grad()
def measure(model: VQVAE, n: int = 512, jitter: int = 0, unnamed: float = 0.0) -> dict:
    """PSNR and codes used on held-out scenes."""
    rng = np.random.default_rng((0, 99))
    images = draw_batch([sample_scene(rng, "held-out", jitter=jitter, unnamed=unnamed) for _ in range(n)])
    ids = model.encode(images)
    return {"psnr_db": round(pooled_psnr(model.decode(ids), images), 2), "codes_used": len(ids.unique())}


def measures(model: VQVAE) -> dict:
    """`measure` in place, with jitter, and with jitter and colours without a name."""
    worlds = {"": {}, "_jitter": {"jitter": JITTER}, "_unnamed": {"jitter": JITTER, "unnamed": UNNAMED}}
    return {f"{key}{name}": x for name, world in worlds.items() for key, x in measure(model, **world).items()}


def make(seed: int = 0) -> VQVAE:
    """A fresh tokenizer; the seed decides its first weights."""
    torch.manual_seed(seed)
    return VQVAE(codebook_size=512, dim=16, width=128, context=1)


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the tokenizer and ship it."""
    args = options("vqvae", argv, STEPS, together=True)
    run = begin(run_file("vqvae", seed=args.seed, steps=args.steps), args)
    model = make(args.seed)
    history = train(model, batch, loss, steps=args.steps, optim=Optim("muon", lr=LR, muon_lr=MUON_LR),
                    run=Run(seed=args.seed, resume=run, log_every=50))
    finished(history)
    rank_0_goes_on()
    ship("vqvae", model, history, args, run, measures(model), folder)
    return history
