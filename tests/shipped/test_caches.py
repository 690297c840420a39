"""Caches of users stay valid: what the course's world is made from gives the file names that it always gave.

Each cached file is looked for in a cache that holds a stand-in under the old name, and nothing else. Under another
name nothing would be found, and the file would be made anew, which fails here for want of a model.
"""
import dataclasses

import numpy as np
import pytest

from mmcourse import dataset
from mmcourse.recipes import transformer as recipe
from mmcourse.world import other_voices, speech
from mmcourse.world.scene import WORDS, WORLD, held_out_voice


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    return tmp_path


def test_the_speech_of_the_world():
    def name(kind: str, voices: tuple[str, ...], *how, **more) -> str:
        return speech.cache_file(kind, speech.corpus_jobs(voices, *how, **more), voices).name
    voices, others = speech.VOICES, other_voices.OTHER_VOICES
    assert name("speech", voices) == name("speech", voices, words=WORLD.words) == "speech-9be27d5686ea.npz"
    assert name("speech", voices, words=WORDS[1:]) != "speech-9be27d5686ea.npz"
    pitch = other_voices.LOWEST_PITCH, other_voices.PITCH_RANGE
    assert name("other-voices", others, *pitch) == "other-voices-93da8e82c20b.npz"


@pytest.mark.parametrize("n, key, name", [
    (recipe.SCENES, {"jitter": 0, "unnamed": recipe.UNNAMED, "world": 2}, "image-tokens-afb19a978dc455ff"),
    (recipe.SCENES // 2, {"before": 1}, "image-tokens-d8ebaf4da7d48c8a")])
def test_pictures_as_tokens(cache, n, key, name):
    np.save(cache / f"{name}.npy", np.arange(3))
    assert dataset.image_tokens(None, [None] * n, key, progress=False).tolist() == [0, 1, 2]
    other = dataclasses.replace(WORLD, size=32)
    with pytest.raises(AttributeError):                  # another world's are in another file, and would be made
        dataset.image_tokens(None, [None] * n, key, progress=False, world=other)


@pytest.mark.parametrize("name, n, copies, vocal_tract, file", [
    ("synthetic", 6720, recipe.COPIES, False, "heard-fd35ea6153f8b145"),
    ("people", 1500, 24, True, "heard-dae91ebad4d6d8a7"),
    ("people", 1350, 24, True, "heard-30355e81ec21bc29")])
def test_speech_as_tokens(cache, name, n, copies, vocal_tract, file):
    rows = n * (copies + 1)
    lengths, tokens = np.full(rows, 2, np.int16), np.tile(np.array([5, 7], np.int16), rows)
    np.save(cache / f"{file}.npy", np.concatenate([lengths, tokens]))
    clips = dataset.heard_clips(None, [None] * n, ["cat"] * n, recipe.AUDIO_LEVELS, copies, name, False,
                                vocal_tract)
    assert len(clips.tokens) == rows and clips.tokens[-1].tolist() == [5, 7] and set(clips.words) == {"cat"}


def test_how_many_there_are():
    """The numbers above are those of the recipe: clips of training voices and scenes."""
    voices = [voice for voice in range(len(speech.VOICES)) if not held_out_voice(voice)]
    assert (recipe.SCENES, recipe.UNNAMED, recipe.AUDIO_LEVELS, recipe.COPIES) == (60_000, 0.4, 2, 3)
    assert len(voices) * len(WORDS) * speech.TAKES == 6720
    assert {part.copies for part in recipe.PARTS if part.vocal_tract} == {24}
