"""The reference model: one transformer for all six directions. `python -m mmcourse train reference`, about 100 CPU minutes."""
from dataclasses import dataclass

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.bpe import BPETokenizer
from mmcourse.paths import CHECKPOINTS, cache_dir
from mmcourse.recipes.data import Clips, Mixture, heard_clips, image_tokens, training_edits, training_scenes
from mmcourse.training import History, train
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vocabulary import OPEN, Vocabulary
from mmcourse.world.human_digits import load_human_digits
from mmcourse.world.speech import load_speech

SCENES, CONTEXT = 60_000, 256
AUDIO_CODES, AUDIO_LEVELS = 512, 2                      # the transformer models the two coarsest levels of the codec
LR, MUON_LR, WARMUP = 3e-3, 0.02, 100


STEPS = 5000
UNNAMED = 0.4                                           # the share of scenes on a colour without a name
AVERAGE = 0.995                                         # the shipped weights are a running mean
COPIES = {"synthetic": 3, "people": 5}                  # augmented copies of every clip that the model listens to


@dataclass(frozen=True)
class Stage:
    """A part of the run: up to step `until`, with `rows` of each direction in a batch."""
    until: int
    rows: dict[str, int]
    text_weight: float = 4.0


# Pictures first, because drawing is by far the slowest to learn; then everything, and a louder voice for the few tokens of
# answers in text. A chain such as audio->text->image says the word before it draws. data/checkpoints/LOG.md tells what was tried.
STAGES = (
    Stage(1400, {"text->image": 12, "image->text": 3}, text_weight=1.0),
    Stage(2700, {"text->image": 11, "image->text": 4, "image+text->image": 4, "audio->image": 2, "audio->text->image": 3,
                 "image->audio": 3, "image->text->audio": 2, "text->audio": 5, "audio->text": 11}),
    Stage(5000, {"text->image": 11, "image->text": 6, "image+text->image": 6, "audio->image": 1, "audio->text->image": 2,
                 "image->audio": 2, "image->text->audio": 2, "text->audio": 4, "audio->text": 13}),
)
ROWS = STAGES[-1].rows
# After these the model drew signs (93 % in one try) but hardly read any (24 %): a second, shorter run from there, mostly reading.
READING_STEPS, READING_RATE = 900, 0.5                  # the rate: a share of LR and MUON_LR
READING = Stage(900, {"text->image": 6, "image->text": 14, "image+text->image": 6, "audio->image": 1, "audio->text->image": 2,
                      "image->audio": 1, "image->text->audio": 2, "text->audio": 3, "audio->text": 10})


def make_model(vocabulary: Vocabulary, seed: int = 0, width: int = 192, layers: int = 6, heads: int = 6) -> Transformer:
    """A fresh transformer over the vocabulary; the seed decides its first weights."""
    torch.manual_seed(seed)
    return Transformer(vocabulary.size, width=width, layers=layers, heads=heads, context=CONTEXT,
                       openers=tuple(OPEN.values()))


def mixture_loss(model: Transformer, *parts: torch.Tensor) -> dict:
    """Weighted cross-entropy in nats a token over all parts of a batch, together; `parts` are ids, weights, ids, weights, ..."""
    total, count = 0.0, 0.0
    for ids, weights in zip(parts[::2], parts[1::2], strict=True):
        counted = weights[:, 1:].sum()
        total, count = total + counted * next_token_loss(model, ids, weights), count + counted
    return {"loss": total / count}


def make_mixture(scenes: int = SCENES, progress: bool = True, jitter: int = 0, stage: Stage = STAGES[-1],
                 unnamed: float = UNNAMED) -> Mixture:
    """The training data of the reference model, from the shipped tokenizers; tokenised once and cached."""
    bpe = BPETokenizer.load(CHECKPOINTS / "bpe.json")
    vqvae = checkpoints.load("vqvae")
    vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size, AUDIO_CODES, AUDIO_LEVELS)
    data = training_scenes(scenes, jitter=jitter, unnamed=unnamed)
    images = image_tokens(vqvae, data, {"jitter": jitter, "unnamed": unnamed, "world": 2}, progress)
    edits = None
    if "image+text->image" in stage.rows:
        wanted = training_edits(scenes // 2)
        pictures = [image_tokens(vqvae, [getattr(e, when) for e in wanted], {when: 1}, progress) for when in ("before", "after")]
        edits = wanted, np.stack(pictures, 1)                          # (n, 2, 64)
    clips, heard, people = Clips([], []), None, None
    if any("audio" in direction for direction in stage.rows):
        codec = checkpoints.load("codec")
        if codec.codebook_size != AUDIO_CODES:
            raise ValueError(f"the codec has {codec.codebook_size} codes a level, the vocabulary {AUDIO_CODES}")
        corpus = load_speech(progress=progress)
        kept = corpus.select(held_out=False)
        sounds, words = [corpus.clips[i] for i in kept], [corpus.words[i] for i in kept]
        heard = heard_clips(codec, sounds, words, AUDIO_LEVELS, COPIES["synthetic"], "synthetic", progress)
        clips = Clips(heard.tokens[:len(sounds)], words)               # the first copy is the clip itself
        if (digits := load_human_digits()) is not None:
            kept = [i for i, out in enumerate(digits.held_out) if not out]
            people = heard_clips(codec, [digits.clips[i] for i in kept], [digits.words[i] for i in kept], AUDIO_LEVELS,
                                 COPIES["people"], "people", progress)
    return Mixture(vocabulary, bpe, data, images, clips, stage.rows, stage.text_weight, heard, people, edits)


def main(argv: list[str] | None = None) -> History:
    """Train (or go on training) the reference transformer and ship it. `--steps` ends the run earlier."""
    from mmcourse.recipes import options
    args = options("reference", argv, steps=STEPS)
    mixture = make_mixture()
    model = make_model(mixture.vocabulary, args.seed)
    made_with = checkpoints.manifest()["vqvae"]["sha256"]              # a run belongs to one tokenizer
    for stage in STAGES:
        mixture.rows, mixture.text_weight = stage.rows, stage.text_weight
        history = train(model, mixture.batch, mixture_loss, steps=STEPS, until=min(stage.until, args.steps), lr=LR,
                        optimizer="muon", muon_lr=MUON_LR, warmup=WARMUP, seed=args.seed, average=AVERAGE,
                        resume=cache_dir() / "runs" / f"reference-{made_with[:8]}.pt", save_every=100)
        if history.interrupted:
            return history
    minutes, steps = history.cpu_minutes, args.steps
    if args.steps >= STEPS:
        mixture.rows, mixture.text_weight, steps = READING.rows, READING.text_weight, STEPS + READING_STEPS
        history = train(model, mixture.batch, mixture_loss, steps=READING_STEPS, lr=READING_RATE * LR, optimizer="muon",
                        muon_lr=READING_RATE * MUON_LR, warmup=WARMUP, seed=args.seed + 1, average=AVERAGE,
                        resume=cache_dir() / "runs" / f"reading-{made_with[:8]}.pt", save_every=100)
        if history.interrupted:
            return history
        history.cpu_minutes += minutes
    ship(model, mixture.vocabulary, args.seed, steps, history, mixture.people is not None)
    return history


def ship(model: Transformer, vocabulary: Vocabulary, seed: int, steps: int, history: History, human_digits: bool) -> None:
    """Save the transformer as the shipped one, with the vocabulary and the hashes of the tokenizers it was trained on."""
    tail = history.rows[-20:]
    metrics = {"loss": round(sum(r["loss"] for r in tail) / len(tail), 4)}
    tokenizers = {name: checkpoints.manifest()[name]["sha256"] for name in ("bpe", "vqvae", "codec")}
    checkpoints.save("transformer", model, seed=seed, steps=steps, cpu_minutes=history.cpu_minutes, metrics=metrics,
                     dtype=torch.float16, vocabulary=vocabulary.config, tokenizers=tokenizers, human_digits=human_digits)
    print(metrics)
