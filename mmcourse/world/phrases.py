"""Phrases of speech of up to three seconds: captions, instructions, questions, answers and requests.

A synthetic voice says each as a whole, so that its words flow into each other. The texts follow the world's
grammar; what the training voices say holds nothing that is held out (`World.split_of`), and other voices,
which nothing trains on, say what is asked of a model.
"""
import re
from dataclasses import dataclass

import numpy as np

from mmcourse.world.edits import sample_edit
from mmcourse.world.questions import sample_question
from mmcourse.world.rules import unit_hash
from mmcourse.world.scene import WORDS, WORLD, Scene, held_out_voice
from mmcourse.world.speech import SAMPLE_RATE, VOICES, cached_clips

LONGEST = 3.0               # seconds; what takes longer is left out
# How many phrases each split is begun with: without the long ones 16,154, 1,010 and 1,002 remain.
BEGUN = {"train": 16_400, "validation": 1030, "test": 1030}
# SHA-256 of the phrases that espeakng-loader 0.2.4 makes (espeak-ng 1.52)
EXPECTED = {
    "train": "bf7700e032d36c9988c391665479e8a76d59aedc4367f790a54d6e5f1b30e712",
    "validation": "69db9893ff5464d3f1528319471c36a619f32333ef7fc183dee3901ef14f780d",
    "test": "47835af42e018c529cf8717155807c1d6d4e17d1af3be20f23495e1ae0e35ad5",
}
SORTS = {"caption": 0.3, "instruction": 0.3, "question": 0.15, "answer": 0.1, "request": 0.15}      # shares
PITCHES, SPEEDS = (30, 40), (150, 60)     # the lowest, and how much above it at most; speeds in words a minute


@dataclass
class PhraseCorpus:
    """Spoken phrases: clip i says `texts[i]`, a phrase of the sort `sorts[i]`, in voice `VOICES[voices[i]]`.

    `clips`: list of float32 arrays (samples,) at 8 kHz, shorter than `LONGEST`; `held_out`: bool array, true for
    the voices that nothing trains on (all of them but in the split `train`).
    """
    clips: list
    texts: list
    sorts: list
    voices: list
    held_out: np.ndarray

    def __len__(self) -> int:
        return len(self.clips)


def sample_phrase(rng: np.random.Generator, split: str = "train", sort: str | None = None) -> tuple[str, str]:
    """A random phrase of the course's world: its sort and its text.

    Args:
        rng: numpy generator; the same state gives the same phrase.
        split: of the scene that the phrase is about, as for `World.sample`. A text need not name what is held
            out in it.
        sort: one of `SORTS`; random by their shares if None.
    """
    if sort is not None and sort not in SORTS:
        raise ValueError(f"a phrase is one of {', '.join(SORTS)}, got {sort!r}")
    sort = str(rng.choice(list(SORTS), p=list(SORTS.values()))) if sort is None else sort
    if sort == "instruction":
        return sort, sample_edit(rng, split).instruction
    scene = WORLD.sample(rng, split)
    if sort == "caption":
        return sort, short_caption(rng, scene)
    if sort == "request":
        return sort, request(rng, scene)
    question = sample_question(rng, scene)
    return sort, question.text if sort == "question" else question.answer


def short_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A caption of one or all of a scene's groups, with or without its ground; a third of the signs alone."""
    if scene.sign and rng.random() < 1 / 3:
        return WORLD.grammar.caption((), "", scene.sign)
    groups = scene.groups if rng.random() < 0.6 else scene.groups[:1]
    return WORLD.grammar.caption(groups, scene.background if rng.random() < 0.5 else "")


def request(rng: np.random.Generator, scene: Scene) -> str:
    """What is asked of somebody who can draw, speak and see: to draw something, to say a word, to describe."""
    kind = rng.choice(["draw", "say", "describe"], p=[0.6, 0.3, 0.1])
    if kind == "describe":
        return ("describe the picture", "what is in the picture?")[rng.integers(2)]
    if kind == "say":
        return f"say {WORDS[rng.integers(len(WORDS))]}"
    if scene.sign and rng.random() < 0.25:
        return f"draw the {WORLD.grammar.sign} {WORLD.grammar.spell(scene.sign)}"
    ground = scene.background if rng.random() < 0.3 else ""
    return f"draw {WORLD.grammar.caption(scene.groups[:1], ground)}"


def aloud(text: str) -> str:
    """A text as it is written for espeak-ng, which takes the letter A for the article: `S eigh T` for `S A T`."""
    return re.sub(r"\bA\b", "eigh", text)


def phrase_jobs(split: str, begun: int) -> tuple[list[tuple[str, int, int, int]], list[str], list[str]]:
    """What is to be spoken, (text for the voice, voice, pitch, speed) each; the texts; their sorts.

    Phrase i is the same whatever `begun` is. Each is said once, the voices of the split take turns.
    """
    voices = [voice for voice in range(len(VOICES)) if held_out_voice(voice) == (split != "train")]
    rng, jobs, texts, sorts = np.random.default_rng((list(BEGUN).index(split), 14)), [], [], []
    for i in range(begun):
        sort, text = sample_phrase(rng, split)
        voice = voices[i % len(voices)]
        pitch = PITCHES[0] + int(PITCHES[1] * unit_hash("pitch", text, VOICES[voice], i))
        speed = SPEEDS[0] + int(SPEEDS[1] * unit_hash("speed", text, VOICES[voice], i))
        jobs.append((aloud(text), voice, pitch, speed))
        texts.append(text)
        sorts.append(sort)
    return jobs, texts, sorts


def load_phrases(split: str = "train", progress: bool = True, begun: int | None = None) -> PhraseCorpus:
    """The phrases of a split: spoken at first use (a minute for `train`), then read from the cache.

    A damaged cache is made anew. Another build of espeak-ng gives other samples: that works, with a warning.

    Args:
        split: `train`: training voices and nothing held out; `validation` or `test`: held-out voices, and scenes
            of that split.
        begun: how many phrases to begin with, of which those shorter than `LONGEST` are kept; None: as `BEGUN`
            has it.
    """
    if split not in BEGUN:
        raise ValueError(f"phrases have the splits {', '.join(BEGUN)}, got {split!r}")
    jobs, texts, sorts = phrase_jobs(split, BEGUN[split] if begun is None else begun)
    expected = EXPECTED[split] if begun is None else ""
    clips = cached_clips(f"phrases-{split}", jobs, VOICES, expected, progress, longest=LONGEST)
    kept = [i for i, clip in enumerate(clips) if len(clip) < LONGEST * SAMPLE_RATE]      # the others were cut
    voices = [jobs[i][1] for i in kept]
    return PhraseCorpus([clips[i] for i in kept], [texts[i] for i in kept], [sorts[i] for i in kept], voices,
                        np.array([held_out_voice(voice) for voice in voices]))
