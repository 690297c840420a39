"""Many tokens in one pass: is it the same picture, in how many passes, and how much sooner? About 25 CPU minutes.

Captions of the test split, painted by the shipped transformer: one token at a time, all pictures of a batch together; by Jacobi
iteration, whose guess is what the model itself said last; with the guess of a small net (`drafter`). The last two go through
the model picture after picture, or `together`: then each waits for the slowest. Three ways to choose a token: the likeliest;
sampled at temperature 1; the same with guidance 1.5. Written down before it ran, but after a pilot of P2 to P4 on 16 captions
of validation:

- P1: the ids are those that come one at a time, with the same seed: in every picture, in each of the three ways to choose.
- P2: the likeliest token: Jacobi iteration needs at most a third of the passes, with a draft at most a tenth.
- P3: with a draft a single picture takes at most a third of the CPU seconds, in each of the three ways to choose.
- P4: sixteen pictures together are not painted sooner by either. One after another the drafted ones are, if the likeliest
  token is taken.
- P5: the drafter alone, which has a ninth of the weights, draws fewer scenes right than the model, by more than three points.
- P6: spoken words gain less: there is less to guess in a sound, so Jacobi needs more than half of the passes.
- P7 (added later): tokens drawn by the test of speculative sampling, and by a race, are distributed as the model says: the
  chi-square of `draws` tokens at each of `contexts` places lies within 3 standard deviations of what chance gives. A test that
  draws a refused token anew from the model, and not from what is left over, lies more than 10 above.

Rows: `same`: pictures and how many are equal, id by id; `cost`: at each batch size and way, passes of a batch, tokens that went
through the model, operations and CPU seconds, all of a picture, each way in turn on the same captions; `alone`: scenes right,
hit by hit, as templates read them; `others`: passes for other answers (their length is known here, as a picture's is always);
`agreement`: how often a draft would be taken by a race with common dice, and by the test of speculative sampling (Leviathan et
al. 2023), a token; `chi-square`: how far what each rule draws is from the model's distribution.
"""
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import painted
from mmcourse.generate import NextLogits, continue_rows, generate, modality_mask, paint_at_once, sample
from mmcourse.judges import PictureReader
from mmcourse.parallel import Draft, WindowLogits, continue_at_once
from mmcourse.studies import Job, Study
from mmcourse.studies._ch12 import matrices
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world.scene import WORDS, WORLD

TEST_SEED = 1201
CHOICES = {"the likeliest": (0.0, 1.0), "sampled": (1.0, 1.0), "sampled, guided": (1.0, 1.5)}      # temperature, guidance
WAYS = ("one at a time", "Jacobi", "drafted", "Jacobi, together", "drafted, together")


@dataclass(frozen=True)
class Plan:
    """What decides the numbers. `asked`: pictures that are compared, with each way to choose, `batch` at once; `timed`: of each
    size of `batches`."""
    asked: int = 1200
    batch: int = 16
    timed: int = 48
    batches: tuple[int, ...] = (1, 2, 4, 16)
    alone: int = 500
    others: int = 60
    split: str = "test"


class Painting:
    """The shipped transformer, the drafter, and captions."""

    def __init__(self):
        self.model, self.drafter, self.bpe = (checkpoints.load(name) for name in ("transformer", "drafter", "bpe"))
        self.vocabulary = Vocabulary(**checkpoints.manifest()["transformer"]["vocabulary"])

    def batches(self, n: int, size: int, split: str) -> list[list[list[Segment]]]:
        """Prompts of `n` scenes in batches of `size`, those of one length together."""
        dice, waiting, out = np.random.default_rng(TEST_SEED), {}, []
        while len(out) * size < n:
            ids = tuple(self.bpe.encode(" " + WORLD.caption(WORLD.sample(dice, split))))
            waiting.setdefault(len(ids), []).append([Segment("text", ids)])
            if len(waiting[len(ids)]) == size:
                out.append(waiting.pop(len(ids)))
        return out

    def paint(self, way: str, prompts: list[list[Segment]], temperature: float, guidance: float, seed: int) -> list[list[int]]:
        """Pictures for prompts of one length as rows of ids."""
        generator = torch.Generator().manual_seed(seed)
        if way != "one at a time":
            return paint_at_once(self.model, self.vocabulary, prompts, guidance, temperature, 0, 1.0, generator,
                                 self.drafter if way.startswith("drafted") else None, len(prompts) if "together" in way else 1)
        ids = torch.tensor([[*self.vocabulary.pack(prompt), OPEN["image"]] for prompt in prompts])
        return continue_rows(NextLogits(self.model, len(prompts), guidance), ids, self.vocabulary, "image", 64,
                             lambda logits: sample(logits, temperature, generator=generator))


@cache
def painting() -> Painting:
    """Loaded once."""
    return Painting()


@torch.no_grad()
def same(choice: str, plan: Plan) -> dict:
    """Pictures by each way, and how many are those that come one at a time; Jacobi iteration is slow, and paints a fifth."""
    p, out = painting(), {way: {"n": 0, "same": 0} for way in WAYS[1:3]}
    for number, prompts in enumerate(p.batches(plan.asked, plan.batch, plan.split)):
        one_by_one = p.paint(WAYS[0], prompts, *CHOICES[choice], seed=number)
        for way in WAYS[1:3] if number % 5 == 0 else WAYS[2:3]:
            out[way]["n"] += len(prompts)
            painted_so = p.paint(way, prompts, *CHOICES[choice], seed=number)
            out[way]["same"] += sum(a == b for a, b in zip(painted_so, one_by_one, strict=True))
    return out


class Counted:
    """Counts the passes through a module, by an embedding inside, and the tokens in them, while it is used."""

    def __init__(self, embedding: torch.nn.Embedding):
        self.embedding, self.passes, self.tokens = embedding, 0, 0

    def __enter__(self):
        self.handle = self.embedding.register_forward_hook(self.note)
        return self

    def note(self, module, given, out) -> None:
        self.passes, self.tokens = self.passes + 1, self.tokens + given[0].numel()

    def __exit__(self, *failed):
        self.handle.remove()


@torch.no_grad()
def cost(choice: str, size: int, plan: Plan) -> dict:
    """Passes (of a batch), tokens, operations in the weights and CPU seconds of a picture, each way."""
    p, (temperature, guidance) = painting(), CHOICES[choice]
    batches = p.batches(max(plan.timed, 2 * size), size, plan.split)
    spent = {way: {"passes": 0, "tokens": 0, "flops": 0, "cpu": 0.0} for way in WAYS}
    for way in WAYS:                                                    # warm, and unmeasured
        p.paint(way, batches[0], temperature, guidance, 0)
    for number, prompts in enumerate(batches):
        for way in WAYS:
            with Counted(p.model.token_embed) as large, Counted(p.drafter.code_embed) as small:
                start = time.process_time()
                p.paint(way, prompts, temperature, guidance, number)
            row = spent[way]
            row["cpu"] += time.process_time() - start
            row["passes"], row["tokens"] = row["passes"] + large.passes, row["tokens"] + large.tokens
            read = small.tokens * (1 + p.drafter.trunk.prompt / p.drafter.trunk.places)     # and the caption, each time
            row["flops"] += 2 * (matrices(p.model) * large.tokens + matrices(p.drafter) * read)
    n = len(batches) * size
    return {way: {"n": n, "passes": round(row["passes"] / len(batches), 2), "tokens": round(row["tokens"] / n, 1),
                  "flops": round(row["flops"] / n), "cpu": round(row["cpu"] / n, 5)} for way, row in spent.items()}


@torch.no_grad()
def alone(plan: Plan) -> dict:
    """Scenes right: drawn by the model, the likeliest each time, and by the drafter in one pass."""
    p, reader, dice = painting(), PictureReader(WORLD), np.random.default_rng(TEST_SEED)
    vqvae = checkpoints.load("vqvae")
    scenes = [WORLD.sample(dice, plan.split) for _ in range(plan.alone)]
    prompts = [[Segment("text", tuple(p.bpe.encode(" " + WORLD.caption(scene))))] for scene in scenes]
    drawn = {"model": generate(p.model, p.vocabulary, prompts, "image", temperature=0.0)}
    guessed = Draft(p.drafter, prompts)(torch.zeros(len(prompts), 64, dtype=torch.long), 0)
    drawn["drafter"] = [Segment("image", tuple(row)) for row in guessed.tolist()]
    seen = {name: reader.read(painted(vqvae, segments)) for name, segments in drawn.items()}
    equal = (torch.tensor([segment.ids for segment in drawn["model"]]) == guessed).double()        # (n, 64)
    return {"n": len(scenes), "tokens equal": round(equal.mean().item(), 4), "pictures equal": int(equal.prod(1).sum()),
            **{name: "".join(str(int(found == scene)) for found, scene in zip(read, scenes)) for name, read in seen.items()}}


@torch.no_grad()
def others(plan: Plan) -> dict:
    """Passes and tokens of other answers, the likeliest each time: words spoken, pictures described."""
    p, dice = painting(), np.random.default_rng(TEST_SEED)
    words = [[Segment("text", tuple(p.bpe.encode(" " + WORDS[i * 7 % len(WORDS)])))] for i in range(plan.others)]
    scenes = [WORLD.sample(dice, plan.split) for _ in range(plan.others)]
    captions = [[Segment("text", tuple(p.bpe.encode(" " + WORLD.caption(scene))))] for scene in scenes]
    pictures = [[picture] for picture in generate(p.model, p.vocabulary, captions, "image", temperature=0.0)]
    return {name: passes_for(p.model, asked, want, p.vocabulary)
            for name, asked, want in (("word", words, "audio"), ("caption", pictures, "text"))}


def passes_for(model, prompts: list[list[Segment]], want: str, vocabulary: Vocabulary, window: int = 16) -> dict:
    """Mean tokens of the answers, passes that Jacobi iteration needs for them, and how many it gives as they are."""
    found = {"n": len(prompts), "tokens": 0.0, "passes": 0.0, "same": 0}
    for prompt in prompts:
        (answer,) = generate(model, vocabulary, [prompt], want, temperature=0.0)
        row, limit = vocabulary.pack([answer]), 96 if want == "audio" else 48
        masks = torch.stack([modality_mask(vocabulary, want, i, limit) for i in range(len(row) - 1)])      # (N, V)

        def choose(logits, first, masks=masks):
            return logits.masked_fill(~masks[first:first + logits.shape[1]], -torch.inf).argmax(-1)
        logits_of = WindowLogits(model, 1)
        ids = torch.tensor([[*vocabulary.pack(prompt), OPEN[want]]])
        guess = torch.full((1, len(row) - 1), vocabulary.allowed(want, 0).start)
        again = continue_at_once(logits_of, ids, choose, guess, window)
        found["tokens"] += (len(row) - 1) / len(prompts)
        found["passes"] += logits_of.passes / len(prompts)
        found["same"] += again[0].tolist() == row[1:]
    return {**found, "tokens": round(found["tokens"], 2), "passes": round(found["passes"], 2)}


@torch.no_grad()
def agreement(plan: Plan) -> dict:
    """Along sampled pictures: the chance that a draft that knew only the caption is taken, by either rule, a token."""
    p, out = painting(), {"race": 0.0, "speculative": 0.0, "n": 0}
    codes = slice(p.vocabulary.ranges["image"].start, p.vocabulary.ranges["image"].stop)
    for number, prompts in enumerate(p.batches(plan.timed, 4, plan.split)):
        rows = p.paint("one at a time", prompts, 1.0, 1.0, number)
        ids = torch.tensor([[*p.vocabulary.pack(prompt), OPEN["image"], *row] for prompt, row in zip(prompts, rows)])
        target = p.model(ids[:, :-1])[:, -64:, codes].double().softmax(-1).flatten(0, 1)                  # (B * 64, codes)
        nothing = torch.full((len(prompts), 64), p.drafter.codes)
        draft = p.drafter(nothing, Draft(p.drafter, prompts).captions).double().softmax(-1).flatten(0, 1)
        out["speculative"] += torch.minimum(target, draft).sum(-1).sum().item()
        out["race"] += sum(map(both_first, target, draft))
        out["n"] += len(target)
    return {"n": out["n"], **{rule: round(out[rule] / out["n"], 4) for rule in ("race", "speculative")}}


CONTEXTS, DRAWS = 40, 20_000
OPEN_PROMPTS = ("three stars", "two cats", "a whale", "four apples")    # they do not name a ground: something is left to decide


@torch.no_grad()
def chi_square() -> dict:
    """How far the tokens that each rule draws, with the drafter's guesses, are from the model's distribution."""
    generator, out = torch.Generator().manual_seed(TEST_SEED), {}
    for target, draft in contexts(CONTEXTS):
        refused = (target - draft).clamp(min=0)
        rules = {"test": refused / refused.sum(), "wrong test": target}
        guesses = torch.multinomial(draft, DRAWS, replacement=True, generator=generator)
        taken = torch.rand(DRAWS, generator=generator, dtype=torch.double) < (target / draft)[guesses].clamp(max=1)
        drawn = {name: torch.where(taken, guesses, torch.multinomial(left, DRAWS, replacement=True, generator=generator))
                 for name, left in rules.items()}
        noise = torch.empty(DRAWS, len(target), dtype=torch.double).exponential_(generator=generator)
        drawn["race"] = (target / noise).argmax(-1)
        for name, tokens in drawn.items():
            value, df = pearson(torch.bincount(tokens, minlength=len(target)), target)
            each = out.setdefault(name, {"chi2": 0.0, "df": 0})
            each["chi2"], each["df"] = each["chi2"] + value, each["df"] + df
    return {"contexts": CONTEXTS, "draws": DRAWS,
            **{name: {"chi2": round(each["chi2"], 1), "df": each["df"],
                      "deviations": round((each["chi2"] - each["df"]) / (2 * each["df"])**0.5, 3)} for name, each in out.items()}}


def contexts(n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the model and the drafter say of the next token, (codes,) each, at random places of pictures whose prompt leaves
    something open."""
    p, dice, out = painting(), np.random.default_rng(TEST_SEED), []
    codes = slice(p.vocabulary.ranges["image"].start, p.vocabulary.ranges["image"].stop)
    for i in range(n):
        prompt = [Segment("text", tuple(p.bpe.encode(" " + OPEN_PROMPTS[i % len(OPEN_PROMPTS)])))]
        (picture,) = generate(p.model, p.vocabulary, [prompt], "image", seed=i)
        place = int(dice.integers(64))
        ids = torch.tensor([[*p.vocabulary.pack([prompt[0]]), OPEN["image"], *(codes.start + c for c in picture.ids[:place])]])
        known = torch.tensor([[*picture.ids[:place], *[p.drafter.codes] * (64 - place)]])
        out.append((p.model(ids)[0, -1, codes].double().softmax(-1),
                    p.drafter(known, Draft(p.drafter, [prompt]).captions)[0, place].double().softmax(-1)))
    return out


def pearson(counts: torch.Tensor, p: torch.Tensor, least: float = 5.0) -> tuple[float, int]:
    """Pearson's chi-square of counts (V,) against probabilities (V,), and its degrees of freedom; entries that are expected fewer
    than `least` times count as one."""
    expected = p * counts.sum()
    rare = expected < least
    seen, due = (torch.cat([x[~rare].double(), x[rare].sum()[None].double()]) for x in (counts, expected))
    if due[-1] < least:                                                 # still too few: with the next rarest
        order = due[:-1].argmin()
        seen[order], due[order] = seen[order] + seen[-1], due[order] + due[-1]
        seen, due = seen[:-1], due[:-1]
    return ((seen - due)**2 / due).sum().item(), len(due) - 1


def both_first(p: torch.Tensor, q: torch.Tensor, least: float = 1e-9) -> float:
    """The chance that two races with common dice have the same winner: the sum over i of
    1 / sum over j of max(p_j / p_i, q_j / q_i)."""
    kept = torch.minimum(p, q) > least
    ratios = torch.maximum(p[None] / p[kept][:, None], q[None] / q[kept][:, None])                        # (kept, codes)
    return (1 / ratios.sum(-1)).sum().item()


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Equal ids first."""
    return [*(Job(f"same, {choice}", partial(same, choice, plan), ("same",), choice) for choice in CHOICES),
            *(Job(f"cost, {choice}, {size}", partial(cost, choice, size, plan), ("cost", choice), str(size))
              for choice in CHOICES for size in plan.batches),
            *(Job(each.__name__, partial(each, plan), ()) for each in (alone, others, agreement)),
            Job("chi-square", chi_square, ())]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": {name: checkpoints.identity(name)[:8]
                                                for name in ("transformer", "drafter", "vqvae")}}


TOY = Plan(asked=2, batch=2, timed=2, batches=(1, 2), alone=8, others=1, split="validation")
STUDY = Study("ch12_parallel", Plan(), TOY, jobs, head, minutes=True)
main = STUDY.run
