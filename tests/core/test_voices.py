"""Voices: the table holds what espeak-ng and the codec make, episodes are what they say, judges hear what is so.

What the module does at once for all rows is checked here row by row.
"""
from copy import copy
from dataclasses import fields

import numpy as np
import pytest
import torch

from mmcourse.experiments.episodes import LABELS
from mmcourse.experiments.voices import (
    FRAMES,
    NUMBERS,
    SAID,
    VARIANTS,
    WORD_IDS,
    WORDS,
    SpokenWords,
    length,
    median_pitch,
    nearest_voice,
    nearest_word,
    new_words,
    pitch_error,
    sound_loss,
    spoken,
    to_ids,
    to_sound,
    voice,
)
from mmcourse.in_context import EpisodeNet
from mmcourse.judges.pitch import notes
from mmcourse.world.scene import NOUNS
from mmcourse.world.speech import VOICES, speak, to_clip

SIZES, SPLITS = {"voices": (4, 2, 4), "words": (8, 3, 4)}, ("train", "validation", "test")


@pytest.fixture(scope="module")
def tables():
    return SpokenWords(**SIZES, progress=False)


def dice(seed=0):
    return np.random.default_rng(seed)


def same(one, other):
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


# ---------------------------------------------------------------- the table

def test_the_table_holds_what_is_spoken(tables):
    assert tables.values.shape == (10, 15, FRAMES, NUMBERS) and tables.values.dtype == np.float32
    voices = tables.of["test"]
    jobs = [(name, *tables.voices[i]) for i in voices for name in tables.names]
    for job, (sound, rate) in enumerate(speak(jobs)):
        at = voices.start + job // len(tables.names), job % len(tables.names)
        clip = to_clip(sound, rate, 0.64).astype(np.float32) / 32767
        ids = tables.codec.encode(clip)[0]
        frames = tables.frames[at]
        assert frames == len(ids) == -(-len(clip) // 320)
        assert tables.values[at][:, 0].tolist() == [1] * frames + [0] * (16 - frames)
        codes = sum(book[ids[:, level]] for level, book in enumerate(tables.codec.codebooks)) / tables.scale
        assert np.allclose(tables.values[at][:frames, 1:], codes, atol=1e-5) and not tables.values[at][frames:].any()
        assert np.isclose(tables.pitch[at], median_pitch(clip), equal_nan=True)
    heard = tables.values[tables.values[..., 0] == 1]
    assert abs(heard[:, 1:].std() - 1) < 0.1, "in units that suit a net"


def test_a_table_is_read_from_the_cache_and_fewer_are_the_first(tables, monkeypatch):
    monkeypatch.setattr("mmcourse.experiments.voices.speak", None)             # it cannot be spoken again
    assert np.array_equal(SpokenWords(**SIZES, progress=False).values, tables.values)
    assert tables.voices == [voice(split, i) for split, n in zip(SPLITS, SIZES["voices"]) for i in range(n)]
    assert tables.names == sum((WORDS[split][:n] for split, n in zip(SPLITS, SIZES["words"])), ())


def test_nothing_is_in_two_splits(tables):
    variants = [{name.partition("+")[2] or name for name in VARIANTS[split]} for split in SPLITS]
    words = [set(WORDS[split]) for split in SPLITS]
    for parts in (variants, words):
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts))
    assert set(VARIANTS["train"]) | set(VARIANTS["validation"]) == set(VOICES)
    assert [*map(len, words)] == [44, 9, 10] and set(SAID) == set(NOUNS) - {"bicycle"}
    points = {split: [voice(split, i) for i in range(n)] for split, n in zip(SPLITS, (240, 32, 64))}
    for split, some in points.items():
        assert {name for name, *_ in some} == set(VARIANTS[split]) and len(set(some)) == len(some)
    _, pitches, speeds = zip(*sum(points.values(), []))
    assert (min(pitches), max(pitches), min(speeds), max(speeds)) == (40, 90, 160, 199)
    assert [*tables.of.values()] == [range(4), range(4, 6), range(6, 10)]
    assert [*tables.words_of.values()] == [range(8), range(8, 11), range(11, 15)]
    assert [tables.pool(split) for split in SPLITS] == [*tables.of.values()]


def test_voices_of_the_test_have_a_pitch():
    table = SpokenWords((1, 1, len(VARIANTS["test"])), (1, 1, 1), progress=False)
    pitch = table.pitch[table.of["test"]]
    assert np.isnan(pitch).mean() < 0.05
    apart = np.abs(1200 * np.log2(pitch / np.nanmedian(pitch, 1, keepdims=True)))
    assert np.nanmean(apart > 600) < 0.05, "an octave off"
    assert np.nanstd(1200 * np.log2(np.nanmedian(pitch, 1))) > 400, "they are of many pitches"


# ---------------------------------------------------------------- episodes

def check(tables, made, split):
    """Shapes and kinds; sounds are those of the words and voices that are told; voices are of the split."""
    rows, pairs = made.words.shape
    assert made.sounds.shape == (rows, pairs, FRAMES, NUMBERS) and made.sounds.dtype == torch.float32
    assert made.seen.dtype == torch.bool and all(x.dtype == torch.int64 for x in (made.words, made.said, made.voices))
    assert set(made.voices.flatten().tolist()) == set(tables.of[split])
    for row in range(rows):
        for pair in range(pairs):
            true = tables.values[made.voices[row, pair], made.said[row, pair]]
            assert np.array_equal(made.sounds[row, pair].numpy(), true)


@pytest.mark.parametrize(("split", "k"), [("train", 0), ("validation", 1), ("test", 7)])
def test_words_in_a_voice(tables, split, k):
    made = spoken(tables, dice(), 40, k, split)
    assert made.words.shape == (40, k + 1)
    check(tables, made, split)
    assert torch.equal(made.words, WORD_IDS + made.said)
    assert all(len(set(row)) == k + 1 for row in made.said.tolist()) and (made.voices == made.voices[:, :1]).all()
    assert set(made.said.flatten().tolist()) == set(tables.words_of["train"]), "known words, and no others"
    assert made.seen.tolist() == [[False] + [True] * k] * 40
    assert same(made, spoken(tables, dice(), 40, k, split)) and not same(made, spoken(tables, dice(1), 40, k, split))


def test_a_wrong_voice_is_another_one(tables):
    made, plain = (spoken(tables, dice(), 60, 3, "test", wrong) for wrong in (True, False))
    check(tables, made, "test")
    assert torch.equal(made.said, plain.said) and torch.equal(made.voices[:, -1], plain.voices[:, -1])
    assert torch.equal(made.sounds[:, -1], plain.sounds[:, -1]) and made.seen.tolist() == [[False, True, True, False]] * 60
    assert (made.voices[:, :-1] == made.voices[:, :1]).all() and not (made.voices[:, 0] == made.voices[:, -1]).any()


@pytest.mark.parametrize(("split", "pairs", "k"), [("train", 8, None), ("validation", 2, None), ("test", 99, 2)])
def test_new_words_for_sounds(tables, split, pairs, k):
    made = new_words(tables, dice(), 60, pairs, k, split)
    assert made.words.shape == (60, (2 * k if k else pairs) + 1)
    check(tables, made, split)
    assert set(made.said.flatten().tolist()) == set(tables.words_of[split])
    assert set(made.words.flatten().tolist()) == set(range(LABELS)), "any may be called anything"
    for words, said, voices, seen in zip(*(x.tolist() for x in (made.words, made.said, made.voices, made.seen))):
        assert len(set(words[:-1])) == len(set(said)) == len(set(zip(words, said))) == 2 and words[-1] in words[:-1]
        assert len(set(voices)) == 1 and seen == [word in words[:i] for i, word in enumerate(words)]
        assert k is None or all(words[:-1].count(word) == k for word in words)
    assert same(made, new_words(tables, dice(), 60, pairs, k, split))


def test_new_words_without_support(tables):
    made = new_words(tables, dice(), 60, k=2, split="test", support=False)
    check(tables, made, "test")
    for words, said in zip(made.words.tolist(), made.said.tolist()):
        assert words[-1] not in words[:-1] and said[-1] not in said[:-1] and len(set(said)) == len(set(words)) == 3
    assert not made.seen[:, -1].any()


def test_shuffled_examples_say_the_words_of_others(tables):
    made, plain = (new_words(tables, dice(), 200, k=1, shuffled=shuffled) for shuffled in (True, False))
    check(tables, made, "train")
    assert torch.equal(made.words, plain.words) and torch.equal(made.voices, plain.voices)
    assert torch.equal(made.said[:, -1], plain.said[:, -1]) and not torch.equal(made.said, plain.said)
    assert torch.equal(made.said[:, :-1].sort(0).values, plain.said[:, :-1].sort(0).values)
    match = torch.where(made.words[:, 0] == made.words[:, -1], made.said[:, 0], made.said[:, 1])
    assert abs((match == made.said[:, -1]).float().mean() - 1 / 8) < 0.1, "by chance"


def test_one_net_reads_both(tables):
    torch.manual_seed(0)
    net = EpisodeNet(WORD_IDS + len(tables.names), (FRAMES, NUMBERS), sound=True, width=32, layers=1, heads=1)
    for made in (spoken(tables, dice(), 3, 2), new_words(tables, dice(), 3, k=1, split="test")):
        answers, = net((("words", made.words[..., None]), ("chunk", made.sounds)))
        assert answers.shape == made.sounds.shape
        assert torch.isfinite(sound_loss(answers, made.sounds))


# ---------------------------------------------------------------- what is said

def test_the_loss_counts_frames_with_sound_and_every_end(tables):
    made = spoken(tables, dice(), 4, 2)
    answers = torch.randn(made.sounds.shape)
    errors, ends = [], []
    for said, true in zip(answers.flatten(0, 1), made.sounds.flatten(0, 1)):
        for one, other in zip(said, true):
            ends.append(float((one[0] - other[0]) ** 2))
            if other[0]:
                errors += ((one - other)[1:] ** 2).tolist()
    assert np.isclose(float(sound_loss(answers, made.sounds)), np.mean(errors) + np.mean(ends), rtol=1e-4)
    assert sound_loss(made.sounds, made.sounds) == 0


def test_numbers_become_ids_and_sound(tables):
    values = torch.from_numpy(tables.values[0, 0]) + 0.1 * torch.randn(FRAMES, NUMBERS)
    values[:, 0] = torch.tensor([0.9] * 5 + [0.4] + [0.9] * 10)
    ids = to_ids(tables, values)
    for frame, said in enumerate(ids.tolist()):
        left = values[frame, 1:] * tables.scale
        for level, book in enumerate(tables.codec.codebooks):
            nearest = int(((book - left) ** 2).sum(1).argmin())
            assert said[level] == nearest
            left = left - book[nearest]
    assert len(ids) == 5 and length(values[None]).tolist() == [5]
    sound = to_sound(tables, values)
    assert sound.shape == (5 * 320,) and sound.dtype == np.float32
    assert np.array_equal(sound, tables.codec.decode(ids[None])[0].numpy())
    values[:, 0] = 0
    assert to_ids(tables, values).shape == (1, 4), "one frame at least"


def test_the_pitch_of_a_true_sound_is_kept(tables):
    errors = [pitch_error(to_sound(tables, torch.from_numpy(tables.values[v, w])), tables.pitch[v, w])
              for v in tables.of["test"] for w in range(5)]
    assert np.nanmedian(errors) < 100


def test_pitch_errors_in_cents():
    tone = notes([200])
    assert abs(median_pitch(tone) - 200) < 1
    assert abs(pitch_error(tone, 100) - 1200) < 10 and abs(pitch_error(tone, 400) - 1200) < 10
    assert pitch_error(np.zeros(4000), 200) == float("inf") and np.isnan(pitch_error(tone, float("nan")))


def test_the_nearest_voice_and_word(tables):
    made = spoken(tables, dice(), 200, 0)
    said, voices, sounds = made.said[:, 0], made.voices[:, 0], made.sounds[:, 0]
    assert torch.equal(nearest_voice(tables, sounds, said, tables.of["train"]), voices)
    assert torch.equal(nearest_word(tables, sounds, voices, range(15)), said)
    noisy = sounds + 0.6 * torch.randn(sounds.shape)
    noisy[:, :, 0] = sounds[:, :, 0].roll(1, 0)
    for heard, among in ((nearest_voice(tables, noisy, said, tables.of["test"]), tables.of["test"]),
                         (nearest_word(tables, noisy, voices, range(3, 9)), range(3, 9))):
        assert set(heard.tolist()) <= set(among) and len(set(heard.tolist())) > 2
    for row in range(200):
        ends, away = int(noisy[row, :, 0].sum()), []
        for other in tables.of["test"]:
            frames = max(ends, tables.frames[other, said[row]])
            true = tables.values[other, said[row], :frames]
            away.append(((noisy[row, :frames].numpy() - true) ** 2).mean())
        assert nearest_voice(tables, noisy, said, tables.of["test"])[row] == tables.of["test"][int(np.argmin(away))]


# ---------------------------------------------------------------- what cannot be made

@pytest.mark.parametrize(("make", "said"), [
    (lambda t: SpokenWords((0, 1, 1)), "the number of voices of train is a whole number of 1 or more"),
    (lambda t: SpokenWords(words=(44, 9, 11)), "the number of words of test is at most 10, got 11"),
    (lambda t: spoken(t, dice(), 0), "rows is a whole number"),
    (lambda t: spoken(t, dice(), 4, k=8), "there are 8: k is 0 to 7, got 8"),
    (lambda t: spoken(t, dice(), 4, k=-1), "k is 0 to 7, got -1"),
    (lambda t: spoken(t, dice(), 4, split="dev"), "split is one of train, validation, test, got 'dev'"),
    (lambda t: new_words(t, dice(), 4, k=0), "each class needs an example"),
    (lambda t: new_words(t, dice(), 4, labels=17), "2 to 16 words can be invented, got labels=17"),
    (lambda t: new_words(t, dice(), 4, labels=2, support=False), "3 to 16 words can be invented"),
    (lambda t: new_words(t, dice(), 4, split="all"), "split is one of"),
    (lambda t: new_words(t, dice(), 1, shuffled=True), "take two rows or more"),
    (lambda t: to_ids(t, torch.zeros(2, 16, 65)), "give one at a time"),
])
def test_what_cannot_be_made_says_what_to_do(tables, make, said):
    with pytest.raises(ValueError, match=said):
        make(tables)


def test_one_voice_or_word_is_too_few(tables):
    few = copy(tables)
    few.of, few.words_of = {**tables.of, "test": range(6, 7)}, {**tables.words_of, "test": range(11, 12)}
    with pytest.raises(ValueError, match="test has one voice, so there is no wrong one"):
        spoken(few, dice(), 4, 1, "test", wrong=True)
    with pytest.raises(ValueError, match="test has 1 words, too few for 2 sounds"):
        new_words(few, dice(), 4, split="test")
