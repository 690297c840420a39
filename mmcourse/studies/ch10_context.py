"""Can it learn from examples on the spot? Small nets that are trained for it, and the shipped model. About 2.3 CPU hours.

Written down before the study ran, with the sign that was expected, but after pilots of one seed of most tasks:

- H1 (forced): with labels drawn anew in each episode a net of two layers and width 128 is right in 95 % or more at one
  example a class, of glyphs that it never saw; one layer is not (it cannot look for what came with the one that matches).
- H2 (map): answers from context come only where classes are many and rows bursty (2205.05055). Where the labels can also
  be learned by heart, they are gone at the end though they were there (2311.08360).
- H3 (binding): "a dax is [picture]; draw a dax on blue" is right in 85 % or more at one example, and in 5 % at most
  without support. The course's own transformer, which reads the same pictures token by token, gets nowhere near with
  the same episodes.
- H4 (values): a rule is carried to a value that training never had only if training had very many: not from 4 signs,
  but from thousands.
- H5 (composing): two rules that were never together are not applied together, and saying the rule first does not help
  (CoBSAT, 2402.01293, finds that it helps large models).
- H6 (voices): after one word in a new voice the pitch of another is off by less than half as much as without; with a
  wrong voice's word it is as far off as without, or further.
- H7 (by gradient): for the price of an answer from context no gradient can be computed; fine-tuning on the same
  examples needs ten times that to be as good.

A row has counts of right answers, of `n` episodes (`looks` along the training, on validation); test episodes are the
same for all nets. k examples: of each class, or of a rule. A picture is right if all its 16 tokens are.
"""
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.experiments.episodes import COMPOSING, binding
from mmcourse.experiments.learners import (
    BATCH,
    MOST,
    WORDS,
    Task,
    binding_task,
    bursty_task,
    forced_task,
    rule_task,
    saying_task,
    some,
    voice_task,
)
from mmcourse.studies import Job, Study, _ch10_shipped
from mmcourse.studies._ch10 import (
    RATES,
    Size,
    binding_look,
    binding_test,
    bursty_look,
    composing_test,
    count,
    dice,
    flat_ids,
    forced_look,
    forced_test,
    looked_at,
    rule_test,
    tables,
    tuning,
    tuning_price,
    voice_test,
    voices,
)
from mmcourse.transformer import Transformer

NETS = {"two layers": (128, 2), "one layer": (128, 1), "width 64": (64, 2), "three layers": (128, 3)}
BINDERS = {"with echo": 1.0, "without echo": 0.0}
SHARES = (0.0, 0.5, 0.9, 1.0)
CLASSES = (4096, None, 512, 64, 16)
RULED = {"sign": ("glyph", {}), "recolour": ("recolour", {"wallpapers": True}), "double": ("double", {}), "move": ("move", {}),
         "mirror": ("mirror", {}),
         **{f"sign, {n} values": ("glyph", {"values": n}) for n in (4, 256)}}
ONCE = ("recolour", "double", "move", "mirror", "sign, 256 values", "said first", "direct", "flat",
        "from by heart", *(f"{share:g} of {classes}" for classes in (64, 16) for share in SHARES))  # trained once; more by --only
VOICE_QUESTIONS = 200                   # each is turned into sound, which takes time
EASY = ("glyph",)                       # what is added is the same picture at the same place: a third of the steps will do
PAIR_TOKENS = 18                        # tokens of a pair, flat: word, ground, picture


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: steps of each training, and sizes."""
    forced: int = 800
    bursty: int = 400
    binding: int = 1500
    rules: int = 2500
    composing: int = 2500
    voices: int = 1200
    shipped: int = 160                  # questions to the shipped model, of each kind
    size: Size = field(default_factory=Size)


def forced_row(plan: Plan, name: str, seed: int) -> dict:
    """Labels drawn anew: a net of some size."""
    width, layers = NETS[name]
    net, history, along = looked_at(forced_task(tables(plan.size), plan.forced, width, layers), seed,
                                    partial(forced_look, size=plan.size))
    return {"name": name, "seed": seed, "parameters": weights(net), "cpu_minutes": round(history.cpu_minutes, 2), "along": along,
            "n": plan.size.test, **forced_test(net, plan.size)}


def weights(net) -> int:
    """How many a net has."""
    return sum(p.numel() for p in net.parameters())


def bursty_row(plan: Plan, share: float, classes: int | None, seed: int) -> dict:
    """A cell of the map, along its training."""
    size = plan.size
    classes_here = min(classes, size.train) if classes else None
    net, history, along = looked_at(bursty_task(tables(size), share, classes_here, plan.bursty), seed,
                                    lambda net: bursty_look(net, size, classes_here, "validation", size.looks))
    return {"share": share, "classes": classes, "seed": seed, "cpu_minutes": round(history.cpu_minutes, 2), "along": along,
            "n": size.test, **bursty_look(net, size, classes_here, "test", size.test)}


def tuning_row(plan: Plan, start: str, seed: int) -> dict:
    """Fine-tuning on the examples of an episode, from a net that learns from context or one that knows by heart. The
    rate is the best of three on validation, at the best number of steps."""
    size = plan.size
    task = (forced_task(tables(size), plan.forced) if start == "forced" else
            bursty_task(tables(size), 0.0, size.train, plan.bursty))
    net, history, _ = looked_at(task, seed, lambda net: {})
    row = {"start": start, "seed": seed, "n": size.tuned, "cpu_minutes": round(history.cpu_minutes, 2)}
    for k in (1, 4):
        best = max(RATES, key=lambda rate: max(tuning(net, size, "validation", k, rate, key=13).values()))
        right = tuning(net, size, "test", k, best)
        row[f"k{k}"] = {"rate": best, "right": right, "price": {n: round(tuning_price(k, int(n)), 2) for n in right}}
    return row


def binding_row(plan: Plan, name: str, seed: int) -> dict:
    """Words bound to things, with echoes or without."""
    net, history, along = looked_at(binding_task(tables(plan.size), plan.binding, echo=BINDERS[name]), seed,
                                    partial(binding_look, size=plan.size))
    return {"name": name, "seed": seed, "parameters": weights(net), "cpu_minutes": round(history.cpu_minutes, 2), "along": along,
            "n": plan.size.test, **binding_test(net, plan.size)}


def flat_row(plan: Plan, seed: int) -> dict:
    """The same episodes for the course's own transformer, which reads and writes a picture token by token.

    Right if all 16 tokens are likeliest, each after the true ones before it: easier than to draw them itself.
    """
    size = plan.size

    def loss(net, ids, known):
        answers = net(ids[:, :-1])
        return F.cross_entropy(answers[known[:, 1:]], ids[:, 1:][known[:, 1:]])

    def batch(rng):
        episode = binding(tables(size), rng, BATCH, pairs=some(rng))
        picture = torch.tensor([False] * 2 + [True] * 16)
        return flat_ids(episode), (episode.seen[..., None] & picture).flatten(1)      # (R, P, 18) -> (R, 18 P)

    @torch.no_grad()
    def test(net, split, n, key):
        row = {}
        for k in (1, 3):
            ids = flat_ids(binding(tables(size), dice(key), n, k=k, split=split))
            right = net(ids[:, :-1])[:, -16:].argmax(-1) == ids[:, -16:]
            row |= {f"k{k}": count(right.all(1)), f"tokens_k{k}": count(right)}
        return row
    words = tuple(range(512, 512 + WORDS))
    task = Task(lambda: Transformer(512 + WORDS, 128, 2, 2, PAIR_TOKENS * MOST, words, MOST * 2), batch, loss, plan.binding)
    net, history, along = looked_at(task, seed, lambda net: test(net, "validation", size.looks, 6))
    return {"seed": seed, "parameters": weights(net), "cpu_minutes": round(history.cpu_minutes, 2), "along": along,
            "n": size.test, **test(net, "test", size.test, 7)}


def rule_row(plan: Plan, name: str, seed: int) -> dict:
    """One rule, with its values of training and the held-out ones."""
    rule, options = RULED[name]
    steps = max(plan.rules // 3, 1) if rule in EASY else plan.rules

    def look(net):
        return rule_test(net, plan.size, rule, "validation", plan.size.looks, (4,), 10, options.get("values"))
    net, history, along = looked_at(rule_task(tables(plan.size), rule, steps, **options), seed, look)
    return {"name": name, "seed": seed, "cpu_minutes": round(history.cpu_minutes, 2), "along": along, "n": plan.size.test,
            **rule_test(net, plan.size, rule, "test", plan.size.test, values=options.get("values"))}


def composing_row(plan: Plan, said: bool, seed: int) -> dict:
    """Rules one at a time and two at a time; the answer shown directly, or the rule said first."""
    make = saying_task if said else rule_task

    def look(net):
        return composing_test(net, plan.size, COMPOSING, said, plan.size.looks)
    net, history, along = looked_at(make(tables(plan.size), COMPOSING, plan.composing), seed, look)
    return {"said": said, "seed": seed, "cpu_minutes": round(history.cpu_minutes, 2), "along": along, "n": plan.size.test,
            **composing_test(net, plan.size, COMPOSING, said, plan.size.test)}


def voice_row(plan: Plan, seed: int) -> dict:
    """One net for both: words in a voice, and invented words for sounds."""
    net, history, _ = looked_at(voice_task(voices(plan.size), plan.voices), seed, lambda net: {})
    n = min(plan.size.test, VOICE_QUESTIONS)
    return {"seed": seed, "parameters": weights(net), "cpu_minutes": round(history.cpu_minutes, 2), "n": n,
            **voice_test(net, plan.size, "test", n)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The headlines first."""
    def each(section: str, measure: Callable, cases: Sequence[tuple[str, dict]]) -> list[Job]:
        return [Job(f"{section}, {name}", partial(measure, plan, **case, seed=seed), section=(section,),
                    key={**case, "seed": seed}, seed=seed, optional=name in ONCE and seed > 0)
                for name, case in cases for seed in seeds]
    cells = [(f"{share:g} of {classes or 'endless'}", {"share": share, "classes": classes}) for classes in CLASSES
             for share in SHARES]
    return [*each("forced", forced_row, [(name, {"name": name}) for name in NETS]),
            *each("binding", binding_row, [(name, {"name": name}) for name in BINDERS]),
            *each("voices", voice_row, [("one net", {})]),
            *each("rules", rule_row, [(name, {"name": name}) for name in RULED]),
            *each("map", bursty_row, cells),
            *each("composing", composing_row, [("said first" if said else "direct", {"said": said}) for said in (False, True)]),
            *each("tuning", tuning_row, [(f"from {start}", {"start": start}) for start in ("forced", "by heart")]),
            *each("flat", flat_row, [("flat", {})]),
            *(Job(f"shipped, {ask.__name__}", partial(ask, plan.shipped), section=("shipped",), key=ask.__name__)
              for ask in (_ch10_shipped.forced, _ch10_shipped.binding, _ch10_shipped.rule, _ch10_shipped.voice))]


def head(plan: Plan) -> dict:
    """The plan, and what the numbers rest on."""
    rests_on = ("glyph_vqvae", "codec", "transformer")
    return {"plan": asdict(plan), "made_with": {name: checkpoints.identity(name)[:8] for name in rests_on}}


TOY = Plan(2, 2, 2, 2, 2, 2, 4, Size(64, 24, 8, 4, 2, (4, 3, 3), (10, 4, 4)))
STUDY = Study("ch10_context", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
