"""The net that guesses pictures before the transformer checks the guess (chapter 12): `mmcourse train drafter`, about eight CPU
minutes.

A painter of chapter 08 that sees all places at once, told the caption, or a part of it, as the transformer was in training.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import image_tokens, partial_caption, training_scenes
from mmcourse.optim import Optim
from mmcourse.painters import TokenPainter
from mmcourse.parallel import caption_ids, draft_loss
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.recipes.transformer import SCENES
from mmcourse.training import History, Run, train
from mmcourse.world.scene import WORLD

STEPS = 2000
BATCH = 64
PROMPT = 32                             # tokens of a caption, at most
SIZE = {"prompt": PROMPT, "width": 96, "layers": 2, "heads": 4}
PARTIAL = 0.25                          # the share of captions that say only a part
OPTIM = Optim("muon", lr=2e-3, muon_lr=0.02, warmup=50, ema_decay=0.995)


def make() -> TokenPainter:
    """A fresh net."""
    bpe, vqvae = checkpoints.load("bpe"), checkpoints.load("vqvae")
    return TokenPainter(bpe.vocab_size + 1, vqvae.vocab_size, causal=False, places=64, **SIZE)


def captioned(scenes, bpe, dice: np.random.Generator | None = None) -> torch.Tensor:
    """Scenes -> their captions as ids (n, PROMPT); with dice, at times only a part of what they say."""
    texts = [partial_caption(scene, dice) if dice is not None and dice.random() < PARTIAL else WORLD.caption(scene)
             for scene in scenes]
    return torch.tensor([caption_ids(bpe.encode(" " + text), PROMPT) for text in texts])


def batches(progress: bool = True):
    """`batch(rng)`: captions (B, PROMPT) and pictures (B, 64)."""
    scenes, bpe = training_scenes(SCENES), checkpoints.load("bpe")
    tokens = image_tokens(checkpoints.load("vqvae"), scenes, {"jitter": 0, "unnamed": 0.0, "world": 2}, progress)
    ids = torch.from_numpy(tokens.astype(np.int64))                                     # (SCENES, 64)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = rng.integers(len(scenes), size=BATCH)
        return captioned([scenes[i] for i in rows], bpe, rng), ids[rows]
    return batch


@torch.no_grad()
def measure(painter: TokenPainter, n: int = 500) -> dict:
    """Pictures of validation captions guessed in one pass: of how many places the token is right, and how many are all right."""
    rng, bpe, vqvae = np.random.default_rng(12), checkpoints.load("bpe"), checkpoints.load("vqvae")
    scenes = [WORLD.sample(rng, "validation") for _ in range(n)]
    truth = torch.from_numpy(image_tokens(vqvae, scenes, {"drafter": n}, progress=False).astype(np.int64))
    found = painter(torch.full_like(truth, painter.codes), captioned(scenes, bpe)).argmax(-1)
    right = found == truth
    return {"tokens": round(right.double().mean().item(), 4), "pictures": round(right.all(1).double().mean().item(), 4)}


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the net and ship it."""
    args = options("drafter", argv, STEPS)
    made_with = {name: checkpoints.identity(name) for name in ("bpe", "vqvae")}
    run = begin(run_file("drafter", seed=args.seed, steps=args.steps, **made_with), args)
    torch.manual_seed(args.seed)
    model = make()
    history = finished(train(model, batches(), draft_loss, steps=args.steps, optim=OPTIM,
                             run=Run(seed=args.seed, resume=run, log_every=50)))
    ship("drafter", model, history, args, run, measure(model), folder, dtype=torch.int8, tokenizers=made_with)
    return history
