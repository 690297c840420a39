"""What a small model practises in chapter 11: drawing, writing down what it hears, saying what it sees.

A world of twelve nouns, one kind of thing in a scene and no signs. Of the 96 pairs of noun and ground 35 are shown to it; 34 are
practised without any picture, because a reward needs none; 6 are for validation and 21 for the test. Each task has a reward
judge, which marks answers while the model learns, and a report judge of another make.

task   question                 answer    reward (what is optimised)            report (what is published)
draw   a caption                picture   a net names both halves and ground    templates read everything, the count too
hear   a word with much noise   text      the word is right                     the same: nothing can be judged wrongly
say    a picture                sound     the word judge hears the noun         the second listener, which knows other voices
"""
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import painted, sounded
from mmcourse.dataset import Clips, Mixture, heard_clips, image_tokens, mixture_loss, stretch
from mmcourse.judges import PictureReader
from mmcourse.judges.hearing import stack
from mmcourse.judges.picture_net import halves
from mmcourse.optim import Optim
from mmcourse.posttraining import Question, Task
from mmcourse.training import History, Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world.rules import SignRule, SplitRule, unit_hash
from mmcourse.world.scene import BACKGROUNDS, COUNTS, PICTOGRAMS, PLACES, Group, Scene, World, held_out_voice
from mmcourse.world.speech import load_speech

NAMES = ("apple", "bee", "book", "cat", "crab", "fish", "guitar", "house", "key", "star", "tree", "whale")
PRACTICE = World({noun: PICTOGRAMS[noun] for noun in NAMES}, BACKGROUNDS, kinds=(1,), signs=SignRule(share=0.0),
                 split=SplitRule(held_out=0.65, test=0.35))
# `practice`: pairs of noun and ground that are held out like those of the test, but may be asked for while the model practises
SPLITS = ("train", "practice", "validation", "test")
PRACTISED = 0.8                        # of the held-out pairs that are not of the test
TASKS = ("draw", "hear", "say")
SIZE = {"width": 96, "layers": 3, "heads": 4}
ROWS = {"text->image": 6, "image->text": 3, "audio->text": 5, "text->audio": 2, "image->audio": 5}    # of a batch
LEVELS = 2                              # of the codec, which the model reads and writes
COPIES = 3                              # of each clip, through another throat, microphone and room


def scenes_of(split: str) -> list[Scene]:
    """All scenes of the world that are of a split."""
    kinds = [(n + 1, place) for n in range(len(COUNTS)) for place in (PLACES if n < 2 else ("",))]
    every = [Scene((Group(noun, n, place),), ground) for noun in NAMES for ground in BACKGROUNDS for n, place in kinds]
    return [scene for scene in every if scene_split(scene) == split]


def scene_split(scene: Scene) -> str:
    """Of `SPLITS`: by the pair of noun and ground."""
    split = PRACTICE.split_of(scene)
    practised = unit_hash("practice", scene.groups[0].noun, scene.background) < PRACTISED
    return "practice" if split == "validation" and practised else split


def voice_split(voice: int) -> str:
    """`train`, which is practised too, or of the voices that nothing trains on one half `validation` and one half `test`."""
    return "train" if not held_out_voice(voice) else ("validation", "test")[voice // 6 % 2]


@cache
def spoken_words(split: str) -> tuple[Clips, Clips]:
    """The words in the voices of a split as tokens: as they are, and as they are heard. Kept in the cache."""
    corpus = load_speech(progress=False)
    kept = [i for i, (word, voice) in enumerate(zip(corpus.words, corpus.voices))
            if word in NAMES and voice_split(voice) == split]
    sounds, words = [corpus.clips[i] for i in kept], [corpus.words[i] for i in kept]
    clips = heard_clips(checkpoints.load("codec"), sounds, words, LEVELS, COPIES, f"practice, {split}", progress=False)
    n = len(sounds)                                                     # the first copy is the clip itself
    return Clips(clips.tokens[:n], words), Clips(clips.tokens[n:], words * COPIES)


class Side:
    """One split of the practice world, tokenized: scenes with their pictures, words as they are said (`clips`) and as they are
    heard (`heard`, with noise, rooms and other throats)."""

    def __init__(self, split: str):
        bpe, vqvae, codec = (checkpoints.load(name) for name in ("bpe", "vqvae", "codec"))
        self.split, self.vqvae, self.codec, self.bpe = split, vqvae, codec, bpe
        self.vocabulary = Vocabulary(bpe.vocab_size, vqvae.vocab_size)
        said, self.heard = spoken_words("train" if split == "practice" else split)
        scenes = scenes_of(split)
        self.mixture = Mixture(self.vocabulary, bpe, scenes, image_tokens(vqvae, scenes, None, False, PRACTICE), said, dict(ROWS),
                               text_weight=4.0, heard=self.heard, world=PRACTICE)

    def ask(self, name: str, rng: np.random.Generator, n: int) -> list[Question]:
        """`n` random questions of a task."""
        return [getattr(self, f"_{name}")(rng) for _ in range(n)]

    def _draw(self, rng: np.random.Generator) -> Question:
        m, i = self.mixture, self.mixture.draw_scene(rng)
        return Question((m.captions[i],), "image", m.scenes[i], m.image(m.images[i]))

    def _hear(self, rng: np.random.Generator) -> Question:
        tokens, word = self.heard.pick(rng)
        sound = self.mixture.audio(stretch(tokens, LEVELS, rng))
        return Question((sound,), "text", word, self.mixture.text(word))

    def _say(self, rng: np.random.Generator) -> Question:
        m, i = self.mixture, self.mixture.draw_scene(rng)
        noun = m.first_noun(i)
        return Question((m.image(m.images[i]),), "audio", noun, m.spoken(rng, noun)[0])


@cache
def side(split: str) -> Side:
    """A split of the practice world, tokenized once a process. ValueError for one that there is not."""
    if split not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    return Side(split)


# ---------------------------------------------------------------- who marks

@cache
def _judge(name: str):
    return PictureReader(PRACTICE) if name == "templates" else checkpoints.load(name)


def pictures(answers: Sequence[Segment]) -> torch.Tensor:
    """Answers as pictures, (N, 3, 64, 64)."""
    return painted(side("train").vqvae, answers)


def sounds(answers: Sequence[Segment]) -> list[np.ndarray]:
    """Answers as sounds, (samples,) each."""
    return sounded(side("train").codec, answers)


def texts(answers: Sequence[Segment]) -> list[str]:
    """Answers as texts."""
    return [side("train").bpe.decode(answer.ids).strip() for answer in answers]


def seen_by_net(questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
    """Whether the picture judge, a net, names the right noun on each half and the right ground: 0 or 1."""
    return [float(seen == halves(question.truth))
            for seen, question in zip(_judge("picture_judge").read(pictures(answers)), questions)]


def read_by_templates(questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
    """Whether the template reader finds the whole scene, the number of things too: 0 or 1."""
    return [float(seen == question.truth) for seen, question in zip(_judge("templates").read(pictures(answers)), questions)]


def heard_by(judge: str):
    """Whether a listener hears the right word in the sounds: a reward."""
    def reward(questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
        words = _judge(judge).hear(stack(sounds(answers)))
        return [float(word == question.truth) for word, question in zip(words, questions)]
    return reward


def written_right(questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
    """Whether the text is the word that was said: 0 or 1."""
    return [float(text == question.truth) for text, question in zip(texts(answers), questions)]


PRACTISE = {"draw": "practice", "hear": "train", "say": "train"}       # which side of the world a task is practised on
REWARD = {"draw": seen_by_net, "hear": written_right, "say": heard_by("word_judge")}
REPORT = {"draw": read_by_templates, "hear": written_right, "say": heard_by("second_listener")}


def task(name: str, split: str | None = None, judges: dict = REWARD) -> Task:
    """A task of `TASKS` on the split on which it is practised, or on another, marked by the reward judges or by others."""
    if name not in TASKS:
        raise ValueError(f"a task is one of {', '.join(TASKS)}, got {name!r}")
    return Task(name, lambda rng, n: side(split or PRACTISE[name]).ask(name, rng, n), judges[name])


# ---------------------------------------------------------------- the model that practises

def make_small(seed: int = 0) -> Transformer:
    """A fresh small model: a third of a million parameters."""
    torch.manual_seed(seed)
    return Transformer(side("train").vocabulary.size, context=256, segment_starts=tuple(OPEN.values()), **SIZE)


def pre_train(seed: int = 0, steps: int = 600, run: Run | None = None) -> tuple[Transformer, History]:
    """A small model that has seen all three tasks, and masters none."""
    model = make_small(seed)
    history = train(model, side("train").mixture.batch, mixture_loss, steps=steps,
                    optim=Optim("muon", lr=3e-3, warmup=20), run=run or Run(seed=seed, progress=False))
    return model, history
