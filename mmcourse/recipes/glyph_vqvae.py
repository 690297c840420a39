"""The tokenizer of boards with glyphs (chapter 10): `mmcourse train glyph_vqvae`, about 2 CPU minutes.

A VQ-VAE of the course's kind for pictures of 32x32 pixels, 4x4 tokens, whose encoder sees one patch at a time
(`context=0`). It learns from random boards with glyphs of the training split, nouns and letters.
"""
import numpy as np
import torch

from mmcourse.judges.metrics import pooled_psnr
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.glyphs import AT, GLYPHS, GROUNDS, LETTER, Board, draw, inked, random_board
from mmcourse.world.scene import NOUNS

STEPS = 2000
BATCH = 64
OPTIM = Optim("muon", lr=2e-3, muon_lr=0.04)


def make(seed: int = 0) -> VQVAE:
    """A fresh tokenizer; the seed decides its first weights."""
    torch.manual_seed(seed)
    return VQVAE(codebook_size=512, dim=16, width=64, context=0)


def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
    """The pictures of random boards, one to three things on each: (64, 3, 32, 32)."""
    return (draw([random_board(rng) for _ in range(BATCH)]),)


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the tokenizer and ship it, in half precision."""
    args = options("glyph_vqvae", argv, STEPS)
    run = begin(run_file("glyph_vqvae", seed=args.seed, steps=args.steps), args)
    model = make(args.seed)
    history = train(model, batch, vqvae_loss, steps=args.steps, optim=OPTIM,
                    run=Run(seed=args.seed, resume=run, log_every=50))
    finished(history)
    shipped = model.half().float().eval()                               # measured as it is in the file
    ship("glyph_vqvae", shipped, history, args, run, measure(shipped), folder, dtype=torch.float16)
    return history


def measure(model: VQVAE, n: int = 512, boards: int = 512) -> dict:
    """What a tokenizer for learning from examples must do: rebuild boards that it has not seen, keep apart `n` things of
    a kind (there are 64 nouns and 26 letters), and give a thing the same tokens everywhere.
    """
    rng = np.random.default_rng((10, 1))
    truth = draw([random_board(rng, "validation") for _ in range(boards)])
    ids = model.encode(truth)
    kinds = {"glyphs": [int(number) for number in GLYPHS["validation"][:n]], "nouns": NOUNS[:n], "letters": LETTER[:n]}
    measures = {"psnr_db": round(pooled_psnr(model.decode(ids), truth), 2), "codes_used": len(ids.unique())}
    for kind, whats in kinds.items():
        measures |= {f"readable_{kind}": round(readable(model, whats), 4),
                     f"same_tokens_{kind}": round(same_tokens(model, whats), 4)}
    return measures


def readable(model: VQVAE, whats) -> float:
    """The share of things that can be told from their tokens: what these decode to is nearer, in squared error, to the
    thing's own drawing than to that of any other. The grounds take turns.
    """
    right, numbers = 0, torch.arange(len(whats))
    for turn, ground in enumerate(GROUNDS[:len(whats)]):
        drawn, mine = draw([Board(ground, ((what, (1, 1)),)) for what in whats]), numbers[turn::len(GROUNDS)]
        decoded = model.decode(model.encode(drawn[mine]))
        distances = torch.cdist(decoded.flatten(1), drawn.flatten(1))                       # (N / 8, N)
        right += int((distances.argmin(1) == mine).sum())
    return right / len(whats)


def same_tokens(model: VQVAE, whats) -> float:
    """The share of a thing's tokens, on each ground and at each place, that are those it has most often.

    Patches in which it has no ink are ground, and left out.
    """
    shares = []
    for what in whats:
        ids = model.encode(draw([Board(ground, ((what, at),)) for ground in GROUNDS for at in AT]))
        here = torch.stack([ids[i, row:row + 2, column:column + 2]
                            for i, (row, column) in enumerate(AT * len(GROUNDS))])      # (72, 2, 2)
        shares.append((here == here.mode(0).values)[:, torch.from_numpy(inked(what))].float())
    return torch.cat(shares, 1).mean().item()
