"""A model in the making: one transformer for all directions, pre-trained in one run. `mmcourse train pretrained`.

One schedule and one table of rows, where `mmcourse.recipes.transformer` has six parts; new in it are phrases of
speech. It is the first of three runs (then it learns to converse, then policy optimisation) and is shipped by
none of them yet.
"""
import hashlib
from pathlib import Path

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import (
    Clips,
    Mixture,
    confuse_codes,
    heard_clips,
    image_tokens,
    mixture_loss,
    stretch,
    training_scenes,
)
from mmcourse.optim import Optim
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.recipes.transformer import (
    AUDIO_CODES,
    AUDIO_LEVELS,
    COPIES,
    EMA_DECAY,
    LR,
    MUON_LR,
    SCENES,
    WARMUP,
    Part,
    edit_tokens,
    sound_tokens,
)
from mmcourse.training import History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world.phrases import load_phrases

STEPS = 6000
CONTEXT = 512                           # tokens: a phrase of three seconds, played slowly, has 190
# How many sequences of each direction a batch has.
ROWS = {"text->image": 10, "image->text": 8, "image+text->text": 4, "image+text->text->image": 4,
        "image+text->image": 1, "text+text->text": 12, "audio->text": 16, "text->audio": 7,
        "audio->text->image": 3, "audio->image": 1, "image->text->audio": 3, "image->audio": 1}
TEXT_WEIGHT = 4.0
# Kinds of edit: most of those that earlier runs learned last (data/checkpoints/LOG.md).
KINDS = {"ground": 0.5, "noun": 1.5, "noun of two": 2.5, "sign": 1, "long sign": 2.5, "add": 1, "remove": 2.5,
         "move": 0.5}
PHRASES = {"audio->text": 6 / 16, "text->audio": 4 / 7}     # their share in these rows; the others have a word
PHRASE_COPIES = 1                       # augmented copies of a phrase that the model listens to
SOUND = Part("pretrained", (), people=0.4, copies=12, vocal_tract=True)


class PhraseMixture(Mixture):
    """A `Mixture` that also speaks and writes down phrases.

    Args:
        phrases: what it learns to say beside single words: clean speech.
        heard_phrases: what it listens to beside single words.
        args, more: those of `Mixture`.
    """

    def __init__(self, *args, phrases: Clips, heard_phrases: Clips, **more):
        super().__init__(*args, **more)
        self.phrases, self.heard_phrases = phrases, heard_phrases

    def spoken(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clean clip and what it says: `word`, or a phrase at times and any word at others."""
        if word is None and rng.random() < PHRASES["text->audio"]:
            tokens, text = self.phrases.pick(rng)
            return self.audio(tokens), text
        return super().spoken(rng, word)

    def overheard(self, rng: np.random.Generator, word: str | None = None) -> tuple[Segment, str]:
        """A clip to be listened to and what it says: `word`, or a phrase at times and any word at others."""
        if word is None and rng.random() < PHRASES["audio->text"]:
            tokens, text = self.heard_phrases.pick(rng)
            tokens = stretch(tokens, self.vocabulary.audio_levels, rng)
            return self.audio(tokens if self.near is None else confuse_codes(tokens, self.near, rng)), text
        return super().overheard(rng, word)


def make_model(vocabulary: Vocabulary, seed: int = 0, width: int = 192, layers: int = 6,
               heads: int = 6) -> Transformer:
    """A fresh transformer over the vocabulary; the seed decides its first weights."""
    torch.manual_seed(seed)
    return Transformer(vocabulary.size, width=width, layers=layers, heads=heads, context=CONTEXT,
                       segment_starts=tuple(OPEN.values()))


def make_mixture(scenes: int = SCENES, progress: bool = True) -> PhraseMixture:
    """The training data, from the shipped tokenizers; tokenized once and cached."""
    bpe, vqvae = checkpoints.load("bpe"), checkpoints.load("vqvae")
    vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size, AUDIO_CODES, AUDIO_LEVELS)
    data = training_scenes(scenes)
    images = image_tokens(vqvae, data, {"jitter": 0, "unnamed": 0.0, "world": 2}, progress)
    return PhraseMixture(vocabulary, bpe, data, images, rows=ROWS, text_weight=TEXT_WEIGHT, kinds=KINDS,
                         edits=edit_tokens(vqvae, scenes // 2, progress), people_share=SOUND.people,
                         **sound_tokens(SOUND, progress), **phrase_tokens(progress))


def phrase_tokens(progress: bool = True) -> dict[str, Clips]:
    """What a `PhraseMixture` says and hears of phrases: `phrases` and `heard_phrases`."""
    corpus = load_phrases("train", progress)
    # The name of the cached tokens tells what was said: another list of phrases would be as long.
    name = f"phrases {hashlib.sha256(repr((corpus.texts, corpus.voices)).encode()).hexdigest()[:12]}"
    heard = heard_clips(checkpoints.load("codec"), corpus.clips, corpus.texts, AUDIO_LEVELS, PHRASE_COPIES, name,
                        progress, vocal_tract=True)
    return {"phrases": Clips(heard.tokens[:len(corpus)], corpus.texts),       # the first copy is the clip itself
            "heard_phrases": heard}


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the model. `--steps` ends the run earlier, on the same schedule."""
    args = options("pretrained", argv, STEPS)
    mixture = make_mixture()
    model = make_model(mixture.vocabulary, args.seed)
    run = begin(the_run(args.seed, model, mixture), args)
    optim = Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=WARMUP, ema_decay=EMA_DECAY)
    history = finished(train(model, mixture.batch, mixture_loss, steps=STEPS, optim=optim,
                             run=Run(until=args.steps, seed=args.seed, save_every=100, resume=run)))
    tail = history.rows[-20:]
    metrics = {"loss": round(sum(row["loss"] for row in tail) / len(tail), 4)}
    tokenizers = {name: checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")}
    ship("pretrained", model, history, args, run, metrics, folder, dtype=torch.int8,
         vocabulary=mixture.vocabulary.config, tokenizers=tokenizers, human_digits=mixture.people is not None)
    return history


def the_run(seed: int, model: Transformer, mixture: Mixture) -> Path:
    """Where the run is kept: by what its batches and its steps are made of."""
    return run_file("pretrained", code=False, seed=seed, model=model.config, people=mixture.people is not None,
                    rates=(LR, MUON_LR, WARMUP, EMA_DECAY), rows=(ROWS, TEXT_WEIGHT, KINDS, PHRASES),
                    data=(SCENES, COPIES, PHRASE_COPIES, SOUND),
                    tokenizers=[checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")])
