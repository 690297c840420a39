"""Who writes words in pictures? Four painters with one trunk, three prompts. About 4 CPU hours.

The painters differ in how they paint (in order; all at once, the surest first; from noise, on pixels; from noise,
on latents) and in nothing else: the same trunk, the same batches, the same training FLOPs. Written down before the
study ran, with the sign that was expected, but after first pilots of one seed (of the painter in order with letters and
with pieces):

- H1 (prompt): on new words with a piece that was never drawn, letters beat pieces by far more than any painter
  beats another: who knows no spelling cannot write.
- H2 (paradigm): at this low compute the painter that goes in order spells best with letters (2405.13218 has
  next-token ahead at equal FLOPs).
- H3 (both): pieces do not harm where letters are told too: both = letters within five points on new words.
- H4 (data): with 2,000 pictures repeated the order turns: masked above in order (2507.15857 has it so).
- H5 (tokenizer): off the token grid the painters on tokens lose more words than the flow on pixels.
- H6 (search): at equal passes, the best of n by its own score helps the painter that goes in order most
  (2509.24974).

Guidance and the number of steps of each painter are chosen on validation words, once, with seed 0 (`settings`).
Test words: 200 that were drawn in training, and all of the held-out test words. Reports: `SignReader`, trained on
other typefaces; audit: an OCR engine on every third word.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.experiments.sign_data import ARMS, decode_latents, draft, score
from mmcourse.experiments.spelling import PROMPTS, STRATA, asked_words, prompt_ids, stratum
from mmcourse.judges.metrics import count_flops, cpu_milliseconds
from mmcourse.judges.pictures import read_sign
from mmcourse.judges.signs import edit_distance, ocr_word
from mmcourse.recipes.sign_painters import FLOPS, OPTIM, Case, Size, make, painter, step_flops, tokenizer
from mmcourse.studies import Job, Study
from mmcourse.studies._ch08 import paint, picture
from mmcourse.world.scene import BACKGROUNDS, WORLD
from mmcourse.world.signs import LENGTHS, MOVED, ROWS, draw_signs, sign_scene, words_of

AUDITED = 3                             # every third word is read by the OCR engine too
SEEN = 200                              # words of the test that were drawn in training
GUIDANCES = (1.0, 2.0, 3.0)
STEPS = (4, 8, 16)
UNIQUE = (2_000, 20_000)
MORE_SEEDS = (3, 4)                     # of the two painters that H4 compares: their trainings differ widely
DRAFTS = (1, 2, 4, 8)
LONGER = 4                              # times the training FLOPs
SEARCHED = 200                          # new words of the search
PIPED, PIPE_SEED = 300, 1800            # signs of the shipped pipe, and a seed that nobody looked at before


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    flops: float = FLOPS                # of training, a painter
    size: Size = field(default_factory=Size)
    words: int | None = None            # of each kind in the test; None: all. For a toy
    scored: int = 8                     # passes in which a painter on tokens or a flow marks a draft


# ---------------------------------------------------------------- training

@cache
def steps_of(case: Case, plan: Plan) -> int:
    """As many steps as the plan's FLOPs pay."""
    return max(1, round(plan.flops / step_flops(case, plan.size)))


def trained(case: Case, plan: Plan):
    """A trained painter, and what is known of its training."""
    return painter(case, plan.size, steps_of(case, plan))


# ---------------------------------------------------------------- words to write, and reading them

@cache
def reader():
    """The judge that reports."""
    return checkpoints.load("sign_judge")


def test_words(plan: Plan) -> list[str]:
    """Words that were drawn in training, then all held-out test words; the same for everyone."""
    return asked_words(SEEN, plan.words)


def validation_words(plan: Plan) -> tuple[str, ...]:
    """Held-out words that no published figure is read from."""
    return words_of("validation")[:plan.words]


def prompts_of(words: Sequence[str], prompt: str) -> torch.Tensor:
    """A prompt for each word (n, places), grounds and rows in turn."""
    grounds = list(BACKGROUNDS)
    return torch.tensor([prompt_ids(word, prompt, grounds[i % len(grounds)], ROWS[i % len(ROWS)])
                         for i, word in enumerate(words)])


def written(model, case: Case, plan: Plan, words: Sequence[str], setting: dict, seed: int = 0) -> torch.Tensor:
    """What a painter makes of words: (n, 3, 32, 64)."""
    return paint(model, case, plan.size, prompts_of(words, case.prompt), setting, 1000 * case.seed + seed)


def share_right(pictures: torch.Tensor, words: Sequence[str]) -> float:
    """Of the words, how many the judge reads letter for letter."""
    return float(np.mean([a == b for a, b in zip(reader().read(pictures), words)]))


def marked(pictures: torch.Tensor, words: Sequence[str]) -> dict:
    """What judge and audit say of pictures of words: counts by stratum, length and place, and each word's mark."""
    said, kinds = reader().read(pictures), [stratum(word) for word in words]
    right = [a == b for a, b in zip(said, words)]
    heard = {i: ocr_word(pictures[i]) == words[i] for i in range(0, len(words), AUDITED)}
    out = {"words": {}, "letters": {}, "audit": {}, "agree": sum(heard[i] == right[i] for i in heard)}
    for kind in STRATA:
        own = [i for i, k in enumerate(kinds) if k == kind]
        out["words"][kind] = [sum(right[i] for i in own), len(own)]
        out["letters"][kind] = [sum(edit_distance(said[i], words[i]) for i in own), sum(len(words[i]) for i in own)]
        out["audit"][kind] = [sum(heard[i] for i in own if i in heard), sum(i in heard for i in own)]
    new = [i for i, k in enumerate(kinds) if k != STRATA[0]]
    out["by_length"] = {str(n): [sum(right[i] for i in new if len(words[i]) == n),
                                 sum(len(words[i]) == n for i in new)] for n in LENGTHS}
    out["by_place"] = [[sum(said[i][p:p + 1] == words[i][p] for i in new if len(words[i]) > p),
                        sum(len(words[i]) > p for i in new)] for p in range(max(LENGTHS))]
    return out | {"marks": "".join(str(int(r)) for r in right)}


# ---------------------------------------------------------------- the rows

def tried(plan: Plan, case: Case, words: Sequence[str], steps: Sequence[int]) -> list[dict]:
    """The share of words that a painter writes right at each guidance and number of steps."""
    model, _ = trained(case, plan)
    return [{"guidance": g, "steps": n, "right": round(share_right(written(
             model, case, plan, words, {"guidance": g, "steps": n}), words), 4)}
            for g in GUIDANCES for n in ((0,) if case.arm == ARMS[0] else steps)]


def settings(plan: Plan, arm: str) -> dict:
    """The share of validation words that a painter writes right at each guidance and number of steps, and the
    best of them (of equal ones that with fewer passes)."""
    case, words = Case(arm), validation_words(plan)
    table = tried(plan, case, words, STEPS)
    best = max(table, key=lambda row: (row["right"], -row["steps"] * (1 + (row["guidance"] > 1)), -row["guidance"]))
    return {"n": len(words), "table": table, "chosen": {key: best[key] for key in ("guidance", "steps")}}


def row(plan: Plan, case: Case, result: dict) -> dict:
    """One painter: trained, and read on the test words."""
    (model, saved), words = trained(case, plan), test_words(plan)
    marks = marked(written(model, case, plan, words, result["settings"][case.arm]["chosen"]), words)
    return {**asdict(case), **marks, "steps": steps_of(case, plan), "loss": round(saved["loss"], 4),
            "cpu_minutes": round(saved["minutes"], 3)}


def settings_for(plan: Plan, case: Case) -> dict:
    """Might other settings help where the study takes those of `settings`? The share right of 100 training words that
    the test does not have, at each guidance and number of steps."""
    taken = set(test_words(plan))
    words = [word for word in words_of("train") if word not in taken][::20][:plan.words or 100]
    return {"n": len(words), "table": tried(plan, case, words, (*STEPS, 32))}


def longer(plan: Plan, arm: str, result: dict) -> dict:
    """A painter that is told pieces, trained `LONGER` times as long: who is ahead at low compute need not stay
    ahead. Seed 0."""
    case, words = Case(arm, "bpe"), test_words(plan)
    steps = max(1, round(LONGER * steps_of(case, plan)))
    model, saved = painter(case, plan.size, steps)
    marks = marked(written(model, case, plan, words, result["settings"][arm]["chosen"]), words)
    return {"arm": arm, "prompt": "bpe", "factor": LONGER, "words": marks["words"], "marks": marks["marks"], "steps": steps,
            "cpu_minutes": round(saved["minutes"], 3)}


def ceiling(plan: Plan, moved: bool) -> dict:
    """True pictures of the test words, read as they are, after the token ids, and after the unquantised latents."""
    rng, words, vqvae = np.random.default_rng(17), test_words(plan), tokenizer(moved, plan.size)
    grounds = list(BACKGROUNDS)
    off = rng.integers(-MOVED, MOVED + 1, (len(words), 2)) * moved
    truth = draw_signs([sign_scene(word, grounds[rng.integers(8)], ROWS[rng.integers(3)], tuple(d.tolist()))
                        for word, d in zip(words, off)])
    with torch.no_grad():
        ways = {"true": truth, "tokens": vqvae.decode(vqvae.encode(truth)),
                "latents": decode_latents(vqvae.vectors(truth).flatten(1, 2), vqvae)}
    return {name: marked(pictures, words) for name, pictures in ways.items()}


# ---------------------------------------------------------------- search, prices, the shipped pipe

def passes_of(arm: str, setting: dict, drafts: int, plan: Plan) -> int:
    """Calls of the network for the best of some drafts: to paint each, twice a step under guidance, and to mark
    it. One draft needs no mark."""
    steps = 32 if arm == ARMS[0] else setting["steps"]
    marks = 0 if drafts == 1 else 1 if arm == ARMS[0] else plan.scored
    return drafts * (steps * (1 + (setting["guidance"] > 1)) + marks)


def search(plan: Plan, arm: str, prompt: str, seed: int, result: dict) -> dict:
    """New words right if of 1, 2, 4, ... drafts that one is taken which the painter's own score likes best; and if
    the judge itself might choose, which no score can beat. (Told pieces, only the arm that goes in order writes
    anything that could be chosen.)"""
    case, setting = Case(arm, prompt, seed=seed), result["settings"][arm]["chosen"]
    (model, _), words = trained(case, plan), words_of("test")[:plan.words or SEARCHED]
    prompts = prompts_of(words, prompt)
    scores, right = [], []
    for k in range(max(DRAFTS)):
        drafts = draft(model, arm, prompts, **setting, generator=torch.Generator().manual_seed(90_000 + 100 * seed + k))
        scores.append(score(model, arm, prompts, drafts, plan.scored))
        said = reader().read(picture(drafts, case, plan.size))
        right.append(torch.tensor([a == b for a, b in zip(said, words)]))
    scores, right = torch.stack(scores), torch.stack(right)                        # (drafts, words)
    best = {n: right[:n].gather(0, scores[:n].argmax(0)[None])[0] for n in DRAFTS}
    return {"arm": arm, "prompt": prompt, "seed": seed, "n": len(words),
            "rows": [{"drafts": n, "passes": passes_of(arm, setting, n, plan), "right": int(best[n].sum()),
                      "possible": int(right[:n].any(0).sum()), "marks": "".join(str(int(r)) for r in best[n])}
                     for n in DRAFTS]}


def price(plan: Plan, arm: str, result: dict) -> dict:
    """What one picture costs: calls of the network, multiplications and additions, CPU milliseconds; tokenizer's
    decoder included."""
    case, setting = Case(arm), result["settings"][arm]["chosen"]
    model, prompt = make(case, plan.size).eval(), torch.tensor([prompt_ids("picture", "both")])

    def one(seed: int = 0) -> torch.Tensor:
        return paint(model, case, plan.size, prompt, setting, seed)
    return {**setting, "passes": passes_of(arm, setting, 1, plan), "flops": count_flops(one),
            "ms": round(cpu_milliseconds(one, calls=8), 1), "parameters": sum(p.numel() for p in model.parameters()),
            "step_flops": {prompt: step_flops(Case(arm, prompt), plan.size) for prompt in PROMPTS}}


def pipe(plan: Plan) -> dict:
    """The shipped model writes signs on held-out scenes, one draft each: whose pixels can the OCR engine read,
    the plain decoder's or the diffusion decoder's? Of the same tokens; and of the true pictures' tokens."""
    from mmcourse.assistant import load
    rng, scenes, assistant = np.random.default_rng((PIPE_SEED, 8)), [], load()
    while len(scenes) < (plan.words or PIPED):
        if (scene := WORLD.sample(rng, "test")).sign:
            scenes.append(scene)
    written_ids = torch.tensor([assistant.tokens(WORLD.caption(scene), "image", PIPE_SEED + i, best_of=1).ids
                                for i, scene in enumerate(scenes)]).view(-1, 8, 8)
    out = {"n": len(scenes), "seed": PIPE_SEED}
    for name, ids in {"written": written_ids, "true": assistant.vqvae.encode(WORLD.draw(scenes))}.items():
        for decoder in ("vq", "diffusion"):
            pictures = assistant.pixels(ids, decoder, seed=PIPE_SEED)
            marks = [read_sign(picture) == scene.sign for picture, scene in zip(pictures, scenes)]
            out[f"{name}, {decoder}"] = "".join(str(int(mark)) for mark in marks)
    return out


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Settings first; then the grid of painters and prompts, boards off the grid, few pictures."""
    out = [Job(f"ceiling, {name}", partial(ceiling, plan, moved), section=("ceilings",), key=name)
           for name, moved in (("on the grid", False), ("off the grid", True))]
    out += [Job(f"settings, {arm}", partial(settings, plan, arm), section=("settings",), key=arm) for arm in ARMS]
    cases = [Case(arm, prompt, seed=seed) for seed in seeds for prompt in ("letters", "bpe", "both") for arm in ARMS]
    cases += [Case(arm, moved=True, seed=seed) for seed in seeds for arm in ARMS]
    cases += [Case(arm, unique=n, seed=seed) for seed in seeds for n in UNIQUE for arm in ARMS]
    out += [Job(name_of(case), partial(row, plan, case), key=asdict(case), seed=case.seed, derived=True) for case in cases]
    more = [Case(arm, unique=UNIQUE[0], seed=seed) for seed in MORE_SEEDS for arm in ARMS[:2]]
    out += [Job(f"{name_of(case)}, seed {case.seed}", partial(row, plan, case), key=asdict(case), derived=True) for case in more]
    out += [Job(f"search, {arm}, {prompt}", partial(search, plan, arm, prompt, seed), section=("search",), seed=seed,
                key={"arm": arm, "prompt": prompt, "seed": seed}, derived=True)
            for seed in seeds for prompt in ("letters", "bpe") for arm in (ARMS if prompt == "letters" else ARMS[:1])]
    out += [Job(f"price, {arm}", partial(price, plan, arm), section=("price",), key=arm, derived=True) for arm in ARMS]
    out += [Job(f"settings for pieces, {arm}", partial(settings_for, plan, Case(arm, "bpe")), section=("settings_bpe",), key=arm)
            for arm in ARMS]
    out += [Job(f"settings off the grid, {arm}", partial(settings_for, plan, Case(arm, moved=True, seed=1)),
                section=("settings_moved",), key=arm) for arm in ARMS]
    out += [Job(f"{LONGER} times the FLOPs, {arm}", partial(longer, plan, arm), derived=True, section=("longer",),
                key={"arm": arm, "prompt": "bpe", "factor": LONGER}) for arm in ARMS]
    return [*out, Job("pipe", partial(pipe, plan), section=(), key="pipe")]


def name_of(case: Case) -> str:
    """`in order, bpe`; with what else is not as usual."""
    more = ["off the grid"] * case.moved + [f"{case.unique} pictures"] * bool(case.unique)
    return ", ".join([case.arm, case.prompt, *more])


def head(plan: Plan) -> dict:
    """The plan, how large the painters are, the tokenizer and the judge."""
    return {"plan": asdict(plan), "optim": asdict(OPTIM), "seen": SEEN, "audited": AUDITED, "prompts": dict(PROMPTS),
            "made_with": {name: checkpoints.identity(name)[:8] for name in ("sign_vqvae", "sign_judge")}}


STUDY = Study("ch08_words", Plan(), Plan(flops=1.0, size=Size(width=16, layers=1, heads=2, batch=4, pictures=200, tokenizer=2),
                                         words=4), jobs, head, seeds=(0, 1, 2))
main = STUDY.run
