"""How many tokens does a picture need, and who does the rest? About 80 CPU minutes, the nets' training included.

Shelves of nine compartments (`world.shelves`) as 12 tokens of which every beginning shall be a picture, and four ways to make the
picture from the first k of them. Written down before it ran (but after a pilot of one tokenizer with its plain decoder):

- N1 (the price of nesting): with 4 tokens the nested tokenizer names at most three points fewer compartments than one that was
  made for 4 tokens alone.
- N2 (the order): the first 4 tokens say more than 4 random ones of a tokenizer that was trained on random ones, by over 5 points.
- N3 (a sampler invents): from 4 tokens or fewer the painter's compartments look like something more often than those of the
  plain decoder that has the same operations, and its Frechet distance is lower; but they are not more often *right*.
- N4 (nothing left to invent): from all 12 tokens the two name the same share of compartments, within one point.
- N5 (the balance): drawing what is asked for, at the price of writing 6 tokens and painting in 4 passes or cheaper, the best is
  found at neither end: neither without tokens nor with all of them.
- N6 (where to spend): four times the operations help more in the writer than in the painter's passes.

Rows for each seed. `rebuilt`: way -> k -> psnr, `fd` (features of the picture judge, against other true shelves), `unlike` (the
share of compartments that look like nothing that there is), and the shares that the reader finds right. Ways: `plain` (the
tokenizer's own decoder), `flow, 1/4/8` passes, `large` (one pass at the price of 4), `random order`, `fixed`: made for k tokens.
`drawn`: how much of what was asked for (wall and things, anywhere) is there, means over `n` pictures, by writer, by what the
painter is told beside the plain picture, by k, by passes (0: the plain picture). `flops`: of a token, a prompt, a pass.
`settings`: the temperature of the writer, chosen on validation shelves with seed 0.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.experiments.shelf_nets import (
    ASKED,
    TOKENS,
    as_asked,
    as_pictures,
    asked,
    at_once,
    painted_shelves,
    plain_patches,
    shelves_of,
    things_right,
    unlike_anything,
)
from mmcourse.judges.metrics import count_flops, frechet_distance, mean_psnr
from mmcourse.nested import NestedTokenizer, first
from mmcourse.painters import TokenPainter, paint_in_order
from mmcourse.recipes.shelf_nets import WIDTHS, Steps, large, painter, tokenizer, writer
from mmcourse.studies import Job, Study
from mmcourse.world.shelves import PLACES, read_shelves

LENGTHS = (1, 2, 4, 6, 8, 10, 12)
FIXED = (4,)
PASSES = (1, 4, 8)                      # of the painter, from tokens
DRAWN_PASSES = (0, 1, 2, 4, 8, 16)      # and from what is asked for; 0: the plain decoder's picture
DRAWN_LENGTHS = (0, 2, 4, 6, 8, 12)
TEMPERATURES = (0.4, 0.7, 1.0)


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: `n` shelves are rebuilt, `drawn` asked for."""
    steps: Steps = field(default_factory=Steps)
    n: int = 1024
    drawn: int = 300
    split: str = "test"


# ---------------------------------------------------------------- from tokens

@cache
def true_features(split: str, n: int) -> torch.Tensor:
    """Features of other true shelves."""
    return checkpoints.load("picture_judge").features(shelves_of(split, n, seed=1206)[1])


def rebuilt(pictures: torch.Tensor, plan: Plan) -> dict:
    """How near pictures are to the test shelves, and how like any shelves."""
    truth, images = shelves_of(plan.split, plan.n)
    row = {"psnr": mean_psnr(pictures, images), "unlike": unlike_anything(pictures),
           **things_right(read_shelves(pictures), truth)}
    if len(truth) > 96:
        row["fd"] = frechet_distance(checkpoints.load("picture_judge").features(pictures), true_features(plan.split, plan.n))
    return {name: round(value, 4) for name, value in row.items()}


def plain(seed: int, plan: Plan, how: str = "nested", lengths: Sequence[int] = LENGTHS) -> dict:
    """The tokenizer's own decoder."""
    _, images = shelves_of(plan.split, plan.n)
    out = {}
    for k in lengths:
        net = tokenizer(seed, plan.steps, how, k if how == "fixed" else TOKENS)
        out[str(k)] = rebuilt(net.decode(net.encode(images)[:, :k]), plan)
    return out


def at_random(seed: int, plan: Plan) -> dict:
    """k tokens of a tokenizer for which no order counts, chosen by lot."""
    _, images = shelves_of(plan.split, plan.n)
    net, out = tokenizer(seed, plan.steps, "random order"), {}
    codes = net.quantizer.codebook[net.encode(images)]
    order = torch.rand(len(images), TOKENS, generator=torch.Generator().manual_seed(seed)).argsort(1)
    for k in LENGTHS:
        with torch.no_grad():
            pictures = as_pictures(net.rebuild(codes, order < k))
        out[str(k)] = rebuilt(pictures, plan)
    return out


def seen(seed: int, plan: Plan, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a decoder is told of each test shelf: no words, and the plain picture of the first k tokens."""
    _, images = shelves_of(plan.split, plan.n)
    net = tokenizer(seed, plan.steps)
    return torch.zeros(len(images), ASKED, dtype=torch.long), plain_of(net, net.encode(images), k)


def plain_of(net: NestedTokenizer, ids: torch.Tensor, k: int) -> torch.Tensor:
    """The patches of the plain picture of the first k tokens, which may be none."""
    return plain_patches(net, ids, first(torch.full((len(ids),), k), TOKENS))


def flow(seed: int, plan: Plan, passes: int) -> dict:
    """The painter in so many passes."""
    net = painter(seed, plan.steps)
    return {str(k): rebuilt(painted_shelves(net, *seen(seed, plan, k), passes, seed), plan) for k in LENGTHS}


def large_plain(seed: int, plan: Plan) -> dict:
    """The plain decoder at four times the operations."""
    net = large(seed, plan.steps)
    return {str(k): rebuilt(painted_shelves(net, *seen(seed, plan, k), 0), plan) for k in LENGTHS}


# ---------------------------------------------------------------- from what is asked for

def share_as_asked(seed: int, plan: Plan, ids: torch.Tensor, words: torch.Tensor, k: int, passes: int, split: str) -> float:
    """How much of what was asked for is in the pictures, in the mean. 0 passes: the plain decoder's."""
    shelves, _ = shelves_of(split, plan.drawn)
    plain = plain_of(tokenizer(seed, plan.steps), ids, k)
    made = painted_shelves(painter(seed, plan.steps), words, plain, passes, seed) if passes else as_pictures(plain)
    return round(float(np.mean(as_asked(read_shelves(made), shelves))), 4)


def tokens_for(net: TokenPainter, plan: Plan, temperature: float, seed: int, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What is asked for on a split, and the tokens that a writer writes for it."""
    words = asked(shelves_of(split, plan.drawn)[0])
    return words, paint_in_order(net, words, temperature=temperature, generator=torch.Generator().manual_seed(seed))


def settings(plan: Plan) -> dict:
    """The temperature at which most of what is asked for is in the plain picture of the small writer's 12 tokens, on validation
    shelves; and how much would be there if the tokens were those of the true pictures (`ceiling`) or for another prompt."""
    right = {}
    for temperature in TEMPERATURES:
        words, ids = tokens_for(writer(0, plan.steps), plan, temperature, 0, "validation")
        right[str(temperature)] = share_as_asked(0, plan, ids, words, TOKENS, 0, "validation")
    ids = tokenizer(0, plan.steps).encode(shelves_of("validation", plan.drawn)[1])
    return {"temperature": float(max(right, key=right.get)), "as asked": right,
            "ceiling": share_as_asked(0, plan, ids, words, TOKENS, 0, "validation"),
            "chance": share_as_asked(0, plan, ids.roll(1, 0), words, TOKENS, 0, "validation")}


def drawn(seed: int, plan: Plan, temperature: float) -> dict:
    """What is asked for: writer -> what the painter is told -> k -> passes -> the share that is there."""
    out = {}
    for size in WIDTHS:
        words, ids = tokens_for(writer(seed, plan.steps, size), plan, temperature, seed, plan.split)
        for told, heard in (("tokens", words * 0), ("both", words)):
            out.setdefault(size, {})[told] = {
                str(k): {str(passes): share_as_asked(seed, plan, ids, heard, k, passes, plan.split) for passes in DRAWN_PASSES}
                for k in DRAWN_LENGTHS if k or told == "both"}
    return {"n": plan.drawn, **out}


def flops(plan: Plan) -> dict:
    """Operations for one picture: of a writer's prompt with the first token, of each further token, of a pass of the decoders."""
    out = {}
    for size in WIDTHS:
        net, words = writer(0, plan.steps, size), asked(shelves_of(plan.split, plan.drawn)[0][:1])
        caches, nothing = net.trunk.new_caches(1), torch.full((1, 1), net.codes)
        out[size] = {"first": count_flops(partial(net, nothing, words, caches)),
                     "token": count_flops(partial(net, nothing, words, caches))}
    words, net, ids = asked(shelves_of(plan.split, 1)[0]), tokenizer(0, plan.steps), torch.zeros(1, TOKENS, dtype=torch.long)
    plain = plain_of(net, ids, TOKENS)
    return out | {"plain": count_flops(partial(plain_of, net, ids, TOKENS)),
                  "pass": count_flops(partial(at_once, painter(0, plan.steps), words, plain)),
                  "large pass": count_flops(partial(at_once, large(0, plan.steps), words, plain))}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """All rows; those of what is asked for need the temperature."""
    out = [Job("settings", lambda: settings(plan), ()), Job("flops", lambda: flops(plan), ()),
           Job("floor", lambda: rebuilt(shelves_of(plan.split, plan.n)[1], plan), ())]
    for seed in seeds:
        ways = {"plain": partial(plain, seed, plan), "random order": partial(at_random, seed, plan),
                "fixed": partial(plain, seed, plan, "fixed", FIXED), "large": partial(large_plain, seed, plan),
                **{f"flow, {passes}": partial(flow, seed, plan, passes) for passes in PASSES}}
        out += [Job(f"{way}, seed {seed}", measure, ("rebuilt", way), str(seed), seed=seed) for way, measure in ways.items()]
        out.append(Job(f"drawn, seed {seed}", lambda result, seed=seed: drawn(seed, plan, result["settings"]["temperature"]),
                       ("drawn",), str(seed), seed=seed, derived=True))
    return out


def head(plan: Plan) -> dict:
    """The plan."""
    return {"plan": asdict(plan), "compartments": PLACES, "tokens": TOKENS}


TOY = Plan(Steps(4, 3, 3, 3, 3, 500), n=98, drawn=8)
STUDY = Study("ch12_nested", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
