"""Phrases of speech: what they say, who says it, and that they are whole."""
import re

import numpy as np
import pytest

from mmcourse.world import phrases, speech
from mmcourse.world.phrases import LONGEST, SORTS, aloud, load_phrases, phrase_jobs, sample_phrase
from mmcourse.world.scene import BACKGROUNDS, NOUNS, WORLD, held_out_voice, plural
from mmcourse.world.speech import SAMPLE_RATE

MANY = 800


def pairs(text: str) -> list[tuple[str, str]]:
    """The nouns of a text, each with the ground that the text names."""
    words = re.findall(r"\w+", text)
    grounds = [ground for ground in BACKGROUNDS if f"{ground} ground" in text]
    return [(noun, ground) for noun in NOUNS for ground in grounds if noun in words or plural(noun) in words]


def signs(text: str) -> list[str]:
    """What is spelled in a text."""
    return [found.replace(" ", "") for found in re.findall(r"(?:[A-Z] ){2,4}[A-Z]", text)]


def test_a_training_voice_says_nothing_that_is_held_out():
    jobs, texts, _ = phrase_jobs("train", MANY)
    assert not any(held_out_voice(voice) for _, voice, *_ in jobs)
    said = [pair for text in texts for pair in pairs(text)]
    assert len(said) > 100 and {WORLD.pair_split(*pair) for pair in said} == {"train"}
    spelled = [sign for text in texts for sign in signs(text)]
    assert len(spelled) > 50 and {WORLD.sign_split(sign) for sign in spelled} == {"train"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_voices_say_what_is_held_out_in_the_split_alone(split):
    jobs, texts, _ = phrase_jobs(split, MANY)
    assert all(held_out_voice(voice) for _, voice, *_ in jobs)
    allowed = {"validation": {"train", "validation"}, "test": {"train", "validation", "test"}}[split]
    said = {WORLD.pair_split(*pair) for text in texts for pair in pairs(text)}
    assert split in said and said <= allowed
    assert split in {WORLD.sign_split(sign) for text in texts for sign in signs(text)}


def test_all_sorts_are_said_in_their_shares_and_voices_take_turns():
    jobs, _, sorts = phrase_jobs("train", MANY)
    for sort, share in SORTS.items():
        assert sorts.count(sort) / MANY == pytest.approx(share, abs=0.05)
    voices = [voice for _, voice, *_ in jobs]
    assert len(set(voices)) == 40 and voices[:40] == voices[40:80]
    assert {pitch for *_, pitch, _ in jobs} <= set(range(30, 70)) and {speed for *_, speed in jobs} <= set(range(150, 210))
    assert phrase_jobs("train", 50)[0] == jobs[:50]                        # phrase i is the same however many there are


def test_what_the_sorts_say():
    said = {sort: {sample_phrase(np.random.default_rng(seed), sort=sort)[1] for seed in range(300)} for sort in SORTS}
    assert {"describe the picture", "what is in the picture?"} < said["request"]
    assert {text.split(" ")[0] for text in said["request"]} == {"draw", "say", "describe", "what"}
    assert {text.split(" ")[0] for text in said["instruction"]} == {"make", "add", "remove", "replace", "move"}
    assert all(text.endswith("?") for text in said["question"])
    assert any(signs(text) for text in said["answer"]) and {"yes", "no", "none"} < said["answer"]
    assert any(" ground" in text for text in said["caption"]) and any("," not in text for text in said["caption"])


def test_the_letter_a_is_no_article():
    assert aloud("make the sign A B A") == "make the sign eigh B eigh" and aloud("a cat, sign K I T E") == "a cat, sign K I T E"


def test_phrases_are_spoken_whole_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    corpus = load_phrases("validation", progress=False, begun=24)
    lengths = np.array([len(clip) for clip in corpus.clips]) / SAMPLE_RATE
    assert 20 <= len(corpus) == len(corpus.texts) == len(corpus.sorts) == len(corpus.voices) <= 24
    assert 0.1 < lengths.min() and 1.5 < lengths.max() < LONGEST and corpus.held_out.all()
    assert np.corrcoef(lengths, [len(text) for text in corpus.texts])[0, 1] > 0.8             # longer texts take longer
    assert np.median([np.sqrt(np.mean(clip**2)) for clip in corpus.clips]) == pytest.approx(speech.LOUDNESS, abs=0.01)
    monkeypatch.setattr(speech, "speak", None)                             # from here on nobody can speak
    again = load_phrases("validation", progress=False, begun=24)
    assert all(np.array_equal(a, b) for a, b in zip(corpus.clips, again.clips, strict=True)) and again.texts == corpus.texts


@pytest.mark.slow
@pytest.mark.parametrize("split, kept", [("validation", 1010), ("test", 1002)])
def test_the_phrases_are_the_same_everywhere(split, kept, tmp_path, monkeypatch, recwarn):
    """The hash of a split fits (another would warn), and so does what the comments say of its number."""
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    corpus = load_phrases(split, progress=False)
    assert len(corpus) == kept and corpus.held_out.all() and not [w for w in recwarn if "espeak" in str(w.message)]
    monkeypatch.setitem(phrases.EXPECTED, split, "0" * 64)
    with pytest.warns(UserWarning, match="this espeak-ng is not the build"):
        load_phrases(split, progress=False)


def test_what_takes_too_long_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(phrases, "LONGEST", 1.2)
    corpus = load_phrases("validation", progress=False, begun=24)
    assert 0 < len(corpus) < 24 and max(len(clip) for clip in corpus.clips) < 1.2 * SAMPLE_RATE
    whole = phrase_jobs("validation", 24)[1]
    assert set(corpus.texts) < set(whole) and len(max(corpus.texts, key=len)) < len(max(whole, key=len))


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="phrases have the splits train, validation, test, got 'held-out'"):
        load_phrases("held-out")
    with pytest.raises(ValueError, match="a phrase is one of caption, instruction, question, answer, request, got 'song'"):
        sample_phrase(np.random.default_rng(0), sort="song")
