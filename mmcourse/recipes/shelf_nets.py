"""The nets of the shelves (chapter 12, `experiments.shelf_nets`): `mmcourse train shelf_nets`, about nine CPU minutes.

Those of seed 0 of the study `ch12_nested`, which trains its others here too; what was trained once is kept in the cache.
"""
import ast
import hashlib
import inspect
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from mmcourse import nested
from mmcourse.experiments import shelf_nets
from mmcourse.experiments.shelf_nets import (
    OPTIM,
    ShelfNets,
    ShelfPainter,
    ShelfTokens,
    make_painter,
    make_tokenizer,
    make_writer,
    painter_loss,
    plain_loss,
    train_tokenizer,
)
from mmcourse.files import atomic_write
from mmcourse.nested import NestedTokenizer
from mmcourse.painters import TokenPainter, in_order_loss
from mmcourse.paths import cache_dir
from mmcourse.recipes import finished, options, run_file, ship
from mmcourse.training import History, Run, train
from mmcourse.world import shelves

WIDTHS = {"small": 96, "large": 192}    # twice as wide: four times the operations


@dataclass(frozen=True)
class Steps:
    """How long each net is trained."""
    tokenizer: int = 1600
    painter: int = 1500
    large: int = 600                    # the plain decoder at four times the painter's operations
    writer: int = 1200
    writer_large: int = 500
    shelves: int = shelf_nets.SHELVES


DECIDES = (nested.NestedTokenizer, nested.nested_loss, nested.first, shelf_nets.Dropping, train_tokenizer, ShelfTokens,
           shelf_nets.asked, ShelfPainter, shelf_nets.plain_patches, painter_loss, make_tokenizer, make_painter, make_writer,
           plain_loss, shelf_nets.at_once, shelves.random_shelf, shelves.shelf_split, shelves.cells, shelves.draw_shelves)


@cache
def made_of() -> str:
    """A hash of the code and the constants that decide what a net is."""
    code = "".join(ast.dump(ast.parse(textwrap.dedent(inspect.getsource(each)))) for each in DECIDES)
    return hashlib.sha256((code + repr((OPTIM, shelf_nets.BATCH, shelves.THINGS, shelves.WALLS))).encode()).hexdigest()[:8]


def kept(name: str, make: Callable[[], nn.Module], learn: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A net that was trained before, from the cache, or trained now; `minutes` of the CPU it took. Its file's name says what
    decided it (`made_of`)."""
    file, model = cache_dir() / "ch12" / f"{name}-{made_of()}.pt", make()
    if not file.exists():
        start = time.process_time()
        model = learn(model)
        with atomic_write(file) as draft:
            torch.save({"model": model.state_dict(), "minutes": (time.process_time() - start) / 60}, draft)
    saved = torch.load(file, weights_only=True)
    model.load_state_dict(saved["model"])
    model.minutes = saved["minutes"]
    return model.eval()


@cache
def tokenizer(seed: int, steps: Steps, how: str = "nested", tokens: int = shelf_nets.TOKENS) -> NestedTokenizer:
    """A tokenizer whose tokens are dropped in one of the ways `shelf_nets.HOW`."""
    def learn(_):
        model, history = train_tokenizer(seed, steps.tokenizer, how, tokens)
        finished(history)
        return model
    name = f"tokenizer-{how.replace(' ', '_')}-{tokens}-{seed}-{steps.tokenizer}"
    return kept(name, lambda: make_tokenizer(seed, tokens), learn)


@cache
def tokens_of(seed: int, steps: Steps) -> ShelfTokens:
    """The training shelves as tokens of the nested tokenizer of a seed."""
    return ShelfTokens(tokenizer(seed, steps), steps.shelves)


def taught(model: nn.Module, batch: str, loss: Callable, steps: int, seed: int, data: ShelfTokens) -> nn.Module:
    """A net that learned from the training shelves."""
    finished(train(model, getattr(data, batch), loss, steps=steps, optim=OPTIM, run=Run(seed=seed, progress=False)))
    return model


@cache
def painter(seed: int, steps: Steps) -> ShelfPainter:
    """The painter: from noise."""
    return kept(f"painter-{seed}-{steps.painter}-{steps.tokenizer}", lambda: make_painter(seed),
                lambda model: taught(model, "painting", painter_loss, steps.painter, seed, tokens_of(seed, steps)))


@cache
def large(seed: int, steps: Steps) -> ShelfPainter:
    """The plain decoder at four times the operations: in one pass."""
    return kept(f"large-{seed}-{steps.large}-{steps.tokenizer}", lambda: make_painter(seed, WIDTHS["large"]),
                lambda model: taught(model, "painting", plain_loss, steps.large, seed, tokens_of(seed, steps)))


@cache
def writer(seed: int, steps: Steps, size: str = "small") -> TokenPainter:
    """The writer of tokens."""
    n = steps.writer if size == "small" else steps.writer_large
    return kept(f"writer-{size}-{seed}-{n}-{steps.tokenizer}", lambda: make_writer(seed, WIDTHS[size]),
                lambda model: taught(model, "writing", in_order_loss, n, seed, tokens_of(seed, steps)))


@torch.no_grad()
def measure(nets: ShelfNets, n: int = 400) -> dict:
    """Validation shelves: the share of compartments right from 4 and from all tokens, by the plain decoder and by the painter."""
    truth, pictures = shelf_nets.shelves_of("validation", n)
    ids = nets.tokenizer.encode(pictures)
    made = {f"{way}, {k}": nets.paint(ids[:, :k], passes)
            for way, passes in (("plain", 0), ("painter", 4)) for k in (4, shelf_nets.TOKENS)}
    return {name: round(shelf_nets.things_right(shelves.read_shelves(each), truth)["compartments"], 4)
            for name, each in made.items()}


def main(argv: list[str] | None = None, folder=None, steps: Steps = Steps()) -> History:
    """Train what is not trained yet, and ship the tokenizer, the painter and the small writer in one file. `--steps`: so many for
    each of the three."""
    args = options("shelf_nets", argv, 0)
    if args.steps:
        steps = replace(steps, tokenizer=args.steps, painter=args.steps, writer=args.steps)
    args.steps = steps.tokenizer + steps.painter + steps.writer
    run, nets, history = run_file("shelf_nets", seed=args.seed, made_of=made_of()), ShelfNets(), History()
    for name, learn in (("tokenizer", tokenizer), ("painter", painter), ("writer", writer)):
        learned = learn(args.seed, steps)
        getattr(nets, name).load_state_dict(learned.state_dict())
        history.cpu_minutes += learned.minutes
    ship("shelf_nets", nets.eval(), history, args, run, measure(nets), folder, dtype=torch.int8)
    return history
