"""Through which token does a picture reach its caption? About 20 CPU minutes.

In native generators of 7B parameters the picture passes through one token after it, the "narrow gate" (Serra et al. 2024,
2412.06646). Here: the shipped model, read and cut, and small nets that learn to caption in three ways. Written down before it
ran, after a pilot on scenes of validation with one net each:

- G1: no gate in the shipped model. Without looking at `</image>` every slot of a caption stays within 2 points; without the 64
  tokens, `</image>` alone being seen, thing, place and ground fall to where they cannot be told (the controls: as many captions
  of shuffled pictures).
- G2: `<image>`, which stands before the picture and can know nothing of it, costs a slot at least 15 points when it is cut: so a
  knock-out alone does not show that a token carries anything.
- G3: of the 64 tokens none is a gate: cutting any single one costs at most 5 points of any slot.
- G4: the thing is read in the first block: from block 1 on a caption follows a donor's picture in less than 10 % when that is
  put in place, and the state at the article in more than 90 %. The ground is read later: after the third block the picture still
  decides it in more than 50 %. (Measured twice: at first a donor might have another number of things, and was then not followed
  to the letter: "fishes" is not "fish".)
- G5: a small net without the gate, which never may look at `</image>` while it learns, learns things as well (within 3 points).
- G6: a small net that sees nothing of the picture but `</image>` learns things too, but needs at least half as many steps more
  to name 9 of 10; cutting `</image>` then takes the thing to chance: the gate is where training put it.
- G7: drawing has no gate either: without `</text>` and `<image>` a true picture costs at most 5 % more bits, without the
  caption's words more than twice as many.

Rows: `cut`: shares of slots that are right (likeliest token after the true ones before it) and, `written`, of whole captions
that the model writes by itself; `single`: slots without each place; `patched`: how often a slot follows the donor (where the
two scenes differ), by state and place; `small`: the three arms, step by step and cut; `drawing`: bits of true pictures.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.experiments.aligned import SLOTS, Rows, donors
from mmcourse.experiments.inside import cut, no_look, patched, states, stream
from mmcourse.judges.metrics import rounded
from mmcourse.optim import Optim
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch13 import READ, made_with, rows, shipped, tokenizers
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vocabulary import CLOSE, OPEN

PICTURE, CLOSES = range(1, 65), 65                      # places: the 64 tokens; `</image>`. `<image>` is at 0
CUTS = {"nothing": [], "</image>": [CLOSES], "<image>": [0], "the 64 tokens": list(PICTURE),
        "all but </image>": list(range(CLOSES)), "the whole picture": list(range(READ))}
ARMS = {"plain": [], "without </image>": [CLOSES], "only </image>": list(range(CLOSES))}
SMALL = {"width": 96, "layers": 4, "heads": 4, "context": 96, "segments": 4}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    n: int = 100                        # scenes, of each seed
    single: int = 50                    # of them, where 66 places are cut one by one
    steps: int = 400
    scenes: int = 4000                  # that a small net learns from
    look: int = 25                      # steps between two looks at it
    split: str = "test"


def blocked(length: int, read: Sequence[int], readers: Sequence[int] | None = None) -> torch.Tensor:
    """The tokens from `<text>` on may not look at these places."""
    return no_look(length, range(READ, length) if readers is None else readers, read)


@torch.no_grad()
def under(model: Transformer, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits of a model whose looks are cut."""
    with cut(model, mask):
        return model(ids)


@torch.no_grad()
def written(model: Transformer, found: Rows, mask: torch.Tensor) -> float:
    """The share of captions that a model writes word for word, each token the likeliest after its own ones."""
    ids = found.ids[:, :READ + 1]                                       # the picture, and `<text>`
    for _ in range(len(found.caption) + 1):
        ids = torch.cat([ids, under(model, ids, mask)[:, -1:].argmax(-1)], 1)
    return (ids == found.ids).all(1).double().mean().item()


def cuts(seed: int, plan: Plan) -> dict:
    """A row of `cut`."""
    found, out = rows("described", plan.n, plan.split, seed), {}
    some = rows("described", plan.single, plan.split, seed)
    for name, read in CUTS.items():
        mask = blocked(found.ids.shape[1], read)
        out[name] = rounded({**found.shares(under(shipped(), found.ids, mask)), "written": written(shipped(), some, mask)})
    other = found.ids.clone()
    other[:, :READ] = other[:, :READ].roll(1, 0)                        # the picture of another scene: what cannot be told
    with torch.no_grad():
        out["shuffled pictures"] = rounded(found.shares(shipped()(other)))
    return out


def single(seed: int, plan: Plan) -> dict:
    """A row of `single`: slots right without looking at each of the 66 places."""
    found = rows("described", plan.single, plan.split, seed)
    shares = [found.shares(under(shipped(), found.ids, blocked(found.ids.shape[1], [place]))) for place in range(READ)]
    return {slot: [round(each[slot], 4) for each in shares] for slot in SLOTS}


def swapped(seed: int, plan: Plan) -> dict:
    """A row of `patched`: state -> place -> slot -> how often what is said is the donor's, where the two differ."""
    found = rows("described", plan.n, plan.split, seed)
    donor = found.ids[donors(found.scenes)]
    given, out = states(shipped(), donor), {}
    sets = {"picture": list(PICTURE), "</image>": [CLOSES], "<text>": [READ],
            **{f"at the {slot}": [place] for slot, place in found.says.items()}}
    for name in stream(shipped()):
        out[name] = {}
        for where, places in sets.items():
            said = patched(shipped(), found.ids, {name: given[name]}, places).argmax(-1)
            out[name][where] = {}
            for slot in ("noun", "place", "ground"):                    # donors have as many things
                place = found.says[slot]
                differ = found.ids[:, place + 1] != donor[:, place + 1]
                follows = said[:, place] == donor[:, place + 1]
                out[name][where][slot] = round(follows[differ].double().mean().item(), 4)
    return out


# ---------------------------------------------------------------- small nets

def small(arm: str, seed: int, plan: Plan) -> dict:
    """A row of `small`: a net that learns to caption while it may not look at some places, and a little drawing."""
    learned, drawing = (rows(way, plan.scenes, "train", 9) for way in ("described", "drawn"))
    test, length = rows("described", plan.n, plan.split, seed), learned.ids.shape[1]
    mask, answers = blocked(length, ARMS[arm]), (torch.arange(length) > READ)[None].float()
    torch.manual_seed(seed)
    net = Transformer(tokenizers()[2].size, segment_starts=tuple(OPEN.values()), **SMALL)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        some = torch.from_numpy(rng.integers(len(learned.ids), size=32))
        return learned.ids[some], drawing.ids[some[:8]]

    def loss(net: Transformer, told: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        with cut(net, mask):
            first = next_token_loss(net, told, answers.expand(len(told), -1))
        return first + 0.5 * next_token_loss(net, shown)
    curve = []

    def look(net: Transformer, step: int) -> None:
        if (step + 1) % plan.look == 0:
            net.eval()
            curve.append([step + 1, rounded(test.shares(under(net, test.ids, mask)))])
            net.train()
    finished(train(net, batch, loss, steps=plan.steps, optim=Optim("muon", lr=3e-3, warmup=20), after_step=look,
                   run=Run(seed=seed, progress=False)))
    return {"curve": curve, "cut": {name: rounded(test.shares(under(net, test.ids, mask | blocked(length, read))))
                                    for name, read in CUTS.items()}}


# ---------------------------------------------------------------- the other way round

@torch.no_grad()
def drawing(seed: int, plan: Plan) -> dict:
    """A row of `drawing`: bits of a true picture's 64 tokens without looking at parts of the caption."""
    found = rows("drawn", plan.n, plan.split, seed)
    length, first = found.ids.shape[1], found.picture.start
    assert (found.ids[:, first - 2] == CLOSE["text"]).all() and (found.ids[:, first - 1] == OPEN["image"]).all()
    sets = {"nothing": [], "</text>": [first - 2], "</text> and <image>": [first - 2, first - 1],
            "the caption's words": list(found.caption), "<text>": [0]}
    readers, out = {"</text> and <image>": range(first, length)}, {}
    for name, read in sets.items():
        mask = blocked(length, read, readers.get(name, range(first - 1, length)))
        logits = under(shipped(), found.ids, mask)[:, first - 1:first + 63]
        nats = F.cross_entropy(logits.flatten(0, 1), found.ids[:, first:first + 64].flatten(), reduction="sum")
        out[name] = round(nats.item() / np.log(2) / len(found.ids), 3)
    return out


PARTS = {"cut": cuts, "single": single, "patched": swapped, "drawing": drawing}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The shipped model on three draws of scenes; each small net with three seeds."""
    return ([Job(f"{name}, seed {seed}", partial(part, seed, plan), (name,), str(seed), seed=seed)
             for seed in seeds for name, part in PARTS.items()]
            + [Job(f"small, {arm}, seed {seed}", partial(small, arm, seed, plan), ("small", arm), str(seed), seed=seed)
               for seed in seeds for arm in ARMS])


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": made_with("transformer", "vqvae", "bpe")}


TOY = Plan(n=16, single=2, steps=2, scenes=40, look=1, split="validation")
STUDY = Study("ch13_gate", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
