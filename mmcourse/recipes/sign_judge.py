"""The reader of signs (chapter 08): `mmcourse train sign_judge`, about 3 CPU minutes, on other typefaces than the
world's."""
import numpy as np
import torch

from mmcourse.judges.signs import SignReader, other_signs, reader_loss
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.world.signs import all_pictures, draw_signs

STEPS = 2400
BATCH = 32
LR = 2e-3


def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random letters in other typefaces."""
    return other_signs(rng, BATCH)


def measure(net: SignReader, n: int = 512) -> dict:
    """Whole words that it reads right: of true validation pictures, its ceiling, and in the typefaces it knows."""
    scenes = all_pictures("validation")[:n]
    right = [word == scene.sign.lower() for word, scene in zip(net.read(draw_signs(scenes)), scenes)]
    images, columns = other_signs(np.random.default_rng(1), n)
    return {"words": round(float(np.mean(right)), 4),
            "other_typefaces": round((net(images).argmax(-1) == columns).all(1).float().mean().item(), 4)}


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the judge and ship it."""
    args = options("sign_judge", argv, STEPS)
    run = begin(run_file("sign_judge", seed=args.seed, steps=args.steps), args)
    torch.manual_seed(args.seed)
    net = SignReader()
    history = train(net, batch, reader_loss, steps=args.steps, optim=Optim(lr=LR),
                    run=Run(seed=args.seed, resume=run, log_every=50))
    ship("sign_judge", net, finished(history), args, run, measure(net), folder)
    return history
