"""The second judge of pictures: `mmcourse train picture_judge`, about 3 CPU minutes."""
import numpy as np
import torch

from mmcourse.judges.picture_net import PictureNet, picture_loss, targets
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STEPS = 3000
BATCH = 32
LR = 2e-3
JITTER = 2                              # pixels by which half of the drawings are moved


def batch(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """True pictures and what is on them. A judge may see all combinations: what it judges has not."""
    scenes = [sample_scene(rng, "any", jitter=JITTER * int(rng.integers(2))) for _ in range(BATCH)]
    return draw_batch(scenes), *targets(scenes)


def measure(net: PictureNet, n: int = 512, seed: int = 1) -> dict:
    """Its score on true held-out pictures: the ceiling of everything that it judges."""
    out = {}
    for jitter in (0, JITTER):
        rng = np.random.default_rng((seed, 98, jitter))
        scenes = [sample_scene(rng, "held-out", jitter=jitter) for _ in range(n)]
        images = draw_batch(scenes)
        backgrounds = [background for *_, background in net.read(images)]
        suffix = "_jitter" if jitter else ""
        out["nouns" + suffix] = round(net.accuracy(images, scenes), 4)
        out["ground" + suffix] = round(float(np.mean([b == s.background for b, s in zip(backgrounds, scenes)])), 4)
    return out


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the judge and ship it."""
    args = options("picture_judge", argv, STEPS)
    run = begin(run_file("picture_judge", seed=args.seed, steps=args.steps), args)
    torch.manual_seed(args.seed)
    net = PictureNet()
    history = train(net, batch, picture_loss, steps=args.steps, optim=Optim(lr=LR),
                    run=Run(seed=args.seed, resume=run, log_every=50))
    ship("picture_judge", net, finished(history), args, run, measure(net), folder)
    return history
