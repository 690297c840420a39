"""The painters of signs (chapter 08): `mmcourse train sign_painters`, eight nets of about two CPU minutes each.

Each arm twice, told the letters and told the BPE pieces; all with the same training FLOPs, on the same pictures.
They are the nets of seed 0 of the study `ch08_words`, which trains its others with `painter` too; what was trained
once is kept in the cache.
"""
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcourse import checkpoints
from mmcourse.experiments.sign_data import ARMS, LOSSES, SignData, SignPainters, key, make_painter
from mmcourse.files import atomic_write
from mmcourse.optim import Optim
from mmcourse.paths import cache_dir
from mmcourse.recipes import finished, options, run_file, ship, sign_vqvae
from mmcourse.training import History, Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.signs import all_pictures, words_of

FLOPS = 6e12                            # of a painter's training: multiplications and additions
OPTIM = Optim("muon", lr=3e-3, muon_lr=0.02, warmup=30)
SHIPPED = ("letters", "bpe")
# Guidance and steps as the study chose them on validation words (`settings` in data/results/ch08_words.json).
SETTINGS = {"in order": {"guidance": 1.0, "steps": 0}, "surest first": {"guidance": 2.0, "steps": 4},
            "flow on pixels": {"guidance": 3.0, "steps": 8}, "flow on latents": {"guidance": 2.0, "steps": 8}}


@dataclass(frozen=True)
class Size:
    """How large the nets, the batches and the world are."""
    width: int = 96
    layers: int = 4
    heads: int = 4
    batch: int = 64
    pictures: int | None = None         # of the world, in all; None: every one. For a toy
    tokenizer: int = sign_vqvae.STEPS   # steps of the tokenizer for boards off the grid


@dataclass(frozen=True)
class Case:
    """One painter to train: which, how it is told the word, on how many different pictures (None: all), whether
    boards stand off the token grid, and the seed."""
    arm: str
    prompt: str = "both"
    unique: int | None = None
    moved: bool = False
    seed: int = 0


@lru_cache(maxsize=2)
def tokenizer(moved: bool, size: Size) -> VQVAE:
    """The shipped tokenizer of signs; for boards off the grid one that was trained on such, kept in the cache."""
    if not moved:
        return checkpoints.load("sign_vqvae")
    file, model = cache_dir() / f"sign-vqvae-moved-{size.tokenizer}.pt", sign_vqvae.make()
    if not file.exists():
        scenes = all_pictures("train", moved=True)[:size.pictures]
        train(model, sign_vqvae.batches(scenes), vqvae_loss, steps=size.tokenizer, optim=sign_vqvae.OPTIM,
              run=Run(progress=False))
        with atomic_write(file) as draft:
            torch.save(model.state_dict(), draft)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


@lru_cache(maxsize=2)
def data(moved: bool, size: Size) -> SignData:
    """The training pictures, made once a process."""
    return SignData(tokenizer(moved, size), moved, size.pictures)


def make(case: Case, size: Size) -> torch.nn.Module:
    """A fresh painter; the seed decides its first weights."""
    return make_painter(case.arm, case.prompt, tokenizer(case.moved, size), case.seed, width=size.width,
                        layers=size.layers, heads=size.heads)


def batches(case: Case, size: Size) -> Callable:
    """`batch(rng)` of a case."""
    return data(case.moved, size).batches(case.arm, case.prompt, size.batch, case.unique)


def step_flops(case: Case, size: Size) -> int:
    """Multiplications and additions of a training step, forward and backward."""
    model, batch = make(case, size), batches(case, size)(np.random.default_rng(0))
    with FlopCounterMode(display=False) as counter:
        LOSSES[case.arm](model, *batch).backward()
    return counter.get_total_flops()


def painter(case: Case, size: Size, steps: int) -> tuple[torch.nn.Module, dict]:
    """A trained painter, and what is known of its training: `minutes` of the CPU, `loss`."""
    made_of = hashlib.sha256(repr((case, size, OPTIM, steps)).encode()).hexdigest()[:8]
    name = "-".join(map(str, (*asdict(case).values(), steps, made_of))).replace(" ", "_")
    file, model = cache_dir() / "ch08" / f"{name}.pt", make(case, size)
    if not file.exists():
        history = finished(train(model, batches(case, size), LOSSES[case.arm], steps=steps, optim=OPTIM,
                                 run=Run(seed=case.seed, progress=False)))
        with atomic_write(file) as draft:
            torch.save({"model": model.state_dict(), "minutes": history.cpu_minutes,
                        "loss": float(np.mean(history.column("loss")[-5:]))}, draft)
    saved = torch.load(file, weights_only=True)
    model.load_state_dict(saved["model"])
    return model.eval(), saved


def measure(painters: SignPainters, n: int = 200) -> dict:
    """The share of validation words that the reader reads right, painter by painter."""
    reader, words, vqvae = checkpoints.load("sign_judge"), list(words_of("validation")[:n]), checkpoints.load("sign_vqvae")
    return {name: round(sum(a == b for a, b in zip(reader.read(painters.write(words, *name.split(", "), vqvae)), words))
                        / len(words), 4) for name in painters.painters}


def main(argv: list[str] | None = None, folder=None, size: Size = Size()) -> History:
    """Train what is not trained yet, and ship all in one file."""
    args = options("sign_painters", argv, 0)
    run = run_file("sign_painters", seed=args.seed, steps=args.steps)
    all_, history = SignPainters(SHIPPED, SETTINGS, width=size.width, layers=size.layers, heads=size.heads), History()
    all_.mean[:], all_.std[:] = data(False, size).spread
    steps = 0
    for case in (Case(arm, prompt, seed=args.seed) for arm in ARMS for prompt in SHIPPED):
        steps = args.steps or max(1, round(FLOPS / step_flops(case, size)))
        model, saved = painter(case, size, steps)
        all_.painters[key(case.arm, case.prompt)].load_state_dict(model.state_dict())
        history.cpu_minutes += saved["minutes"]
        print(f"{key(case.arm, case.prompt)}: {steps} steps, loss {saved['loss']:.3f}")
    args.steps = steps
    ship("sign_painters", all_.eval(), history, args, run, measure(all_), folder, dtype=torch.int8)
    return history
