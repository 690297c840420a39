"""May a token leave the model early? And can the model's first blocks draft for the others? About 20 CPU minutes.

To the shipped transformer, which stays as it is, exits are added (`experiments.exits`): after each of its first five blocks a
matrix that says what the last block would say, and a gate that knows whether to trust it. Three seeds of the exits. Written down
before it ran, after a pilot of D1 and D4 on 64 captions of validation:

- D1: at 99 % agreement with the last block (the threshold is chosen on validation) a token of a picture leaves after at most
  half of the blocks on average; one of a sound goes through more than five of the six.
- D2: a gate needs at least half a block less than the best depth for each place (`place`, chosen on validation, which knows
  nothing of the token), for pictures.
- D3: for pictures and captions the gate saves a quarter of the operations at least, keys and values of skipped blocks, the gates
  and the head counted; asking what would be said and how sure that is (`confidence`) saves less, as each look needs the head.
- D4: with the gate of D1 scenes drawn are right as often as at full depth, within 3 points; with one chosen for 95 % they are
  not.
- D5: drafts from the first blocks change no id, and a picture, a caption and a word come sooner than one token at a time.
- D6: a picture comes later than with the drafter of `ch12_parallel`, which looks once.

Rows: `traced`: along true answers of the test split, at the threshold chosen on validation, for each way the mean `blocks` of a
token, the share `same` as the last block's choice, `operations` relative to full depth; `curve`: blocks and same at other
thresholds; `each`: the share after each block; `ceiling`: mean blocks until the choice is first the last one's. `answered`:
answers that really leave early, hit by hit, as the report judges read them. `drafted`: passes of the model and of the draft,
operations and CPU seconds relative to one token at a time, and how many answers are the same, id by id.
"""
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import painted, sounded
from mmcourse.dataset import Clips, Mixture, heard_clips, image_tokens, speech_tokens, training_scenes
from mmcourse.experiments.exits import ExitHeads, ShallowDraft, exit_loss, layer_states, shallow, with_exits
from mmcourse.experiments.practice import voice_split
from mmcourse.generate import NextLogits, content_limit, continue_rows, modality_mask, paint_at_once
from mmcourse.judges import PictureReader
from mmcourse.judges.hearing import stack
from mmcourse.optim import Optim
from mmcourse.parallel import WindowLogits, continue_at_once
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch12 import matrices
from mmcourse.training import Run, train
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import WORDS, WORLD
from mmcourse.world.speech import load_speech

TEST_SEED = 1206
ANSWERS = ("picture", "caption", "word")
WANT = {"picture": "image", "caption": "text", "word": "audio"}
WAYS = ("gate", "confidence", "place")
GRID = tuple(1 - 10.0**-k for k in np.arange(0.2, 4.01, 0.2))           # thresholds


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: `steps` of the exits, on `scenes` scenes and one clip in `every` of the training voices; answers
    that are `traced`, `answered` and `timed`, of each kind."""
    steps: int = 400
    scenes: int = 6000
    every: int = 4
    agree: tuple[float, ...] = (0.99, 0.95)
    traced: int = 240
    answered: int = 300
    timed: int = 40
    drafts: tuple[tuple[int, int], ...] = ((1, 4), (1, 8), (2, 4), (2, 8), (3, 8))               # blocks, window
    split: str = "test"


class Shipped:
    """The shipped transformer with its tokenizers."""

    def __init__(self):
        self.model, self.drafter, self.bpe, self.vqvae, self.codec = (
            checkpoints.load(name) for name in ("transformer", "drafter", "bpe", "vqvae", "codec"))
        self.vocabulary = Vocabulary(**checkpoints.manifest()["transformer"]["vocabulary"])
        self.layers, self.width = len(self.model.blocks), self.model.width

    def text(self, text: str) -> Segment:
        """A text as a segment."""
        return Segment("text", tuple(self.bpe.encode(" " + text)))

    def ids(self, prompts: Sequence[Sequence[Segment]], want: str) -> torch.Tensor:
        """Prompts of one length, opened for an answer: (B, T)."""
        return torch.tensor([[*self.vocabulary.pack(prompt), OPEN[want]] for prompt in prompts])

    def masks(self, want: str, n: int) -> torch.Tensor:
        """Which ids may stand at each of the first `n` places of an answer: (n, V)."""
        limit = content_limit(self.vocabulary, want)
        return torch.stack([modality_mask(self.vocabulary, want, i, limit) for i in range(n)])


@cache
def shipped() -> Shipped:
    """Loaded once."""
    return Shipped()


@cache
def training_mixture(scenes: int, every: int) -> Mixture:
    """Questions and answers of the training split: `scenes` scenes, one clip in `every` of the training voices. Whoever uses it
    says how many `rows` of what."""
    s, corpus = shipped(), load_speech(progress=False)
    kept = corpus.select(held_out=False)[::every]
    words = [corpus.words[i] for i in kept]
    clips = Clips(heard_clips(s.codec, [corpus.clips[i] for i in kept], words, s.vocabulary.audio_levels, 0, "exits",
                              progress=False).tokens, words)
    drawn = training_scenes(scenes)
    return Mixture(s.vocabulary, s.bpe, drawn, image_tokens(s.vqvae, drawn, {"exits": 1}, progress=False), clips, rows={})


@cache
@torch.enable_grad()
def exits(seed: int, plan: Plan) -> ExitHeads:
    """The exits, trained on answers of the training split: pictures, captions, words."""
    s, mixture = shipped(), copy.copy(training_mixture(plan.scenes, plan.every))
    mixture.rows = {"text->image": 6, "image->text": 8, "text->audio": 8}

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
        parts, states = mixture.batch(rng), []
        for ids, weights in zip(parts[::2], parts[1::2]):
            answer = weights[:, 1:] >= 1                                # where a token of an answer is said
            states.append(layer_states(s.model, ids)[:, :, :-1][:, answer])                      # (layers, N, C)
        return (torch.cat(states, 1),)
    torch.manual_seed(seed)
    heads = ExitHeads(s.width, s.layers)
    finished(train(heads, batch, lambda heads, states: exit_loss(heads, s.model, states), steps=plan.steps,
                   optim=Optim(lr=2e-3, warmup=20, weight_decay=0.0), run=Run(seed=seed, progress=False)))
    return heads


# ---------------------------------------------------------------- along true answers

@cache
def pairs(answer: str, n: int, split: str) -> list[tuple[Segment, Segment]]:
    """Questions and their true answers."""
    s, dice = shipped(), np.random.default_rng(TEST_SEED)
    if answer == "word":
        corpus = load_speech(progress=False)
        own = [i for i, voice in enumerate(corpus.voices) if voice_split(voice) == split and corpus.words[i] in WORDS]
        rows = dice.choice(own, size=n, replace=n > len(own))
        tokens = speech_tokens(s.codec, [corpus.clips[i] for i in rows], s.vocabulary.audio_levels, progress=False)
        return [(s.text(corpus.words[i]), Segment("audio", tuple(ids.tolist()))) for i, ids in zip(rows, tokens)]
    scenes = [WORLD.sample(dice, split) for _ in range(n)]
    texts = [s.text(WORLD.caption(scene)) for scene in scenes]
    images = [Segment("image", tuple(row)) for row in s.vqvae.encode(draw_batch(scenes)).flatten(1).tolist()]
    return list(zip(texts, images) if answer == "picture" else zip(images, texts))


@torch.no_grad()
def trace(answer: str, heads: ExitHeads, n: int, split: str) -> dict[str, torch.Tensor]:
    """For each token of true answers: its `place` (N,), whether each block's choice is the last one's, `same` (N, layers), how
    `confident` each is and what its `gate` says (N, layers - 1)."""
    s, out = shipped(), {"place": [], "same": [], "confident": [], "gate": []}
    for question, truth in pairs(answer, n, split):
        row = torch.tensor([s.vocabulary.pack([question, truth])])
        first, m = len(s.vocabulary.pack([question])), len(truth.ids)
        states = layer_states(s.model, row[:, :-1])[:, 0, first:first + m]                       # (layers, m, C)
        allowed = s.masks(WANT[answer], m)
        said = torch.stack([heads.say(s.model, i, states[i]) for i in range(s.layers - 1)]
                           + [s.model.head(s.model.norm(states[-1]))]).masked_fill(~allowed, -torch.inf)
        choice = said.argmax(-1)                                        # (layers, m)
        out["place"].append(torch.arange(m))
        out["same"].append((choice == choice[-1]).T)
        out["confident"].append(said[:-1].softmax(-1).amax(-1).T)
        out["gate"].append(torch.stack([heads.sure(i, states[i]) for i in range(s.layers - 1)], 1))
    return {name: torch.cat(each) for name, each in out.items()}


@cache
def on_validation(answer: str, seed: int, plan: Plan) -> dict[str, torch.Tensor]:
    """What thresholds are chosen on, for the exits of a seed."""
    return trace(answer, exits(seed, plan), plan.traced, "validation")


def first_above(values: torch.Tensor, threshold: float) -> torch.Tensor:
    """Values (N, layers - 1) -> how many blocks a token goes through until one is above the threshold: (N,) in 1..layers."""
    above = torch.cat([values >= threshold, torch.ones(len(values), 1, dtype=torch.bool)], 1)
    return 1 + above.int().argmax(1)


def depth_of_places(traced: dict[str, torch.Tensor], least: float) -> torch.Tensor:
    """For each place the fewest blocks whose choice is the last one's in the share `least` of the cases: (places,)."""
    layers, depths = traced["same"].shape[1], []
    for place in range(int(traced["place"].max()) + 1):
        share = traced["same"][traced["place"] == place].float().mean(0)
        depths.append(next(i + 1 for i in range(layers) if share[i] >= least or i == layers - 1))
    return torch.tensor(depths)


def blocks_of(way: str, traced: dict, setting: float, validation: dict) -> torch.Tensor:
    """How many blocks each token goes through, (N,)."""
    if way == "place":
        depths, layers = depth_of_places(validation, setting), traced["same"].shape[1]
        known = traced["place"] < len(depths)
        return torch.where(known, depths[traced["place"].clamp(max=len(depths) - 1)], layers)
    return first_above(traced["gate" if way == "gate" else "confident"], setting)


def agreement(traced: dict, blocks: torch.Tensor) -> float:
    """The share of tokens whose choice is the last block's."""
    return traced["same"].gather(1, blocks[:, None] - 1).float().mean().item()


def operations(way: str, answer: str, blocks: torch.Tensor) -> float:
    """Multiplications with weights a token, relative to full depth: blocks, keys and values of those that are skipped, the head;
    and the gates, or the head each time that one looks. (Attention's own products are left out.)"""
    s, C = shipped(), shipped().width
    allowed = len(s.vocabulary.allowed(WANT[answer], 0))
    gate, move, head = C * 32 + 32, C * C, C * allowed
    looks = blocks.clamp(max=s.layers - 1).double()
    look = {"gate": gate, "confidence": move + head, "place": 0}[way]
    own = blocks * 12 * C * C + (s.layers - blocks) * 2 * C * C + looks * look
    own = own + (head * (blocks == s.layers) if way == "confidence" else head + move * (blocks < s.layers))
    return float(own.double().mean() / (s.layers * 12 * C * C + head))


def chosen_setting(way: str, validation: dict, agree: float) -> float:
    """The threshold with the fewest blocks among those that agree often enough on validation; if none does, the strictest."""
    tried = [(blocks_of(way, validation, setting, validation), setting) for setting in GRID]
    good = [(blocks.double().mean().item(), setting) for blocks, setting in tried if agreement(validation, blocks) >= agree]
    return min(good)[1] if good else max(GRID)


def traced(answer: str, seed: int, plan: Plan) -> dict:
    """A row of `traced`."""
    validation, test = on_validation(answer, seed, plan), trace(answer, exits(seed, plan), plan.traced, plan.split)
    layers = test["same"].shape[1]
    out = {"n": len(test["place"]), "ceiling": round((1 + test["same"].int().argmax(1)).double().mean().item(), 4),
           "each": [round(test["same"][:, i].double().mean().item(), 4) for i in range(layers)]}
    for way in WAYS:
        out[way] = {"curve": [(round(blocks.double().mean().item(), 3), round(agreement(test, blocks), 4)) for blocks in
                              (blocks_of(way, test, setting, validation) for setting in GRID)]}
        for agree in plan.agree:
            setting = chosen_setting(way, validation, agree)
            blocks = blocks_of(way, test, setting, validation)
            out[way][str(agree)] = {"setting": round(setting, 6), "blocks": round(blocks.double().mean().item(), 4),
                                    "same": round(agreement(test, blocks), 4),
                                    "operations": round(operations(way, answer, blocks), 4)}
    return out


# ---------------------------------------------------------------- answers

def questions(answer: str, n: int, split: str) -> tuple[list[list[Segment]], list]:
    """Prompts, and what would be right."""
    s, dice = shipped(), np.random.default_rng(TEST_SEED + 1)
    if answer == "word":
        return [[s.text(word)] for word in WORDS], list(WORDS)
    scenes = [WORLD.sample(dice, split) for _ in range(n)]
    if answer == "picture":
        return [[s.text(WORLD.caption(scene))] for scene in scenes], scenes
    images = s.vqvae.encode(draw_batch(scenes)).flatten(1).tolist()
    return [[Segment("image", tuple(row))] for row in images], [WORLD.caption(scene) for scene in scenes]


@torch.no_grad()
def said(model, prompts: list[list[Segment]], want: str, log: list[torch.Tensor] | None = None) -> tuple[list[Segment], float]:
    """The likeliest answers, token by token, prompts of one length together; and the mean blocks of a token, the one that closes
    too, if there is a `log` of `with_exits` (what is computed for a row that is done does not count)."""
    s, out, blocks = shipped(), [None] * len(prompts), []
    packed = [len(s.vocabulary.pack(prompt)) for prompt in prompts]
    for length in sorted({*packed}):
        rows = [i for i, n in enumerate(packed) if n == length]
        contents = continue_rows(NextLogits(model, len(rows)), s.ids([prompts[i] for i in rows], want), s.vocabulary, want,
                                 content_limit(s.vocabulary, want), lambda logits: logits.argmax(-1))
        for row, (i, content) in enumerate(zip(rows, contents)):
            out[i] = Segment(want, tuple(token - s.vocabulary.allowed(want, j).start for j, token in enumerate(content)))
            if log is not None:
                blocks += [int(passed[row]) for passed in log[:len(content) + 1]]
        if log is not None:
            log.clear()
    return out, float(np.mean(blocks)) if blocks else float("nan")


def hits(answer: str, answers: Sequence[Segment], right: Sequence) -> str:
    """Which answers are right, as the report judges read them: a row of 0 and 1."""
    s = shipped()
    if answer == "picture":
        found = PictureReader(WORLD).read(painted(s.vqvae, answers))
    elif answer == "caption":
        found = [s.bpe.decode(each.ids).strip() for each in answers]
    else:
        found = checkpoints.load("second_listener").hear(stack(sounded(s.codec, answers)))
    return "".join(str(int(a == b)) for a, b in zip(found, right))


def answered(answer: str, seed: int, plan: Plan) -> dict:
    """A row of `answered`: at full depth, and with the gates of each agreement."""
    s, heads, want = shipped(), exits(seed, plan), WANT[answer]
    prompts, right = questions(answer, plan.answered, plan.split)
    out = {"full": hits(answer, said(s.model, prompts, want)[0], right)}
    for agree in plan.agree:
        net, log = with_exits(s.model, heads, chosen_setting("gate", on_validation(answer, seed, plan), agree))
        answers, blocks = said(net, prompts, want, log)
        out[str(agree)] = hits(answer, answers, right)
        out[f"{agree} blocks"] = round(blocks, 4)
    return out


# ---------------------------------------------------------------- drafts

@torch.no_grad()
def drafted(answer: str, seed: int, plan: Plan) -> dict:
    """A row of `drafted`: answers one by one, the likeliest tokens, whose length is known here, as a picture's is always."""
    s, heads, want = shipped(), exits(seed, plan), WANT[answer]
    prompts, _ = questions(answer, plan.timed, plan.split)
    prompts = prompts[:plan.timed]
    rows = [s.vocabulary.pack([each])[1:] for each in said(s.model, prompts, want)[0]]          # with the token that closes
    rows = [row[:-1] if want == "image" else row for row in rows]
    one, nets = matrices(s.model), {layers: shallow(s.model, heads, layers) for layers, _ in plan.drafts}
    ways: dict[str, Callable] = {"one at a time": lambda ids, choose, guess: (
        continue_at_once(logits := WindowLogits(s.model, 1), ids, choose, guess, 1), logits.passes, 0, one * logits.tokens)}
    for layers, window in plan.drafts:
        def way(ids, choose, guess, net=nets[layers], window=window):
            draft, logits = ShallowDraft(net, ids, choose, window), WindowLogits(s.model, 1)
            found = continue_at_once(logits, ids, choose, guess, window, draft)
            return found, logits.passes, draft.passes, one * logits.tokens + matrices(net) * (draft.passes + ids.shape[1] - 1)
        ways[f"{layers} blocks, window {window}"] = way
    out = {way: {"same": 0, "passes": 0, "drafts": 0, "operations": 0, "cpu": 0.0} for way in ways}
    for number, (prompt, row) in enumerate(zip([prompts[0], *prompts], [rows[0], *rows])):      # the first warms up
        masks, ids = s.masks(want, len(row)), s.ids([prompt], want)

        def choose(logits, first, masks=masks):
            return logits.masked_fill(~masks[first:first + logits.shape[1]], -torch.inf).argmax(-1)
        guess = torch.full((1, len(row)), s.vocabulary.allowed(want, 0).start)
        for name, way in ways.items():
            start = time.process_time()
            found, passes, drafts, operations_ = way(ids, choose, guess)
            took = time.process_time() - start
            if number:
                each = out[name]
                each["same"] += found[0].tolist() == row
                for key, value in (("passes", passes), ("drafts", drafts), ("operations", operations_), ("cpu", took)):
                    each[key] += value
    plain = dict(out["one at a time"])
    result = {name: {"same": each["same"], "passes": round(each["passes"] / len(rows), 2),
                     "drafts": round(each["drafts"] / len(rows), 2),
                     "operations": round(each["operations"] / plain["operations"], 3),
                     "cpu": round(each["cpu"] / plain["cpu"], 3)} for name, each in out.items()}
    return {"n": len(rows), "tokens": round(float(np.mean([len(row) for row in rows])), 1), **result,
            **({"the drafter": painter_time(prompts, plain["cpu"])} if answer == "picture" else {})}


def painter_time(prompts: list[list[Segment]], plain: float) -> dict:
    """CPU seconds of pictures with the drafter of `ch12_parallel`, relative to one token at a time."""
    s, took = shipped(), 0.0
    for number, prompt in enumerate([prompts[0], *prompts]):
        start = time.process_time()
        paint_at_once(s.model, s.vocabulary, [prompt], 1.0, 0.0, 0, 1.0, None, s.drafter)
        took += (time.process_time() - start) * (number > 0)
    return {"cpu": round(took / plain, 3)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Everything with every seed of the exits."""
    return [Job(f"{part.__name__}, {answer}, seed {seed}", partial(part, answer, seed, plan), (part.__name__, answer), str(seed),
                seed=seed) for seed in seeds for part in (traced, answered, drafted) for answer in ANSWERS]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan), "made with": {name: checkpoints.identity(name)[:8]
                                                for name in ("transformer", "drafter", "vqvae", "codec", "bpe")}}


TOY = Plan(steps=3, scenes=64, every=200, traced=2, answered=4, timed=1, drafts=((1, 4),), split="validation")
STUDY = Study("ch12_depth", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
