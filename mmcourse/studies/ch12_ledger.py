"""What does a caption, a picture, a word, a phrase cost, and what is it worth in bits? About 6 CPU minutes.

One model, `chat`, answers in each modality, one token at a time, the likeliest each time; of the same length are the true
answers whose bits are counted. Written down before it ran:

- L1: a token of a picture carries less than a quarter of a bit, one of sound more than ten times as much.
- L2: more than half of what a picture costs in computing goes into tokens of less than a twentieth of a bit.
- L3: a bit of a picture is dearer in computing than a bit of speech, by more than three times.
- L4: speech comes in time: the real-time factor on one core is below 1, and the first tenth of a second of sound is there in
  less than a quarter of a second.

Rows, means over the answers to `n` questions of the test split: `tokens` (content), `nominal` bits (what so many tokens could
carry), `bits` of the true answer after its question and `alone` after nothing, `cheap`: the share of its tokens that carry less
than a twentieth of a bit; `flops` of generation (counted) and of `render`ing, `moved`: bytes of weights and of keys and values
that are read and written; CPU seconds until the answer is there, of the first token, of rendering; `sound`: how long the sound
is; `first sound`: seconds until its first tenth can be played.
"""
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import Assistant, load, painted, sounded
from mmcourse.bits import segment_bits, token_bits
from mmcourse.dataset import speech_tokens
from mmcourse.generate import NextLogits, content_limit, continue_rows, sample
from mmcourse.judges.metrics import count_flops
from mmcourse.studies import Job, Study
from mmcourse.vocabulary import OPEN, Segment
from mmcourse.world.phrases import load_phrases
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import WORDS, WORLD, held_out_voice
from mmcourse.world.speech import SAMPLE_RATE, load_speech

TEST_SEED = 1202
CHEAP = 0.05                            # bits: a token that says less than this could hardly have been another one
FIRST_SOUND = 0.1                       # seconds
ANSWERS = ("caption", "picture", "word", "phrase")


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: `n` answers are weighed, `timed` of them also generated."""
    n: int = 200
    timed: int = 24
    split: str = "test"


@cache
def model() -> Assistant:
    """Loaded once."""
    return load("chat")


@cache
def pairs(answer: str, plan: Plan) -> list[tuple[Segment, Segment]]:
    """Questions and their true answers."""
    a, dice = model(), np.random.default_rng(TEST_SEED)
    if answer in ("caption", "picture"):
        scenes = [WORLD.sample(dice, plan.split) for _ in range(plan.n)]
        texts = [Segment("text", tuple(a.bpe.encode(" " + WORLD.caption(scene)))) for scene in scenes]
        ids = a.vqvae.encode(draw_batch(scenes)).flatten(1)             # (n, 8, 8) -> (n, 64)
        images = [Segment("image", tuple(row)) for row in ids.tolist()]
        return list(zip(texts, images) if answer == "picture" else zip(images, texts))
    if answer == "phrase":
        corpus = load_phrases(plan.split, progress=False)
        clips, texts = corpus.clips, corpus.texts
    else:
        corpus = load_speech(progress=False)
        kept = [i for i, voice in enumerate(corpus.voices) if held_out_voice(voice) and corpus.words[i] in WORDS]
        clips, texts = [corpus.clips[i] for i in kept], [corpus.words[i] for i in kept]
    rows = dice.permutation(len(clips))[:plan.n]
    tokens = speech_tokens(a.codec, [clips[i] for i in rows], a.vocabulary.audio_levels, progress=False)
    return [(Segment("text", tuple(a.bpe.encode(" " + texts[i]))), Segment("audio", tuple(ids.tolist())))
            for i, ids in zip(rows, tokens)]


def seconds(segment: Segment) -> float:
    """How long a sound is; 0 for anything else."""
    if segment.modality != "audio":
        return 0.0
    a = model()
    return len(segment.ids) / a.vocabulary.audio_levels * a.codec.samples_per_frame / SAMPLE_RATE


def weighed(answer: str, plan: Plan) -> dict:
    """Tokens and bits of the true answers."""
    a, each = model(), []
    v = a.vocabulary
    for question, truth in pairs(answer, plan):
        bits = segment_bits(a.transformer, v, truth, [question])
        alone = segment_bits(a.transformer, v, truth)
        n = len(truth.ids)
        each.append({"tokens": n, "nominal": token_bits(n, v.config[truth.modality]), "bits": bits.sum(), "alone": alone.sum(),
                     "cheap": (bits[:n] < CHEAP).mean(), "sound": seconds(truth)})
    return {key: round(float(np.mean([row[key] for row in each])), 4) for key in each[0]} | {"n": len(each)}


class Clock:
    """Notes the CPU seconds until token 1, 2, ... is there."""

    def __init__(self):
        self.start, self.ticks = time.process_time(), []

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        token = sample(logits, 0.0)
        self.ticks.append(time.process_time() - self.start)
        return token


@torch.no_grad()
def timed(answer: str, plan: Plan) -> dict:
    """CPU seconds, FLOPs and bytes of answers that the model gives itself."""
    a, each = model(), []
    v, width, layers = a.vocabulary, a.transformer.width, len(a.transformer.blocks)
    weights = 4 * sum(p.numel() for name, p in a.transformer.named_parameters() if "_embed" not in name)
    for i, (question, truth) in enumerate(pairs(answer, plan)[:plan.timed + 1]):
        want, limit = truth.modality, content_limit(v, truth.modality)
        ids = torch.tensor([[*v.pack([question]), OPEN[want]]])

        def answered(clock, ids=ids, want=want, limit=limit):
            (row,) = continue_rows(NextLogits(a.transformer, 1), ids, v, want, limit, clock)
            return Segment(want, tuple(token - v.allowed(want, j).start for j, token in enumerate(row)))
        said = answered(clock := Clock())
        start = time.process_time()
        render(a, said)
        rendered = time.process_time() - start
        if i == 0:                                                      # warm, and unmeasured
            continue
        n = len(said.ids)
        frames = int(np.ceil(FIRST_SOUND * SAMPLE_RATE / a.codec.samples_per_frame)) * v.audio_levels
        read = sum(2 * 4 * layers * width * (ids.shape[1] + k) for k in range(n + 1))       # keys and values of all tokens so far
        row = {"tokens": n, "flops": count_flops(partial(answered, Clock())),
               "render flops": count_flops(partial(render, a, said)), "moved": weights * (n + 1) + read,
               "cpu": clock.ticks[-1], "first token": clock.ticks[0], "render": rendered}
        if want == "audio":
            first = min(frames, n)
            start = time.process_time()
            render(a, Segment(want, said.ids[:first]))
            row |= {"first sound": clock.ticks[max(0, first - 1)] + time.process_time() - start,
                    "sound": seconds(said)}
        each.append(row)
    return {key: round(float(np.mean([row[key] for row in each])), 5) for key in each[0]} | {"n": len(each)}


def render(a: Assistant, segment: Segment) -> None:
    """What the tokenizer's decoder has to do for an answer."""
    if segment.modality == "text":
        a.bpe.decode(segment.ids)
    elif segment.modality == "image":
        painted(a.vqvae, [segment])
    elif segment.ids:
        sounded(a.codec, [segment], a.vocabulary.audio_levels)


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Each answer weighed, then timed."""
    return [Job(f"{answer}, {what.__name__}", partial(what, answer, plan), ("rows", answer), what.__name__)
            for what in (weighed, timed) for answer in ANSWERS]


def head(plan: Plan) -> dict:
    """The plan and the models."""
    return {"plan": asdict(plan),
            "made with": {name: checkpoints.identity(name)[:8] for name in ("chat", "bpe", "vqvae", "codec")}}


STUDY = Study("ch12_ledger", Plan(), Plan(n=4, timed=2, split="validation"), jobs, head, minutes=True)
main = STUDY.run
