"""The small world in which chapter 06 compares models: twelve nouns, one group of things, three tasks.

Three tasks: draw (text to picture), describe (picture to text), and speech (hear and speak words).
"""
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.dataset import Clips, Mixture, heard_clips, pad, speech_tokens
from mmcourse.recipes.transformer import AUDIO_CODES, AUDIO_LEVELS
from mmcourse.vocabulary import Segment, Vocabulary
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import BACKGROUNDS, COUNTS, PLACES, Group, Scene, is_held_out
from mmcourse.world.speech import load_speech

TASKS = {"draw": {"text->image": 6}, "describe": {"image->text": 4},
         "speech": {"text->audio": 4, "audio->text": 4}}        # directions, and how many rows of each in a batch
DIRECTIONS = tuple(direction for task in TASKS.values() for direction in task)
NAMES = ("apple", "bee", "book", "cat", "crab", "fish", "guitar", "house", "key", "star", "tree", "whale")
WHOLE = {"width": 96, "layers": 3, "heads": 4}
QUESTIONS_SEED = 5


def made_with() -> dict[str, str]:
    """The tokenizers that a result rests on: name -> the first digits of its hash."""
    return {name: checkpoints.identity(name)[:8] for name in ("bpe", "vqvae", "codec")}


@dataclass
class SmallWorld:
    """The small world, tokenized: a `Mixture` for training, and one of held-out scenes and voices."""
    training: Mixture
    held_out: Mixture

    @property
    def vocabulary(self) -> Vocabulary:
        """Of both."""
        return self.training.vocabulary

    def batch(self, rng: np.random.Generator, tasks) -> tuple[torch.Tensor, ...]:
        """ids and weights of each task; the sequences of a task depend on the step alone, whoever else is
        learned."""
        out, seed = [], int(rng.integers(2**31))
        for number, task in enumerate(TASKS):
            if task in tasks:
                own = np.random.default_rng((seed, number))
                rows = [self.training.row(d, own) for d, n in TASKS[task].items() for _ in range(n)]
                out += [pad([r[0] for r in rows]), pad([r[1] for r in rows], torch.float)]
        return tuple(out)

    def questions(self, direction: str, n: int) -> list[list[Segment]]:
        """`n` held-out pairs (given, answer) of a direction, always the same."""
        return [self.held_out.sequence(direction, np.random.default_rng((QUESTIONS_SEED, i)))
                for i in range(n)]


@cache
def small_world(nouns: int = len(NAMES), copies: int = 0) -> SmallWorld:
    """The world of the first `nouns` names.

    Args:
        copies: how many augmented copies of each recording are listened to in training (`heard_clips`); 0:
        none.
    """
    return SmallWorld(*(_mixture(NAMES[:nouns], held_out, copies) for held_out in (False, True)))


def _mixture(names: tuple[str, ...], held_out: bool, copies: int) -> Mixture:
    """One split of the small world."""
    bpe, vqvae, codec = (checkpoints.load(name) for name in ("bpe", "vqvae", "codec"))
    vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size, AUDIO_CODES, AUDIO_LEVELS)
    kinds = [(i + 1, place) for i in range(len(COUNTS)) for place in (PLACES if i < 2 else ("",))]
    scenes = [Scene((Group(noun, n, place),), background)
              for noun in names for background in BACKGROUNDS for n, place in kinds]
    scenes = [scene for scene in scenes if is_held_out(scene) == held_out]
    parts = [scenes[i:i + 64] for i in range(0, len(scenes), 64)]
    images = torch.cat([vqvae.encode(draw_batch(part)).flatten(1) for part in parts])
    corpus = load_speech(progress=False)
    kept = [i for noun in names for i in corpus.select(noun, held_out=held_out)]
    sounds, words = [corpus.clips[i] for i in kept], [corpus.words[i] for i in kept]
    clips, heard = Clips(speech_tokens(codec, sounds, AUDIO_LEVELS, progress=False), words), None
    if copies and not held_out:
        heard = heard_clips(codec, sounds, words, AUDIO_LEVELS, copies, "small world", progress=False)
    return Mixture(vocabulary, bpe, scenes, images.numpy(), clips, {}, heard=heard)


@torch.no_grad()
def answer_bits(model, world: SmallWorld, direction: str, n: int = 60) -> float:
    """Mean bits of a token of the answers to `n` held-out questions, closing tokens included."""
    total, count = 0.0, 0
    for given, answer in world.questions(direction, n):
        row = torch.tensor([world.vocabulary.pack([given, answer])])
        losses = F.cross_entropy(model(row[:, :-1])[0], row[0, 1:], reduction="none")
        total, count = total + losses[len(given.ids) + 2:].sum().item(), count + len(answer.ids) + 1
    return total / count / math.log(2)
