"""Do the features of a sparse autoencoder say what is in a picture, and does the model use them? About 10 CPU minutes.

A top-k sparse autoencoder (`experiments.sparse`) learns from normed states of the shipped transformer after its first block, in
rows of its own mixture; a second one from a twin that never learned anything. Three seeds of autoencoder, twin and random
directions. Features are chosen on scenes of the training split and marked on held-out combinations of the test. Written down
before it ran on the test, after pilots of one seed on validation, which chose the block (after the third, nouns in pictures are
marked lower: .968 against .990) and showed most of the signs below.

What one number says (average precision; the best single one of each basis):
- S1: in pictures the best feature of a noun gets .9 on average and beats the best neuron of the same block; so does it where the
  noun is about to be said (`said`), by a tenth.
- S2: coordinates, principal axes and random directions of the states are below the neurons for nouns in pictures.
- S3 (the trap): the twin's autoencoder explains *more* of its states' variance, and the best features of the twin still get .6
  for nouns in pictures, .9 for grounds: a picture's tokens alone nearly say it.
- S4: where the noun is about to be said, features of the trained net beat the twin's by half: this is what training made.
- S5: for letters of a sign the twin's features are *better* than the trained net's: what is good for reading out is not what the
  model keeps.

What happens if it is changed (captions of pictures with one kind of thing, all the likeliest tokens):
- S6: taking out the one best feature of the ground changes the ground in fewer than a quarter of the captions: others say it too.
- S7: giving its activity to the feature of another ground makes at least half of the captions say that ground, with everything
  else as it was in 95 %; taking out another feature that is as active, or a random direction, changes no ground in 95 %.
- S8: nouns: the best feature, in pictures as at `said`, changes fewer than 5 % of the nouns, taken out or swapped: it predicts
  and is not what the model reads.
- S9: the noun follows (a third or more) when the whole difference of means is added to the states while the caption is said; from
  all features less than that, from one feature in fewer than 5 %.

Rows. `nets`: for each kind of net and seed how much is `explained` of fresh states (which share of features is `never used` in
these, and `used by a tenth` of them), and for each context and basis the mean average precision of each family; `base`: the share
of scenes; `told`: the difference of means, which was told the labels; `at .9`: the share of factors whose feature gets that, and
how many `different` features serve a family. `edits` and `steering`: shares of captions whose `target` slot changed, of which any
of the `others` did, that are `broken`, that say what was `wanted`, and that say it and are else as before (`clean`).
"""
import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from mmcourse import checkpoints
from mmcourse.dataset import pad
from mmcourse.experiments.inside import states
from mmcourse.experiments.sparse import SparseAutoencoder, explained, moved, normed, only, sparse_loss
from mmcourse.generate import generate
from mmcourse.judges.metrics import rounded
from mmcourse.optim import Optim
from mmcourse.studies import Job, Study, finished
from mmcourse.studies.ch12_depth import shipped, training_mixture
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment
from mmcourse.world.grammar import PLACES
from mmcourse.world.rules import LETTERS
from mmcourse.world.scene import BACKGROUNDS, NOUNS, WORLD, Scene

ROWS = {"image->text": 16, "text->image": 12, "audio->text": 12}        # of a batch whose states are learned from
KINDS = ("trained", "untrained")
CONTEXTS = ("picture", "said", "caption")
FAMILIES = {"noun": NOUNS, "ground": tuple(BACKGROUNDS), "place": PLACES, "count": (1, 2, 3, 4), "letter": tuple(LETTERS)}
NAMES = [(family, value) for family, values in FAMILIES.items() for value in values]
SLOTS = ("noun", "count", "place", "ground")
EDITS = (("ground", "picture"), ("noun", "picture"), ("noun", "said"), ("place", "picture"), ("count", "picture"))
STEERED = (("ground", "picture"), ("noun", "said"))
TEST_SEED = 1306


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: an autoencoder of `features`, `k` at a time, learns for `steps` from `batches` of the states
    after `part`; `scored` scenes of the training split choose features and as many of `split` mark them; `edited` captions."""
    part: str = "blocks.0"
    features: int = 1024
    k: int = 16
    steps: int = 400
    batches: int = 40
    scenes: int = 6000
    every: int = 4
    scored: int = 600
    rare: int = 5                                                       # scenes of either split have a factor, or it is left out
    edited: int = 160
    gains: tuple[int, ...] = (1, 2)
    most: tuple[int, ...] = (1, 4, 16)                                  # features that a steering vector is made of
    split: str = "test"


# ---------------------------------------------------------------- nets and autoencoders

@cache
def net_of(kind: str, seed: int) -> Transformer:
    """The shipped transformer, or one of its size that has learned nothing."""
    if kind == "trained":
        return shipped().model
    torch.manual_seed(seed)
    return Transformer(**shipped().model.config).eval()


@cache
@torch.no_grad()
def pool(kind: str, seed: int, plan: Plan, first: int, n: int) -> torch.Tensor:
    """Normed states (M, C) of all tokens of `n` batches of the model's own mixture."""
    mixture, model, out = copy.copy(training_mixture(plan.scenes, plan.every)), net_of(kind, seed), []
    mixture.rows = ROWS
    for number in range(first, first + n):
        for ids in mixture.batch(np.random.default_rng((13, number)))[::2]:
            out.append(normed(states(model, ids, names=[plan.part])[plan.part])[ids > 0])
    return torch.cat(out)


@cache
@torch.enable_grad()
def autoencoder(kind: str, seed: int, plan: Plan) -> SparseAutoencoder:
    """One that has learned from the states of a net."""
    x = pool(kind, seed * (kind == "untrained"), plan, 0, plan.batches)
    torch.manual_seed(seed)
    model = SparseAutoencoder(x.shape[1], plan.features, plan.k)
    model.middle.data.copy_(x.mean(0))
    finished(train(model, lambda rng: (x[rng.integers(len(x), size=1024)],), sparse_loss, steps=plan.steps,
                   optim=Optim(lr=3e-3, warmup=50, weight_decay=0.0), run=Run(seed=seed, progress=False)))
    return model.requires_grad_(False)


# ---------------------------------------------------------------- what there is, and what a net makes of it

def factors(scene: Scene) -> set[tuple]:
    """What a scene has: (family, value) of all that is in it."""
    things = {(family, value) for group in scene.groups for family, value in
              (("noun", group.noun), ("count", group.count), ("place", group.place)) if value}
    return things | {("ground", scene.background), *(("letter", letter) for letter in scene.sign)}


@cache
def rows_of(context: str, n: int, split: str) -> tuple[list[list[int]], torch.Tensor]:
    """Rows of ids, and which factors their scenes have (N, factors): in `picture` a picture whose caption is asked for, in `said`
    also the caption's first token, which is no noun (what counts there is the first thing alone), in `caption` a caption whose
    picture is asked for."""
    s, dice = shipped(), np.random.default_rng(TEST_SEED)
    scenes = [WORLD.sample(dice, split) for _ in range(n)]
    texts = [s.text(WORLD.caption(scene)) for scene in scenes]
    if context == "caption":
        rows = [s.vocabulary.pack([text]) + [OPEN["image"]] for text in texts]
    else:
        rows = [s.vocabulary.pack([image]) + [OPEN["text"]] for image in pictures_of(scenes)]
    if context == "said":
        rows = [row + s.vocabulary.shift(Segment("text", text.ids[:1])) for row, text in zip(rows, texts)]
        scenes = [Scene(scene.groups[:1], scene.background, scene.sign) for scene in scenes]
    return rows, torch.tensor([[name in has for name in NAMES] for has in map(factors, scenes)])


def pictures_of(scenes: Sequence[Scene]) -> list[Segment]:
    """Pictures of scenes as segments."""
    codes = torch.cat([shipped().vqvae.encode(WORLD.draw(scenes[i:i + 64])).flatten(1) for i in range(0, len(scenes), 64)])
    return [Segment("image", tuple(row)) for row in codes.tolist()]


@dataclass
class Seen:
    """What a net makes of rows, one after another: normed states `z` (M, C), what the neurons of the same block are given
    (`up`, (M, 4C)), and how many tokens each row has (`lengths`, (N,))."""
    z: torch.Tensor
    up: torch.Tensor
    lengths: torch.Tensor

    @torch.no_grad()
    def each(self, read: Callable, how: str = "max") -> torch.Tensor:
        """The largest (or mean) value in each row of what `read(z, up)` makes of tokens, (m, F): (N, F)."""
        out, at = [], 0
        for lengths in self.lengths.split(100):
            here = slice(at, at := at + int(lengths.sum()))
            out.append(torch.segment_reduce(read(self.z[here], self.up[here]), how, lengths=lengths))
        return torch.cat(out)


@torch.no_grad()
def seen(model: Transformer, part: str, rows: list[list[int]], last: bool) -> Seen:
    """All tokens of rows, or the `last` ones."""
    z, up, names = [], [], (part, f"{part}.mlp.up")
    for i in range(0, len(rows), 50):
        ids = pad(rows[i:i + 50])
        found, kept = states(model, ids, names=names), ids > 0
        if last:
            kept &= kept.cumsum(1) == kept.sum(1, keepdim=True)
        z.append(normed(found[part])[kept])
        up.append(found[f"{part}.mlp.up"][kept])
    return Seen(torch.cat(z), torch.cat(up), torch.tensor([1 if last else len(row) for row in rows]))


@cache
def seen_by(kind: str, seed: int, context: str, plan: Plan, split: str) -> tuple[Seen, torch.Tensor]:
    """What a net makes of the scenes of a split, and which factors those have."""
    rows, has = rows_of(context, plan.scored, split)
    return seen(net_of(kind, seed), plan.part, rows, context == "said"), has


# ---------------------------------------------------------------- which single number predicts a factor

def average_precision(values: torch.Tensor, has: torch.Tensor) -> torch.Tensor:
    """How well each number ranks scenes by each factor: values (N, F), has (N, K) -> (F, K) in 0..1. (Ties stay in the order of
    the scenes.)"""
    order, ranks = values.argsort(0, descending=True), torch.arange(1, len(values) + 1)[:, None]
    out = []
    for each in has.T.float():
        hits = each[order]                                              # (N, F)
        out.append((hits.cumsum(0) / ranks * hits).sum(0) / each.sum().clamp(min=1))
    return torch.stack(out, 1)


def mean_where(values: torch.Tensor, has: torch.Tensor) -> torch.Tensor:
    """The mean of values (N, F) over the scenes that have a factor: (K, F); nothing has it: zeros."""
    has = has.float()
    return (has / has.sum(0).clamp(min=1)).T @ values


def bases(found: Seen, has: torch.Tensor, sae: SparseAutoencoder, seed: int) -> dict[str, Callable]:
    """What could be read of a token, `read(z, up)` -> (m, F): features; neurons of the same block; coordinates, principal axes
    and random directions of the states, both ways; and, `told`, for each factor the difference of means, with labels."""
    middle, C = found.z.mean(0), found.z.shape[1]
    axes = torch.linalg.eigh((found.z - middle).T @ (found.z - middle))[1]                       # (C, C)
    some = F.normalize(torch.randn(C, len(sae.directions), generator=torch.Generator().manual_seed(seed)), dim=0)
    means = found.each(lambda z, up: z, "mean")                                                  # (N, C)
    apart = (mean_where(means, has) - mean_where(means, ~has)).T                                 # (C, K)
    return {"feature": lambda z, up: sae.encode(z), "neuron": lambda z, up: up.relu().square(),
            "coordinate": lambda z, up: torch.cat([z, -z], 1),
            "principal": lambda z, up: torch.cat([(z - middle) @ axes, (middle - z) @ axes], 1),
            "random": lambda z, up: (z - middle) @ some, "told": lambda z, up: (z - middle) @ apart}


def by_family(values: torch.Tensor, common: torch.Tensor) -> dict[str, float]:
    """Means of values (K,) over the factors of each family that are common enough."""
    families = {family: [float(value) for value, (name, _), kept in zip(values, NAMES, common) if name == family and kept]
                for family in FAMILIES}
    return {family: round(float(np.mean(each)), 4) for family, each in families.items() if each}


def chosen(kind: str, seed: int, context: str, plan: Plan) -> torch.Tensor:
    """The feature that predicts each factor best on scenes of the training split: (K,)."""
    found, has = seen_by(kind, seed * (kind == "untrained"), context, plan, "train")
    sae = autoencoder(kind, seed, plan)
    return average_precision(found.each(lambda z, up: sae.encode(z)), has).argmax(0)


def scored(kind: str, seed: int, plan: Plan) -> dict:
    """A row of `nets`: how well the best single number of each basis, chosen on scenes of the training split, ranks those of the
    other: average precision, means over the factors of a family. `base`: what a number that knows nothing gets."""
    net, sae = seed * (kind == "untrained"), autoencoder(kind, seed, plan)
    fresh = pool(kind, net, plan, plan.batches, 1)
    with torch.no_grad():
        used = (sae.encode(fresh) > 0).float().mean(0)
    out = {"explained": explained(sae, fresh), "never used": float((used == 0).float().mean()),
           "used by a tenth": float((used > 0.1).float().mean())}
    for context in CONTEXTS:
        (a, has), (b, test) = (seen_by(kind, net, context, plan, split) for split in ("train", plan.split))
        common = (has.sum(0) >= plan.rare) & (test.sum(0) >= plan.rare)
        out[context] = {"base": by_family(test.float().mean(0), common)}
        for name, read in bases(a, has, sae, seed).items():
            best = range(len(NAMES)) if name == "told" else average_precision(a.each(read), has).argmax(0).tolist()
            marks = b.each(read)
            scores = torch.tensor([average_precision_score(test[:, i], marks[:, each]) if kept else 0.0
                                   for i, (each, kept) in enumerate(zip(best, common))])
            out[context][name] = by_family(scores, common)
            if name == "feature":
                out[context]["at .9"] = by_family((scores >= 0.9).float(), common)
                out[context]["different"] = {family: len({each for each, (name, _) in zip(best, NAMES) if name == family})
                                             for family in FAMILIES}
    return rounded(out, 4)


# ---------------------------------------------------------------- features changed while a caption is said

def slots(text: str) -> dict | None:
    """What a caption says of one thing and its ground; None: it is no such caption."""
    try:
        scene = WORLD.parse(text)
    except ValueError:
        return None
    if len(scene.groups) != 1:
        return None
    group = scene.groups[0]
    return {"noun": group.noun, "count": group.count, "place": group.place, "ground": scene.background}


@cache
def asked(plan: Plan) -> tuple[list[dict], list[Segment]]:
    """Scenes of one or two of one thing without a sign, as slots, and their pictures."""
    dice, scenes = np.random.default_rng(TEST_SEED + 1), []
    while len(scenes) < plan.edited:
        scene = WORLD.sample(dice, plan.split, kinds=1)
        if scene.groups[0].place and not scene.sign:
            scenes.append(scene)
    return [slots(WORLD.caption(scene)) for scene in scenes], pictures_of(scenes)


def told(plan: Plan, sae: SparseAutoencoder, move: Callable) -> list[dict | None]:
    """The likeliest captions of the pictures while `move` changes their features, as slots."""
    s, (_, images) = shipped(), asked(plan)
    with moved(s.model, plan.part, sae, move):
        said = generate(s.model, s.vocabulary, [[image] for image in images], "text", temperature=0.0)
    return [slots(s.bpe.decode(segment.ids).strip()) for segment in said]


def compared(before: list, after: list, family: str, wanted: list | None = None) -> dict:
    """The shares of captions whose own slot changed, of which another one did, that are none any more (`broken`), and that say
    what was wanted and nothing else new (`clean`)."""
    def other(a: dict, b: dict | None) -> bool:
        return b is None or any(a[slot] != b[slot] for slot in SLOTS if slot != family)
    pairs = list(zip(before, after))
    out = {"target": np.mean([b is None or a[family] != b[family] for a, b in pairs]),
           "others": np.mean([other(*pair) for pair in pairs]), "broken": np.mean([b is None for _, b in pairs])}
    if wanted is not None:
        out["wanted"] = np.mean([b is not None and b[family] == value for (_, b), value in zip(pairs, wanted)])
        out["clean"] = np.mean([b is not None and b[family] == value and not other(a, b) for (a, b), value in zip(pairs, wanted)])
    return {name: round(float(value), 4) for name, value in out.items()}


def others_than(values: Sequence, own: Sequence, dice: np.random.Generator) -> list:
    """For each own value another one of a family, at random."""
    return [(rest := [value for value in values if value != each])[dice.integers(len(rest))] for each in own]


def edited(seed: int, plan: Plan) -> dict:
    """A row of `edits`: one feature at all places is taken out (`ablated`; `another`: one as active as it, that was chosen for
    nothing; `random`: as much along a random direction), or given to the feature of another value (`swapped x gain`)."""
    sae, s, (true, _) = autoencoder("trained", seed, plan), shipped(), asked(plan)
    directions, x = F.normalize(sae.directions, dim=1), pool("trained", 0, plan, 0, plan.batches)
    amounts, uses = map(sum, zip(*((f.sum(0), (f > 0).sum(0)) for f in map(sae.encode, x.split(4096)))))
    typical = amounts / uses.clamp(min=1)                               # (features,): how active if at all
    dice, before = np.random.default_rng((TEST_SEED, seed)), told(plan, sae, lambda f: torch.zeros(()))
    aside = F.normalize(torch.randn(s.width, generator=torch.Generator().manual_seed(seed)), dim=0)
    out = {"right": round(float(np.mean([a == b for a, b in zip(before, true)])), 4)}
    kept = [i for i, each in enumerate(before) if each is not None]
    if len(kept) < len(before):
        raise ValueError("the model says no caption of one thing for some pictures: take others")
    for family, context in EDITS:
        best = dict(zip(NAMES, chosen("trained", seed, context, plan).tolist()))
        free = torch.ones(plan.features, dtype=torch.bool)
        free[list(best.values())] = False
        alike = {i: int((amounts - amounts[i]).abs().masked_fill(~free, torch.inf).argmin()) for i in {*best.values()}}
        own = [each[family] for each in before]
        values = [value for value in FAMILIES[family] if family != "count" or value <= 2]
        wanted = others_than(values, own, dice)
        ids, goal = (torch.tensor([[best[family, value]] for value in each]) for each in (own, wanted))
        another = torch.tensor([[alike[i]] for [i] in ids.tolist()])

        def swap(f, gain, ids=ids, goal=goal):
            share = (only(f, ids) / typical.clamp(min=1e-6)).sum(-1, keepdim=True)               # (B, T, 1)
            return gain * share * (typical[goal] * directions[goal[:, 0]])[:, None] - sae.part(only(f, ids))
        row = {"ablated": compared(before, told(plan, sae, lambda f, ids=ids: -sae.part(only(f, ids))), family),
               "another": compared(before, told(plan, sae, lambda f, ids=another: -sae.part(only(f, ids))), family),
               "random": compared(before, told(plan, sae, lambda f, ids=ids: only(f, ids).sum(-1, keepdim=True) * aside), family)}
        for gain in plan.gains:
            row[f"swapped x {gain}"] = compared(before, told(plan, sae, partial(swap, gain=gain)), family, wanted)
        out[f"{family}, {context}"] = row
    return out


def steered(seed: int, plan: Plan) -> dict:
    """A row of `steering`: the difference of the means of two values is added at each token (of a picture, or of the answer that
    is being said): of states (`states`), of all features, and of the m features that differ most."""
    sae, out = autoencoder("trained", seed, plan), {}
    before = told(plan, sae, lambda f: torch.zeros(()))
    dice = np.random.default_rng((TEST_SEED, seed, 1))
    for family, context in STEERED:
        found, has = seen_by("trained", 0, context, plan, "train")
        code, state = (mean_where(found.each(read, "mean"), has) for read in (lambda z, up: sae.encode(z), lambda z, up: z))
        own = [each[family] for each in before]
        wanted = others_than(FAMILIES[family], own, dice)
        a, b = ([NAMES.index((family, value)) for value in each] for each in (own, wanted))
        apart, row = code[b] - code[a], {}                              # (B, features)
        ways = {f"{m} features": sae.part(apart * top(apart.abs(), m)) for m in plan.most}
        for way, vector in {**ways, "all features": sae.part(apart), "states": state[b] - state[a]}.items():
            for gain in plan.gains:
                def move(f, vector=vector, gain=gain, context=context):
                    return gain * vector[:, None] * (f.shape[1] == 1 or context == "picture")    # with a cache: T = 1 is said
                row[f"{way} x {gain}"] = compared(before, told(plan, sae, move), family, wanted)
        out[f"{family}, {context}"] = row
    return out


def top(values: torch.Tensor, m: int) -> torch.Tensor:
    """1 at the m largest of each row, 0 elsewhere: (B, n) -> (B, n)."""
    return torch.zeros_like(values).scatter(1, values.topk(min(m, values.shape[1])).indices, 1.0)


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Both nets scored, then the trained one's features changed, with every seed."""
    def job(measure: Callable, section: tuple[str, ...], seed: int) -> Job:
        return Job(f"{', '.join(section)}, seed {seed}", partial(measure, seed=seed, plan=plan), section, str(seed), seed=seed)
    return [job(*each, seed) for seed in seeds for each in (
        *((partial(scored, kind), ("nets", kind)) for kind in KINDS), (edited, ("edits",)), (steered, ("steering",)))]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": {name: checkpoints.identity(name)[:8]
                                                for name in ("transformer", "vqvae", "codec", "bpe")}}


TOY = Plan(features=64, k=4, steps=3, batches=1, scenes=64, every=200, scored=40, rare=1, edited=4, gains=(1,), most=(1,),
           split="validation")
STUDY = Study("ch13_sae", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
