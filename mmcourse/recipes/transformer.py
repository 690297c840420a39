"""The reference model: one transformer for all directions. `mmcourse train transformer`, about 5.9 CPU hours.

Why which stage was added: "The diary of the reference run" in data/checkpoints/LOG.md.
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import (
    Clips,
    Mixture,
    heard_clips,
    image_tokens,
    mixture_loss,
    near_codes,
    training_edits,
    training_scenes,
)
from mmcourse.distributed import first_alone
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, rank_0_goes_on, run_file, say_where, target
from mmcourse.recipes._device import trained_on
from mmcourse.training import History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.human_digits import load_human_digits
from mmcourse.world.speech import load_speech

SCENES = 60_000                         # half as many edits
CONTEXT = 256                           # tokens
AUDIO_CODES = 512
AUDIO_LEVELS = 2                        # the transformer models the two coarsest levels of the codec
LR = 3e-3
MUON_LR = 0.02
WARMUP = 100                            # steps
EMA_DECAY = 0.995                       # of the shipped weights
UNNAMED = 0.4                           # the share of scenes on a colour without a name
COPIES = 3                              # augmented copies of every synthetic clip that the model listens to


@dataclass(frozen=True)
class Stage:
    """A stretch of a part: up to its step `until`, with `rows` of each direction in a batch and edits of
    these `kinds`."""
    until: int
    rows: dict[str, int]
    text_weight: float = 4.0
    kinds: dict[str, float] | None = None


@dataclass(frozen=True)
class Part:
    """A part of the training: a schedule of its own, from the weights (their EMA) of the part before.

    Args:
        rate: the learning rates, as a share of `LR` and `MUON_LR`.
        unnamed: the share of scenes on a colour without a name.
        people: the share of people in what the model transcribes.
        copies: how many augmented copies of each recording of a person it hears.
        schedule: how many steps the learning rate's schedule spans, if it ends before them; 0: as many as it
        has.
        vocal_tract: whether the copies come from other vocal tracts too, and codes that sound alike are
        confused.
    """
    name: str
    stages: tuple[Stage, ...]
    rate: float = 1.0
    unnamed: float = 0.0
    people: float = 0.35
    copies: int = 12
    schedule: int = 0
    vocal_tract: bool = False

    @property
    def steps(self) -> int:
        """How many it has."""
        return self.stages[-1].until


# Pictures first: drawing is the slowest to learn; then everything, with more weight on answers in text.
STAGES = (
    Stage(1400, {"text->image": 12, "image->text": 3}, text_weight=1.0),
    Stage(2700, {"text->image": 11, "image->text": 4, "image+text->image": 4, "audio->image": 2,
                 "audio->text->image": 3, "image->audio": 3, "image->text->audio": 2, "text->audio": 5,
                 "audio->text": 11}),
    Stage(5000, {"text->image": 11, "image->text": 6, "image+text->image": 6, "audio->image": 1,
                 "audio->text->image": 2, "image->audio": 2, "image->text->audio": 2, "text->audio": 4,
                 "audio->text": 13}),
)
# Mostly reading: signs were drawn, hardly read.
READING = Stage(900, {"text->image": 6, "image->text": 14, "image+text->image": 6, "audio->image": 1,
                      "audio->text->image": 2, "image->audio": 1, "image->text->audio": 2, "text->audio": 3,
                      "audio->text": 10})
# More edits and more people; from step 700 on an edit is put into words first, from 1,800 on captions are
# edited too.
PRACTICE = (
    Stage(700, {"text->image": 10, "image->text": 12, "image+text->image": 8, "audio->image": 1,
                "audio->text->image": 4, "image->audio": 1, "image->text->audio": 3, "text->audio": 3,
                "audio->text": 12}),
    Stage(1800, {"text->image": 10, "image->text": 11, "image+text->image": 4, "image+text->text->image": 5,
                 "audio->image": 1, "audio->text->image": 4, "image->audio": 1, "image->text->audio": 3,
                 "text->audio": 3, "audio->text": 12}),
    Stage(2900, {"text->image": 9, "image->text": 9, "image+text->image": 2, "image+text->text->image": 6,
                 "text+text->text": 10, "audio->image": 1, "audio->text->image": 4, "image->audio": 1,
                 "image->text->audio": 3, "text->audio": 3, "audio->text": 12}),
)
# A schedule of its own for edits: the letters of a new sign were still missing.
EDITING = Stage(1000, {"text->image": 8, "image->text": 6, "image+text->image": 4, "image+text->text->image": 6,
                       "text+text->text": 20, "audio->image": 1, "audio->text->image": 4, "image->audio": 1,
                       "image->text->audio": 3, "text->audio": 3, "audio->text": 12})
# More of what was still rising, made anew for each row; from step 1,200 on long signs.
FINISH_ROWS = {"text->image": 6, "image->text": 4, "image+text->image": 1, "image+text->text->image": 5,
               "image+text->text": 6, "text+text->text": 24, "audio->image": 1, "audio->text->image": 3,
               "image->audio": 1, "image->text->audio": 3, "text->audio": 3, "audio->text": 22}
FINISH = (
    Stage(1200, FINISH_ROWS, kinds={"ground": 1, "noun": 2, "sign": 3, "add": 1.5, "remove": 2.5, "move": 1}),
    Stage(3300, {**FINISH_ROWS, "text+text->text": 30, "audio->text": 18},
          kinds={"ground": 0.5, "noun": 3, "sign": 1.5, "long sign": 4, "add": 0.7, "remove": 3, "move": 0.5}),
)
# One of two things is replaced or removed, not both.
CHOOSING = Stage(1300, {**FINISH_ROWS, "image+text->text": 9, "text+text->text": 30, "audio->text": 16},
                 kinds={"ground": 0.3, "noun": 0.5, "noun of two": 4, "sign": 0.5, "long sign": 1.5, "add": 0.4,
                        "remove": 3, "move": 0.3})
PARTS = (Part("reference", STAGES, unnamed=UNNAMED, people=0.2, copies=5),
         Part("reading", (READING,), rate=0.5, unnamed=UNNAMED, people=0.2, copies=5),
         Part("practice", PRACTICE, rate=0.75, schedule=3600),
         Part("editing", (EDITING,), rate=0.5),
         Part("finish", FINISH, rate=0.5, people=0.6, copies=24, vocal_tract=True),
         Part("choosing", (CHOOSING,), rate=0.4, people=0.6, copies=24, vocal_tract=True))
STEPS = sum(part.steps for part in PARTS)
ROWS = CHOOSING.rows


def make_model(vocabulary: Vocabulary, seed: int = 0, width: int = 192, layers: int = 6,
               heads: int = 6) -> Transformer:
    """A fresh transformer over the vocabulary; the seed decides its first weights."""
    torch.manual_seed(seed)
    return Transformer(vocabulary.size, width=width, layers=layers, heads=heads, context=CONTEXT,
                       segment_starts=tuple(OPEN.values()))


def make_mixture(scenes: int = SCENES, progress: bool = True, jitter: int = 0, stage: Stage = CHOOSING,
                 part: Part = PARTS[-1]) -> Mixture:
    """The training data of the reference model, from the shipped tokenizers; tokenized once and cached."""
    bpe, vqvae = checkpoints.load("bpe"), checkpoints.load("vqvae")
    vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size, AUDIO_CODES, AUDIO_LEVELS)
    data = training_scenes(scenes, jitter=jitter, unnamed=part.unnamed)
    images = image_tokens(vqvae, data, {"jitter": jitter, "unnamed": part.unnamed, "world": 2}, progress)
    edits, sounds = None, {"clips": Clips([], [])}
    if any(direction.startswith(("image+text", "text+text")) for direction in stage.rows):
        edits = edit_tokens(vqvae, scenes // 2, progress)
    if any("audio" in direction for direction in stage.rows):
        sounds = sound_tokens(part, progress)
    return Mixture(vocabulary, bpe, data, images, rows=stage.rows, text_weight=stage.text_weight, edits=edits,
                   people_share=part.people, kinds=stage.kinds, **sounds)


def edit_tokens(vqvae, n: int, progress: bool = True) -> tuple[list, np.ndarray]:
    """`n` edits of the training split, and the image tokens (n, 2, 64) of their pictures before and after."""
    edits = training_edits(n)
    pictures = [image_tokens(vqvae, [getattr(e, when) for e in edits], {when: 1}, progress)
                for when in ("before", "after")]
    return edits, np.stack(pictures, 1)


def sound_tokens(part: Part, progress: bool = True) -> dict:
    """What a `Mixture` says and hears: `clips`, `heard`, `people` (None without the human digits) and
    `near`."""
    codec = checkpoints.load("codec")
    if codec.codebook_size != AUDIO_CODES:
        raise ValueError(f"the codec has {codec.codebook_size} codes a level, the vocabulary {AUDIO_CODES}")
    corpus = load_speech(progress=progress)
    kept = corpus.select(held_out=False)
    sounds, words = [corpus.clips[i] for i in kept], [corpus.words[i] for i in kept]
    heard = heard_clips(codec, sounds, words, AUDIO_LEVELS, COPIES, "synthetic", progress, part.vocal_tract)
    people = None
    if (digits := load_human_digits()) is not None:
        kept = [i for i, out in enumerate(digits.held_out) if not out]
        spoken, said = [digits.clips[i] for i in kept], [digits.words[i] for i in kept]
        people = heard_clips(codec, spoken, said, AUDIO_LEVELS, part.copies, "people", progress, part.vocal_tract)
    near = near_codes(codec.codebooks[:AUDIO_LEVELS]) if part.vocal_tract else None
    return {"clips": Clips(heard.tokens[:len(sounds)], words),         # the first copy is the clip itself
            "heard": heard, "people": people, "near": near}


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the reference transformer and ship it. `--steps` ends the run earlier."""
    args = options("transformer", argv, STEPS, together=True)
    left, minutes, model = args.steps, 0.0, None
    for number, part in enumerate(PARTS):
        with first_alone():
            mixture = make_mixture(stage=part.stages[-1], part=part)
        if model is None:
            model = make_model(mixture.vocabulary, args.seed)
        optim = Optim("muon", lr=part.rate * LR, muon_lr=part.rate * MUON_LR, warmup=WARMUP, ema_decay=EMA_DECAY)
        run = begin(part_file(number, args.seed, model, mixture), args)
        for stage in part.stages:
            mixture.rows, mixture.text_weight, mixture.kinds = stage.rows, stage.text_weight, stage.kinds
            history = train(model, mixture.batch, mixture_loss, steps=part.schedule or part.steps, optim=optim,
                            run=Run(until=min(stage.until, left), seed=args.seed + number, save_every=100, resume=run))
            finished(history)
        minutes, left = minutes + history.cpu_minutes, left - part.steps
        if left <= 0:
            break
    history.cpu_minutes = minutes
    rank_0_goes_on()
    ship(model, mixture, args.seed, args.steps, history, target(args, run, folder))
    return history


def part_file(number: int, seed: int, model: Transformer, mixture: Mixture) -> Path:
    """Where a part of the run is kept: by what it and the parts before it are made of. A part may be added at the end."""
    return run_file("transformer", code=False, parts=PARTS[:number + 1], seed=seed, model=model.config,
                    people=mixture.people is not None, rates=(LR, MUON_LR, WARMUP, EMA_DECAY), data=(SCENES, COPIES),
                    tokenizers=[checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")])


def ship(model: Transformer, mixture: Mixture, seed: int, steps: int, history: History, folder: Path) -> None:
    """Save the transformer, with its vocabulary and the hashes of the tokenizers it learned from."""
    tail = history.rows[-20:]
    metrics = {"loss": round(sum(r["loss"] for r in tail) / len(tail), 4)}
    tokenizers = {name: checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")}
    path = checkpoints.save("transformer", model, seed=seed, steps=steps, cpu_minutes=history.cpu_minutes,
                            metrics=metrics, folder=folder, dtype=torch.int8, vocabulary=mixture.vocabulary.config,
                            tokenizers=tokenizers, human_digits=mixture.people is not None, **trained_on())
    say_where(path, metrics)
