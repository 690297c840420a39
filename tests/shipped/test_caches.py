"""Caches of users stay valid: what the course's world is made from gives the file names that it always gave.

Each cached file is looked for under its old name in an empty cache that holds a stand-in there. Under another name nothing
would be found, and the making, which the stand-in replaces, would be tried and fail.
"""
import dataclasses

import numpy as np
import pytest

from mmcourse import dataset
from mmcourse.recipes import transformer as recipe
from mmcourse.world import other_voices, speech
from mmcourse.world.scene import WORDS, WORLD


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    return tmp_path


def test_the_speech_of_the_world():
    assert speech.cache_file("speech", speech.corpus_jobs(), speech.VOICES).name == "speech-9be27d5686ea.npz"
    assert speech.cache_file("speech", speech.corpus_jobs(words=WORLD.words), speech.VOICES).name == "speech-9be27d5686ea.npz"
    others = speech.corpus_jobs(other_voices.OTHER_VOICES, other_voices.LOWEST_PITCH, other_voices.PITCH_RANGE)
    assert speech.cache_file("other-voices", others, other_voices.OTHER_VOICES).name == "other-voices-93da8e82c20b.npz"
    fewer = speech.cache_file("speech", speech.corpus_jobs(words=WORDS[1:]), speech.VOICES)
    assert fewer.name != "speech-9be27d5686ea.npz"


@pytest.mark.parametrize("n, key, name", [
    (recipe.SCENES, {"jitter": 0, "unnamed": recipe.UNNAMED, "world": 2}, "image-tokens-afb19a978dc455ff"),
    (recipe.SCENES // 2, {"before": 1}, "image-tokens-d8ebaf4da7d48c8a")])
def test_pictures_as_tokens(cache, n, key, name):
    np.save(cache / f"{name}.npy", np.arange(3))
    assert dataset.image_tokens(None, [None] * n, key, progress=False).tolist() == [0, 1, 2]
    other = dataclasses.replace(WORLD, size=32)
    with pytest.raises(AttributeError):                                # not the file of another world: they would be made anew
        dataset.image_tokens(None, [None] * n, key, progress=False, world=other)


@pytest.mark.parametrize("name, n, copies, vocal_tract, file", [
    ("synthetic", 6720, recipe.COPIES, False, "heard-fd35ea6153f8b145"), ("people", 1500, 24, True, "heard-dae91ebad4d6d8a7"),
    ("people", 1350, 24, True, "heard-30355e81ec21bc29")])
def test_speech_as_tokens(cache, name, n, copies, vocal_tract, file):
    rows = n * (copies + 1)
    np.save(cache / f"{file}.npy", np.concatenate([np.full(rows, 2, np.int16), np.tile(np.array([5, 7], np.int16), rows)]))
    clips = dataset.heard_clips(None, [None] * n, ["cat"] * n, recipe.AUDIO_LEVELS, copies, name, False, vocal_tract)
    assert len(clips.tokens) == rows and clips.tokens[-1].tolist() == [5, 7] and set(clips.words) == {"cat"}


def test_how_many_there_are():
    """The numbers above are those of the recipe: clips of training voices and scenes."""
    voices = [voice for voice in range(len(speech.VOICES)) if voice % 6 != 5]
    assert (recipe.SCENES, recipe.UNNAMED, recipe.AUDIO_LEVELS, recipe.COPIES) == (60_000, 0.4, 2, 3)
    assert len(voices) * len(WORDS) * speech.TAKES == 6720 and {part.copies for part in recipe.PARTS if part.vocal_tract} == {24}
