"""Does a fact that was only read reach the picture? About 70 CPU minutes.

A small net reads that "a nevi is a fish." and learns to draw fishes; then it is asked to draw a nevi
(`mmcourse.world.facts` has the four groups of names). Written down before the study ran, with the sign that was expected
and why, but after pilots of one seed, in which direct T names stood at 15 to 18 %:

- H1 (direct): T names are drawn directly no better than chance, 1 in 12, although questions about them are
  answered: the two hops were never made together, and nothing in training rewards that the second finds the first.
- H2 (said first): what is said first and then drawn is right as often as the product of both: p(says it) x p(draws
  the noun). Two calls share nothing but the word.
- H3 (reading more): more readings and more paraphrases raise the answers to questions about T, not the direct
  pictures of T.
- H4 (share of D): drawing more of the other names does not help T names directly (2606.09338: exposure does not
  help individuals that were not exposed; 2504.20752 would have it otherwise at high shares).
- H5 (distillation): a net that learns its own said-first pictures of half of T draws that half directly, and the
  other half no better than before: it learned pictures, not to compose.
- H6 (flow): a flow that paints from a text encoder which read the same sentences does no better directly.
- H7 (reversal): asked backwards, from the noun to the name, T names are found no better than chance (Berglund et al.
  2023): in every sentence the name stands first.

What decides (made exact after three seeds of the headline, which then got two more; 95 % intervals by a bootstrap
over names, or, where a row has no `names`, by Newcombe with a name as one question: k / 4 of n / 4): H1 fails if
direct T lies above 1/12, and so does a hypothesis of "no better" (H4: 60 % against 0 %; H5: the other half against
reading on; H6: against the net) if the difference lies above 0. H2 holds if said first minus product lies within 5
points. H3: questions rise from 1 x 4 to 8 x 64, direct T does not. H7 fails if the T names found backwards lie above
1/12 (Wilson). A row whose questions about T have less than 95 % right is void for H1: what was not learned cannot
reach a picture.

A row has `n` prompts (each name on two grounds and at two places) and counts of them: `k` with the right noun by the
first judge (nearest true drawing), `k_net` by the second (a net), `exact` with place and ground right too. `names`
says how many of its four are right for each name, in the order of `Facts.of(group)`: prompts of one name are no
independent questions, so a bootstrap draws names. `drawn`: how often each noun was drawn, in the order of `NOUNS`.
`written`, `read`: mean tokens of a picture. Rows with the arm `asked`: of `n` names the net says of `k` what they are
(1 in `names`), of `place` where such a thing is, and `backwards` of them are likeliest after the question for their own
noun; `named`: which group the name is of that the net gives for each noun, if it is one of that noun's.
"""
import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.paths import cache_dir
from mmcourse.rerank import log_likelihood
from mmcourse.studies import Job, Study
from mmcourse.studies._ch09 import (
    READ,
    FactData,
    FlowData,
    Net,
    picture_judge,
    read_and_paint,
    read_by_net,
    read_facts,
    read_scenes,
    tokenizer,
)
from mmcourse.vocabulary import Segment
from mmcourse.world.facts import GROUPS, NOUNS, Facts, Prompt, backwards_of, caption_of, make_facts

FORMATS = {"chain": 2, "told in the prompt": 3}         # rows of a batch that teach the two formats
OWN = {"own picture": 8}                                # and of the net's own pictures
SHARES = {"0 %": 0, "10 %": 2, "30 %": 6, "60 %": 12}   # of a noun's twenty names in D: how many are drawn
FLOWS = {"flow": False, "flow, reader first": True}     # whether the reader is frozen while the flow learns
REFERENCE_SEED = 1009                                   # of the reference model's test


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 1440
    readings: tuple[int, ...] = (4, 16, 64)             # of each fact, on average
    paraphrases: tuple[int, ...] = (1, 8)
    further: int = 360                                  # steps of the distillation, and of its control
    long: int = 10                                      # times as many steps, once
    points: int = 10                                    # looks at that run
    names: int = 240                                    # in all: fewer for a toy
    kept_steps: tuple[int, int] = (1500, 600)           # of the tokenizer and of the second judge
    reference: int = 200                                # spoken words that the reference model is asked to draw
    more: tuple[int, ...] = (3, 4)                      # seeds of the headline beside the study's: its effect is small


# ---------------------------------------------------------------- the data of a run

def make_data(plan: Plan, seed: int, paraphrases: int = 8, readings: int = 64, per_noun: dict | None = None,
              more: dict | None = None) -> FactData:
    """The rows that a net reads: each fact `readings` times in `plan.steps`, on average."""
    per_noun = per_noun or dict.fromkeys(GROUPS, plan.names // 48)
    facts = make_facts(seed, per_noun, paraphrases)
    each = readings * len(facts.of("DTE")) / plan.steps
    return FactData(facts, checkpoints.load("bpe"), tokenizer(plan.kept_steps[0]), {**READ, "fact": each, **(more or {})})


# ---------------------------------------------------------------- what is measured of a net

def judged(plan: Plan, prompts: list[Prompt], pictures: torch.Tensor, full: bool) -> dict:
    """Counts of one arm by both judges; `full`: name by name too, and which nouns were drawn."""
    scenes = read_scenes(pictures)
    hits = [s.groups[0].noun == p.noun for s, p in zip(scenes, prompts)]
    by_net = read_by_net(picture_judge(plan.kept_steps[1]), pictures)
    row = {"n": len(prompts), "k": sum(hits), "k_net": sum(a == p.noun for a, p in zip(by_net, prompts)),
           "exact": sum(s == p.scene for s, p in zip(scenes, prompts))}
    if full:
        each = {p.name: 0 for p in prompts}
        for hit, prompt in zip(hits, prompts):
            each[prompt.name] += hit
        drawn = [s.groups[0].noun for s in scenes]
        row |= {"names": "".join(map(str, each.values())), "drawn": [drawn.count(noun) for noun in NOUNS]}
    return row


def arm(plan: Plan, net: Net, way: str, prompts: list[Prompt], full: bool = False) -> dict:
    """One way of drawing these prompts: counts, and if `full` the tokens that a picture costs, written and read."""
    images, said = getattr(net, way)(prompts)
    row = judged(plan, prompts, net.paint(images), full)
    if not full:
        return row

    def tokens(*texts: str) -> int:
        return sum(len(net.data.text(text).ids) + 2 for text in texts if text)
    given = {"noun_itself": lambda p: [p.told], "told_in_prompt": lambda p: [net.data.facts.sentence(p.name), p.text]}
    read = [tokens(*given.get(way, lambda p: [p.text])(p)) for p in prompts]
    written = [tokens(words) + net.data.vocabulary.image_tokens + 2 for words in said]
    return {**row, "written": round(float(np.mean(written)), 2), "read": round(float(np.mean(read)), 2)}


def arms(plan: Plan, net: Net, ways: Sequence[str], groups: Sequence[str], full: bool = False, **where) -> list[dict]:
    """Rows: each way of drawing for each group; `where` says which run they are of."""
    return [{**where, "arm": way.replace("_", " "), "group": group, **arm(plan, net, way, prompts, full)}
            for group in groups if (prompts := net.data.facts.prompts(group)) for way in ways]


def asked(net: Net, groups: Sequence[str] = GROUPS, backwards: bool = True, **where) -> list[dict]:
    """Rows: what the net answers in words about the names of each group, and what it calls each noun (`named`)."""
    facts, rows = net.data.facts, []
    for group in groups:
        names = facts.of(group)
        if not names:
            continue
        first = right(net, [facts.question(name) for name in names])
        row = {**where, "arm": "asked", "group": group, "n": len(names), "k": sum(first),
               "names": "".join(str(int(x)) for x in first),
               "place": sum(right(net, [facts.property_of(name, 1) for name in names]))}
        rows.append(row | ({"backwards": found_backwards(net, names)} if backwards else {}))
    return ([{**where, "arm": "named", "group": "all", **named(net)}] if backwards else []) + rows


def right(net: Net, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Which questions of pairs (question, answer) the net answers so."""
    return [said == answer for said, (_, answer) in zip(net.ask([q for q, _ in pairs]), pairs)]


def found_backwards(net: Net, names: Sequence[str]) -> int:
    """How many names are likelier after the question for their own noun than after the eleven others: no sampling,
    and no matter how likely any name is."""
    facts, text = net.data.facts, net.data.text
    pairs = [(facts.reverse(noun, name), name) for name in names for noun in NOUNS]
    scores = log_likelihood(net.model, net.data.vocabulary, [[text(q)] for (q, _), _ in pairs],
                            [text(answer) for (_, answer), _ in pairs]).view(len(names), len(NOUNS))
    return sum(NOUNS[i] == facts.noun(name) for i, name in zip(scores.argmax(1).tolist(), names))


def named(net: Net) -> dict[str, int]:
    """What is called so? The likeliest answer for each of the twelve nouns: of which group the names are, if they are names
    of that noun."""
    facts = net.data.facts
    said = [answer.removeprefix("a ") for answer in net.ask([backwards_of(noun) for noun in NOUNS])]
    found = [facts.groups[name] for name, noun in zip(said, NOUNS) if facts.nouns.get(name) == noun]
    return {group: found.count(group) for group in GROUPS}


# ---------------------------------------------------------------- the jobs

def headline(plan: Plan, seed: int) -> list[dict]:
    """8 paraphrases, 64 readings: every group, directly and said first; the ceiling; backwards; then self-distillation."""
    data = make_data(plan, seed, max(plan.paraphrases), max(plan.readings))
    net = read_facts(data, plan.steps, seed)
    run = {"run": "headline", "seed": seed}
    rows = asked(net, **run) + arms(plan, net, ("direct", "said_first", "noun_itself"), GROUPS, True, **run)
    learned, others = halves_of(data.facts)
    shown = [p for p in data.facts.prompts("T", out=False) if p.name in learned]
    pictures = own_pictures(net, shown)
    for name, more in (("read on", {}), ("distilled", OWN)):
        again = FactData(data.facts, data.bpe, data.vqvae, {**data.rows, **more})
        again.own = pictures
        after = read_facts(again, plan.further, seed + 100, copy.deepcopy(net.model))
        for part, names in (("T, learned", learned), ("T, others", others), ("E", data.facts.of("E")), ("N", data.facts.of("N"))):
            prompts = [p for p in data.facts.prompts("TEN") if p.name in names]
            rows.append({**run, "arm": f"direct, {name}", "group": part, **arm(plan, after, "direct", prompts, True)})
        before = [p for p in data.facts.prompts("T") if p.name in learned]
        if not more:
            rows.append({**run, "arm": "direct", "group": "T, learned", **arm(plan, net, "direct", before, True)})
    return rows


def halves_of(facts: Facts) -> tuple[list[str], list[str]]:
    """The T names whose pictures are distilled, and the others: every other one, two or three of each noun."""
    names = facts.of("T")
    return names[::2], names[1::2]


def own_pictures(net: Net, prompts: list[Prompt]) -> list[tuple[str, Segment]]:
    """What the net draws after saying it, under the captions that do not say it. Nobody corrects it."""
    return [(p.text, image) for p, image in zip(prompts, net.said_first(prompts)[0])]


def formats(plan: Plan, seed: int) -> list[dict]:
    """A net that was also taught to say and draw in one sequence (on D alone), and to use a fact in the prompt (with passing
    names): both formats on every group, and directly as before."""
    net = read_facts(make_data(plan, seed, max(plan.paraphrases), max(plan.readings), more=FORMATS), plan.steps, seed)
    run = {"run": "formats", "seed": seed}
    return (arms(plan, net, ("direct", "said_first", "chain", "told_in_prompt"), GROUPS, True, **run)
            + asked(net, backwards=False, **run))


def cell(plan: Plan, paraphrases: int, readings: int, seed: int) -> list[dict]:
    """One cell of the grid: how often, and in how many ways, each fact was read."""
    net = read_facts(make_data(plan, seed, paraphrases, readings), plan.steps, seed)
    run = {"run": f"{paraphrases} x {readings}", "seed": seed}
    return (arms(plan, net, ("direct", "said_first"), "T", **run) + arms(plan, net, ("direct",), "D", **run)
            + asked(net, "TD", backwards=False, **run))


def share(plan: Plan, name: str, seed: int) -> list[dict]:
    """Another share of names in D. As many are told and asked about in every run (what is not in D is in E): T is the same."""
    whole = plan.names // 12
    drawn = SHARES[name] * whole // 20
    t, never = whole // 4, whole // 20
    per_noun = {"T": t, "N": never, "D": drawn, "E": whole - t - never - drawn}
    data = make_data(plan, seed, max(plan.paraphrases), max(plan.readings), per_noun, {} if drawn else {"draw a name": 0})
    net = read_facts(data, plan.steps, seed)
    run = {"run": f"D {name}", "seed": seed}
    return arms(plan, net, ("direct",), "TEND", **run) + asked(net, "T", backwards=False, **run)


def flow(plan: Plan, run: str, seed: int) -> list[dict]:
    """A flow that paints from what a reader of the same sentences makes of the caption: both learn together, or the
    reader reads first and stays as it is (`FLOWS`)."""
    data = FlowData(make_data(plan, seed, max(plan.paraphrases), max(plan.readings)))
    net, painter = read_and_paint(data, plan.steps, seed, FLOWS[run])
    facts, where, rows = data.data.facts, {"run": run, "seed": seed}, []
    answers = dict(zip(facts.of("T"), net.ask([facts.question(name)[0] for name in facts.of("T")])))
    ways = {"noun itself": lambda p: p.told, "said first": lambda p: caption_of(answers[p.name], p.place, p.ground)}
    for way, group in [*(("direct", group) for group in GROUPS), *((way, "T") for way in ways)]:
        prompts = facts.prompts(group)
        pictures = data.paint(painter, [ways[way](p) if way in ways else p.text for p in prompts], seed)
        rows.append({**where, "arm": way, "group": group, **judged(plan, prompts, pictures, way == "direct")})
    return rows + asked(net, backwards=False, **where)


def late(plan: Plan, point: int, seed: int = 0) -> list[dict]:
    """One look at the long run, after so many steps: it goes on from its file."""
    file = cache_dir() / "runs" / f"ch09-long-{plan.steps}-{plan.long}-{plan.names}-{seed}.pt"
    data = make_data(plan, seed, max(plan.paraphrases), max(plan.readings))

    def read_on() -> Net:
        return read_facts(data, plan.steps * plan.long, seed, resume=file, until=point)
    net = read_on()
    if net.history.rows[-1]["step"] + 1 > point:                       # the file is past it: from the beginning
        file.unlink()
        net = read_on()
    run = {"run": "long", "step": point, "seed": seed}
    return (arms(plan, net, ("direct",), "TDEN", **run) + arms(plan, net, ("said_first",), "T", **run)
            + asked(net, "T", backwards=False, **run))


def reference(plan: Plan) -> dict:
    """The shipped model draws what it hears, directly and said first: one draft each, one hearing, the same sampling.
    `hits`: which of the words, in the same order for both."""
    from mmcourse.assistant import load
    from mmcourse.evaluate import Evaluation
    from mmcourse.world.scene import NOUNS as ALL
    e = Evaluation(load(), plan.reference, REFERENCE_SEED, progress=False)
    clips, words = e.speech
    kept = [i for i, word in enumerate(words) if word in ALL][:plan.reference]
    prompts, out = [[e.a.sound_segment(clips[i])] for i in kept], {"n": len(kept), "seed": REFERENCE_SEED}
    for way, say_first in (("direct", False), ("said first", True)):
        read = e.reader.read(e.paint(e.ask(prompts, "image", way, say_first=say_first, best_of=1)))
        hits = [bool(s and s.groups) and s.groups[0].noun == words[i] for s, i in zip(read, kept)]
        out[way] = {"k": sum(hits), "hits": "".join(str(int(hit)) for hit in hits)}
    return out


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The headline first; what may be missing in a hurry last."""
    def rows(name: str, measure, run: str, seed: int, **key) -> Job:
        more = run == "headline" and seed in plan.more                 # measured whichever seeds are asked for
        return Job(f"{name}, seed {seed} too" if more else name, measure, key={"run": run, "seed": seed, **key},
                   seed=None if more else seed)
    grid = [(p, r) for p in plan.paraphrases for r in plan.readings if (p, r) != (max(plan.paraphrases), max(plan.readings))]
    points = [plan.steps * plan.long * (i + 1) // plan.points for i in range(plan.points)]
    return [Job("reference", partial(reference, plan), section=()),
            *(rows("headline", partial(headline, plan, seed), "headline", seed) for seed in sorted({*seeds, *plan.more})),
            *(rows("formats", partial(formats, plan, seed), "formats", seed) for seed in seeds),
            *(rows(f"{p} x {r}", partial(cell, plan, p, r, seed), f"{p} x {r}", seed) for p, r in grid for seed in seeds),
            *(rows(f"D {name}", partial(share, plan, name, seed), f"D {name}", seed) for name in SHARES for seed in seeds),
            *(rows(run, partial(flow, plan, run, seed), run, seed) for run in FLOWS for seed in seeds),
            *(rows(f"long {point}", partial(late, plan, point), "long", 0, step=point) for point in points)]


def head(plan: Plan) -> dict:
    """The plan, and what the numbers rest on. (More seeds make no row another one.)"""
    decides = {name: value for name, value in asdict(plan).items() if name != "more"}
    return {"plan": {**decides, "rows": READ, "formats": FORMATS, "own": OWN, "shares": SHARES},
            "made_with": {name: checkpoints.identity(name)[:8] for name in ("bpe", "transformer")}}


TOY = Plan(steps=2, readings=(2, 4), paraphrases=(1, 2), further=1, long=2, points=2, names=48, kept_steps=(2, 2), reference=3,
           more=())
STUDY = Study("ch09_facts", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
