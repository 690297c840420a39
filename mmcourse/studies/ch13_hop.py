"""Where does the second hop of chapter 09 die? About 8 CPU minutes.

Nets as in the headline of `ch09_facts` (8 paraphrases, 64 readings), three seeds. What a name of T is they say when they are
asked, and they draw something else; names of D they draw. Written down before it ran, after a pilot of one seed (without
P5):

- P1: the noun can be read (lens, .95) where an answer to the question is about to be said, for names of T as of D.
- P2: it cannot at the name's own last piece, in no layer: a probe that was taught on D finds the noun of T names in fewer than
  30 %. (What stands before a name is alike in question and caption, so its state is the same in both: nothing there could be
  resolved in one and not in the other.)
- P3: where a picture is about to begin, the probe finds the nouns of other names of D in 60 % at least, of T in fewer than 35 %:
  there the first hop is not late, it is not taken.
- P4: after the first block nobody reads the name any more: the noun's state put in its place there changes no share of right
  pictures by more than 5 points, for T and D.
- P5: put in all places after the name, from the first block on, the noun's states make the pictures of T right, 80 % at least.
- P6 (hopping too late, Biran et al. 2024, 2406.12775): no back-patch helps: not the state that is about to say the noun, nor that
  of the opening picture, from a later layer into an earlier one, at the name or at the opening: the best of them, chosen on half
  of the T names, is within 10 points of no patch on the other half, and of the same patch with another name's state.

- P7 (written after P1 to P6 had run with seed 0, where P5 failed at 44 %, and before it ran itself): there are two ways from a
  name to its picture, and D needs both: right pictures of D fall by 20 points at least if the picture's own tokens may not look
  at the name, and if what stands after it may not; if neither may, they are at chance (15 % at most). And with the noun's states
  after the name *and* no look of the picture's tokens at it, the pictures of T are right, 80 % at least.

So the verdict that is expected: the first hop is taken where a question asks for it and only there; a picture reads the name
itself, at once, and has learned what to do with the names of D one by one.

Rows, for each seed. `read`: `asked` and `drawn`, shares that are right for each group; `lens` and `probe`, shares by context and
spot for each group, layer by layer (the first: what enters the first block); a probe is taught on all names of D, and for `D`
itself on four fifths of them at a time. `patched`: right pictures with the noun's states in place of the name's (`name`) or of
all that follow it (`after`), after each part; `own`: with no patch. `back`: right pictures of the names of T that decide, for
each source, layer, spot and part; `best`: the best, on the other names, with `another` name's state, and with none (`own`).
`cut`: right pictures if the picture's tokens, or those after the name, or both, may not look at the name in any layer.
"""
import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmcourse import checkpoints
from mmcourse.experiments.inside import cut, looking, no_look, states, stream
from mmcourse.generate import generate
from mmcourse.paths import cache_dir
from mmcourse.studies import Job, Study, ch09_facts
from mmcourse.studies._ch09 import Net, read_facts, read_scenes
from mmcourse.studies.ch09_facts import Plan, halves_of
from mmcourse.vocabulary import OPEN
from mmcourse.world.facts import GROUPS, NOUNS, Prompt, question_of

SPOTS = {"question": ("name", "next", "opens", "says"), "caption": ("name", "next", "opens")}
SOURCES = (*(("question", "says", layer) for layer in (1, 2, 3)), *(("caption", "opens", layer) for layer in (2, 3)))
TARGETS = (("name", "embed"), ("name", "blocks.0"), ("opens", "embed"), ("opens", "blocks.0"), ("opens", "blocks.1"))
READERS = {"after": lambda length, name, context: range(name + 1, length),                       # places in a caption's row
           "pictures": lambda length, name, context: range(length, context)}
FOLDS = 5                               # of the D names, for their own probe


@cache
@torch.enable_grad()
def net_of(seed: int, plan: Plan) -> Net:
    """A net as in the headline of chapter 09: made once, kept in the cache."""
    file = cache_dir() / "runs" / f"ch13-hop-{plan.steps}-{plan.names}-{seed}.pt"
    data = ch09_facts.make_data(plan, seed, max(plan.paraphrases), max(plan.readings))
    return read_facts(data, plan.steps, seed, resume=file)


# ---------------------------------------------------------------- where things stand

def spots(net: Net, context: str, prompt: Prompt) -> tuple[list[int], dict[str, int]]:
    """A row of ids with a name, and positions in it: the name's last piece, what comes next, what opens the answer; in a question
    also the answer's `a`, where the noun is about to be said."""
    data, name = net.data, len(net.data.text(f"a {prompt.name}").ids)
    if context == "caption":
        row = [*data.vocabulary.pack([data.text(prompt.text)]), OPEN["image"]]
        return row, {"name": name, "next": name + 1, "opens": len(row) - 1}
    row = [*data.vocabulary.pack([data.text(question_of(prompt.name))]), OPEN["text"], *data.vocabulary.shift(data.text("a"))]
    return row, {"name": name, "next": name + 1, "opens": len(row) - 2, "says": len(row) - 1}


def run_of(net: Net, row: list[int]) -> torch.Tensor:
    """The residual stream of one row: (layers + 1, T, C)."""
    return torch.stack(list(states(net.model, torch.tensor([row])).values()))[:, 0]


def states_at(net: Net, context: str, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    """At each spot: (layers + 1, N, C)."""
    out: dict[str, list[torch.Tensor]] = {spot: [] for spot in SPOTS[context]}
    for prompt in prompts:
        row, where = spots(net, context, prompt)
        found = run_of(net, row)
        for spot, at in where.items():
            out[spot].append(found[:, at])
    return {spot: torch.stack(each, 1) for spot, each in out.items()}


def nouns_of(prompts: Sequence[Prompt]) -> np.ndarray:
    """The numbers of their nouns."""
    return np.array([NOUNS.index(prompt.noun) for prompt in prompts])


# ---------------------------------------------------------------- what the states say

def lens(net: Net, x: torch.Tensor) -> np.ndarray:
    """Which of the twelve nouns is the likeliest next token, read as the last block's state would be: (N, C) -> (N,)."""
    first = [net.data.vocabulary.shift(net.data.text(noun))[0] for noun in NOUNS]
    with torch.no_grad():
        return net.model.head(net.model.norm(x))[:, first].argmax(1).numpy()


def probe(x: torch.Tensor, nouns: np.ndarray):
    """A linear probe that was taught which noun a state belongs to."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1)).fit(x.numpy(), nouns)


def probed(found: dict[str, torch.Tensor], prompts: dict[str, list[Prompt]]) -> dict[str, float]:
    """States of each group at one spot and layer (N, C) -> how many nouns a probe finds that was taught on D; of D itself for
    names that it was not taught."""
    names = list(dict.fromkeys(prompt.name for prompt in prompts["D"]))
    fold = np.array([names.index(prompt.name) % FOLDS for prompt in prompts["D"]])
    nouns, hits = nouns_of(prompts["D"]), []
    for k in range(FOLDS):
        taught = probe(found["D"][fold != k], nouns[fold != k])
        hits += [*(taught.predict(found["D"][fold == k].numpy()) == nouns[fold == k])]
    taught = probe(found["D"], nouns)
    return {"D": share(hits), **{group: share(taught.predict(found[group].numpy()) == nouns_of(prompts[group]))
                                 for group in GROUPS if group != "D"}}


def share(hits) -> float:
    """A share, rounded."""
    return round(float(np.mean(hits)), 4)


def said_by_states(seed: int, plan: Plan) -> dict:
    """A row of `read`: what net and names are like, and what lens and probe find in each context, spot and layer."""
    net = net_of(seed, plan)
    facts, out = net.data.facts, {"asked": {}, "drawn": {}, "lens": {}, "probe": {}}
    prompts = {group: facts.prompts(group) for group in GROUPS}
    for group in GROUPS:
        names = facts.of(group)
        out["asked"][group] = share([said == f"a {facts.noun(name)}" for name, said in
                                     zip(names, net.ask([question_of(name) for name in names]))])
        out["drawn"][group] = right(prompts[group], drawn(net, prompts[group]))
    for context, places in SPOTS.items():
        found = {group: states_at(net, context, each) for group, each in prompts.items()}
        for spot in places:
            here = [{group: found[group][spot][layer] for group in GROUPS} for layer in range(len(net.model.blocks) + 1)]
            read = [{group: share(lens(net, each[group]) == nouns_of(prompts[group])) for group in GROUPS} for each in here]
            told = [probed(each, prompts) for each in here]
            for what, layers in (("lens", read), ("probe", told)):
                out[what][f"{context}, {spot}"] = {group: [each[group] for each in layers] for group in GROUPS}
    return out


# ---------------------------------------------------------------- pictures with other states

def drawn(net: Net, prompts: Sequence[Prompt], part: str = "", places: Sequence[Sequence[int]] = (),
          donors: Sequence[torch.Tensor] = (), cut_from: Sequence[str] = ()) -> list[str]:
    """The nouns that are drawn after captions, the likeliest tokens; for each prompt `donors` (places, C) stand at its `places`
    after a part; and these `READERS` may not look at the name, in any layer."""
    shapes, said = [], [""] * len(prompts)
    for prompt in prompts:
        row, where = spots(net, "caption", prompt)
        shapes.append((len(row), where["name"]))
    for shape in sorted({*shapes}):
        here, waiting = [i for i, each in enumerate(shapes) if each == shape], [True]

        def look(name, x, here=here, waiting=waiting):
            if name == part and (waiting or cut_from):                  # with a cache the prompt is in the first pass alone
                waiting.clear()
                x = x.clone()
                for row, i in enumerate(here):
                    x[row, list(places[i])] = donors[i]
                return x
        readers = [i for reader in cut_from for i in READERS[reader](*shape, net.model.context)]
        blocked = no_look(net.model.context, readers, range(2, shape[1] + 1)) if readers else None
        away = contextlib.nullcontext() if blocked is None else cut(net.model, blocked)
        with looking(net.model, look), away:
            asked = [[net.data.text(prompts[i].text)] for i in here]
            images = generate(net.model, net.data.vocabulary, asked, "image", temperature=0.0, use_cache=not readers)
        for i, scene in zip(here, read_scenes(net.paint(images))):
            said[i] = scene.groups[0].noun
    return said


def right(prompts: Sequence[Prompt], said: Sequence[str]) -> float:
    """The share of pictures with the noun that the name is."""
    return share([noun == prompt.noun for noun, prompt in zip(said, prompts)])


def told_runs(net: Net, prompts: Sequence[Prompt]) -> list[dict[str, tuple]]:
    """For each prompt places in its row, and the states (layers + 1, places, C) that the caption with the noun has there: of the
    name's last piece, and of what comes `after` it, which is alike and counted from the end."""
    out = []
    for prompt in prompts:
        row, name = spots(net, "caption", prompt)
        told, noun = spots(net, "caption", Prompt(prompt.noun, prompt.noun, prompt.place, prompt.ground))
        run, after = run_of(net, told), len(row) - 1 - name["name"]
        out.append({"name": ([name["name"]], run[:, [noun["name"]]]),
                    "after": (range(len(row) - after, len(row)), run[:, -after:])})
    return out


def patched(seed: int, plan: Plan) -> dict:
    """A row of `patched`: the states of the caption with the noun in that with the name."""
    net, out = net_of(seed, plan), {}
    for group in ("T", "D"):
        prompts = net.data.facts.prompts(group)
        runs = told_runs(net, prompts)
        out[group] = {"own": right(prompts, drawn(net, prompts))}
        for where in ("name", "after"):
            places = [each[where][0] for each in runs]
            out[group][where] = [right(prompts, drawn(net, prompts, part, places, [each[where][1][layer] for each in runs]))
                                 for layer, part in enumerate(stream(net.model))]
    return out


def cut_off(seed: int, plan: Plan) -> dict:
    """A row of `cut`: right pictures if some may not look at the name; with the noun's states `after` it from block 1 on, too."""
    net, out = net_of(seed, plan), {}
    for group in ("T", "D"):
        prompts = net.data.facts.prompts(group)
        runs = [each["after"] for each in told_runs(net, prompts)]
        noun = ("blocks.0", [places for places, _ in runs], [states[1] for _, states in runs])
        out[group] = {" and ".join(readers): right(prompts, drawn(net, prompts, cut_from=readers))
                      for readers in (("pictures",), ("after",), ("after", "pictures"))}
        out[group]["pictures, the noun after"] = right(prompts, drawn(net, prompts, *noun, cut_from=("pictures",)))
    return out


def back(seed: int, plan: Plan) -> dict:
    """A row of `back`: states of later layers in earlier ones, names of T."""
    net = net_of(seed, plan)
    deciding, others = halves_of(net.data.facts)

    def right_with(names: Sequence[str], source: tuple, target: tuple, donors: Sequence[str] | None = None) -> float:
        (context, spot, layer), (where, part) = source, target
        prompts = [p for p in net.data.facts.prompts("T") if p.name in names]
        givers = dict(zip(names, donors or names))
        found = states_at(net, context, [Prompt(givers[p.name], p.noun, p.place, p.ground) for p in prompts])[spot][layer]
        places = [[spots(net, "caption", p)[1][where]] for p in prompts]
        return right(prompts, drawn(net, prompts, part, places, [x[None] for x in found]))
    tried = {(source, target): right_with(deciding, source, target) for source in SOURCES for target in TARGETS}
    (source, target), best = max(tried.items(), key=lambda each: each[1])
    rest = [p for p in net.data.facts.prompts("T") if p.name in others]
    shifted = [*others[len(others) // 2:], *others[:len(others) // 2]]  # of another noun: names are in the order of the nouns
    return {"tried": {f"{' '.join(map(str, a))} -> {' '.join(b)}": hits for (a, b), hits in tried.items()},
            "best": {"source": list(source), "target": list(target), "deciding": best,
                     "others": right_with(others, source, target), "another": right_with(others, source, target, shifted),
                     "own": right(rest, drawn(net, rest))}}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Reading and patching with every seed."""
    measures = {"read": said_by_states, "patched": patched, "back": back, "cut": cut_off}
    return [Job(f"{name}, seed {seed}", partial(measure, seed, plan), (name,), str(seed), seed=seed)
            for seed in seeds for name, measure in measures.items()]


def head(plan: Plan) -> dict:
    """The plan, as far as it counts here, and the tokenizer."""
    return {"plan": {name: asdict(plan)[name] for name in ("steps", "names", "kept_steps")},
            "made with": {"bpe": checkpoints.identity("bpe")[:8]}}


STUDY = Study("ch13_hop", Plan(), ch09_facts.TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
