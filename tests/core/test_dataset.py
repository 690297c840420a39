"""Training data of the reference model: augmented speech, chains of segments and their weights."""
import numpy as np
import pytest
import torch

from mmcourse.dataset import (
    GIVEN_WEIGHT,
    Clips,
    Mixture,
    confuse_codes,
    fresh_edit,
    near_codes,
    pad,
    stretch,
)
from mmcourse.vocabulary import CLOSE, OPEN, Vocabulary
from mmcourse.world.augment import augment, change_speed, equalise, perturb_vocal_tract, reverberate
from mmcourse.world.edits import sample_edit
from mmcourse.world.scene import caption, sample_scene


class Letters:
    """A stand-in for the text tokenizer: one id a character."""

    def encode(self, text):
        return [ord(c) % 100 for c in text]


@pytest.fixture
def mixture():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(4)]
    words = [s.groups[0].noun for s in scenes]
    clips = Clips([np.arange(6) + i for i in range(4)], words)
    people = Clips([np.full(4, 30 + i) for i in range(2)], ["one", "two"])
    heard = Clips([np.arange(8) + 10 * i for i in range(4)], words)
    return Mixture(Vocabulary(100, 64, 64, 2), Letters(), scenes, np.zeros((4, 64), np.int16), clips,
                   {"audio->text->image": 2, "text->audio": 1}, 4.0, heard, people)


def test_augment_is_finite_level_and_depends_on_the_generator_alone():
    voice = np.sin(np.arange(4000) * 0.3).astype(np.float32) * 0.1
    a, b = (augment(voice, np.random.default_rng(i)) for i in (0, 0))
    assert np.array_equal(a, b) and a.dtype == np.float32 and np.isfinite(a).all() and np.abs(a).max() <= 1
    assert not np.array_equal(a[:3000], augment(voice, np.random.default_rng(1))[:3000])
    assert np.sqrt((a**2).mean()) == pytest.approx(0.1, rel=0.3)


def test_augment_survives_silence():
    assert np.isfinite(augment(np.zeros(2000, np.float32), np.random.default_rng(3))).all()


def test_faster_moves_pitch_and_length():
    tone = np.sin(2 * np.pi * 400 * np.arange(8000) / 8000)
    quick = change_speed(tone, 1.25)
    assert len(quick) == pytest.approx(6400, abs=2)
    assert np.fft.rfftfreq(len(quick), 1 / 8000)[np.abs(np.fft.rfft(quick)).argmax()] == pytest.approx(500, abs=5)


def test_a_mouth_moves_the_formants_and_nothing_else():
    """A buzz of 125 Hz through one resonance at 1,000 Hz: the harmonics stay, the loudest one is another."""
    time = np.arange(8000) / 8000
    harmonics = np.arange(1, 30) * 125
    buzz = sum(np.sin(2 * np.pi * f * time) * np.exp(-((f - 1000) / 200)**2) for f in harmonics)

    def loudest(sound):
        return np.fft.rfftfreq(8000, 1 / 8000)[np.abs(np.fft.rfft(sound)).argmax()]

    same, up, down = (perturb_vocal_tract(buzz, ratio) for ratio in (1.0, 1.25, 0.8))
    np.testing.assert_allclose(same, buzz, atol=1e-9)
    assert loudest(buzz) == 1000 and loudest(up) == pytest.approx(1250, abs=130) and loudest(down) == pytest.approx(800, abs=130)
    for sound in (up, down):
        assert sound.shape == buzz.shape and loudest(sound) % 125 == pytest.approx(0, abs=2)
    assert np.isfinite(perturb_vocal_tract(np.zeros(100), 1.2)).all()


def test_mishearing_takes_a_code_for_one_that_sounds_like_it():
    books = [torch.arange(8.0)[:, None] * scale for scale in (1.0, -2.0)]
    near = near_codes(books, k=2)
    assert near.shape == (2, 8, 2) and set(near[0, 3]) == {2, 4} and set(near[1, 0]) == {1, 2}
    tokens = np.array([3, 0] * 2000)
    heard = confuse_codes(tokens, near, np.random.default_rng(0), rate=0.25)
    assert set(heard[::2]) == {2, 3, 4} and set(heard[1::2]) == {0, 1, 2}
    assert (heard != tokens).mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(confuse_codes(tokens, near, np.random.default_rng(0), rate=0.0), tokens)


def test_edits_come_in_the_shares_that_were_asked_for(mixture):
    rng = np.random.default_rng(1)
    edits = [sample_edit(rng, "train") for _ in range(300)]
    mixture.edits = edits, np.zeros((300, 2, 64), np.int16)
    asked = Mixture(mixture.vocabulary, mixture.bpe, mixture.scenes, mixture.images, mixture.clips, {}, edits=mixture.edits,
                    kinds={"sign": 2, "long sign": 1, "remove": 1})
    kinds = [edits[asked.edit(rng)].kind for _ in range(400)]
    assert set(kinds) == {"sign", "remove"} and kinds.count("sign") == pytest.approx(300, abs=40)
    words = [asked.edit(rng) for _ in range(400)]
    assert {len(edits[i].after.sign) for i in words} >= {0, 3, 4, 5}
    asked.kinds = {"long sign": 1}
    assert all(len(edits[asked.edit(rng)].after.sign) > 3 for _ in range(50))
    assert all(len(fresh_edit(rng, "long sign").after.sign) > 3 for _ in range(50))
    one_of_two = [fresh_edit(rng, "noun of two") for _ in range(50)]
    assert {(e.kind, len(e.before.groups), len(e.after.groups)) for e in one_of_two} == {("noun", 2, 2)}
    picture, instruction, said = asked.pair("image+text->text", rng)
    assert [s.modality for s in (picture, instruction, said)] == ["image", "text", "text"]
    assert [s.modality for s in asked.pair("image+text->text->image", rng)] == ["image", "text", "text", "image"]
    seen = {asked.pair("text+text->text", rng)[1].ids for _ in range(50)}
    assert len(seen) > 40, "captions are edited anew each time"


def test_room_and_microphone_keep_the_length():
    noise = np.random.default_rng(0).normal(size=3001)
    for change in (equalise, reverberate):
        out = change(noise, np.random.default_rng(1))
        assert out.shape == noise.shape and not np.allclose(out, noise)


def test_stretch_keeps_whole_frames_in_order():
    tokens = np.arange(40)
    for seed in range(20):
        frames = stretch(tokens, 2, np.random.default_rng(seed)).reshape(-1, 2)
        assert (frames[:, 1] == frames[:, 0] + 1).all() and (np.diff(frames[:, 0]) >= 0).all() and len(frames)
    assert len({len(stretch(tokens, 2, np.random.default_rng(s))) for s in range(20)}) > 1
    assert np.array_equal(stretch(tokens, 2, np.random.default_rng(0), rate=0.0), tokens)


def test_clips_pick_by_word():
    clips = Clips([np.array([1]), np.array([2]), np.array([3])], ["a", "b", "a"])
    rng = np.random.default_rng(0)
    assert {int(clips.pick(rng, "a")[0][0]) for _ in range(30)} == {1, 3}
    assert {clips.pick(rng)[1] for _ in range(30)} == {"a", "b"}
    with pytest.raises(KeyError):
        clips.pick(rng, "c")


def test_a_chain_has_its_segments_in_order_and_one_meaning(mixture):
    for seed in range(10):
        audio, text, image = mixture.pair("audio->text->image", np.random.default_rng(seed))
        assert [s.modality for s in (audio, text, image)] == ["audio", "text", "image"]
        assert text.ids in {tuple(Letters().encode(" " + s.groups[0].noun)) for s in mixture.scenes}


def test_a_picture_is_described_before_it_is_named_aloud(mixture):
    _, text, _ = mixture.pair("image->text->audio", np.random.default_rng(1))
    assert text in mixture.captions, "the same text as in image->text, or the two would compete"


def test_the_model_learns_to_say_clean_speech_alone(mixture):
    clean = {tuple(t.tolist()) for t in mixture.clips.tokens}
    said = {mixture.pair("text->audio", np.random.default_rng(s))[1].ids for s in range(40)}
    assert said <= clean


def test_people_are_heard_in_transcription_only(mixture):
    def spoken_by_a_person(segment):
        return set(segment.ids) <= {30, 31}
    heard = [mixture.pair("audio->text", np.random.default_rng(s))[0] for s in range(200)]
    assert 10 < sum(map(spoken_by_a_person, heard)) < 60
    assert not any(spoken_by_a_person(mixture.pair("audio->image", np.random.default_rng(s))[0]) for s in range(60))


def test_weights_count_answers_and_leave_the_choice_to_open_to_the_asker(mixture):
    segments = mixture.pair("audio->text->image", np.random.default_rng(0))
    ids, weights = mixture.weighted(segments)
    assert ids == mixture.vocabulary.pack(segments) and len(ids) == len(weights)
    given, given_weight = len(segments[0].ids) + 2, GIVEN_WEIGHT["audio"]
    assert set(weights[:given + 1]) == {given_weight} and ids[given] == OPEN["text"]
    text_end = ids.index(CLOSE["text"])
    assert set(weights[given + 1:text_end + 1]) == {4.0}
    assert weights[text_end + 1] == given_weight and set(weights[text_end + 2:]) == {1.0}


def test_a_batch_is_padded_and_the_same_for_the_same_generator(mixture):
    first, second = mixture.batch(np.random.default_rng(5)), mixture.batch(np.random.default_rng(5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert [len(x) for x in first] == [1] * 6 and first[0].shape == first[1].shape
    assert [x.shape[1] for x in first] == sorted(x.shape[1] for x in first), "short ones apart from long ones"
    assert pad([[1], [1, 2]]).tolist() == [[1, 0], [1, 2]]


@pytest.mark.parametrize(("direction", "modalities", "given"), [
    ("image+text->image", ["image", "text", "image"], 2), ("image+text->text->image", ["image", "text", "text", "image"], 2),
    ("text+text->text", ["text", "text", "text"], 2)])
def test_edits_are_given_a_picture_or_its_caption_and_an_instruction(mixture, direction, modalities, given):
    edits = [sample_edit(np.random.default_rng(1))]
    pictures = np.stack([np.zeros(64, np.int16), np.ones(64, np.int16)])[None]           # (n, 2, 64): before, after
    world = Mixture(mixture.vocabulary, Letters(), mixture.scenes, mixture.images, mixture.clips, {direction: 1}, 4.0,
                    edits=(edits, pictures))
    segments = world.pair(direction, np.random.default_rng(0))
    assert [s.modality for s in segments] == modalities
    text = {name: world.text(said) for name, said in (("before", caption(edits[0].before)), ("after", caption(edits[0].after)),
                                                      ("change", edits[0].instruction))}
    assert segments[1] == text["change"] and segments[0] == (text["before"] if modalities[0] == "text"
                                                             else world.image(pictures[0, 0]))
    assert segments[-1] == (text["after"] if modalities[-1] == "text" else world.image(pictures[0, 1]))
    if len(segments) == 4:
        assert segments[2] == text["after"]
    ids, weights = world.weighted(segments, given)
    start = len(world.vocabulary.pack(segments[:given]))
    assert max(weights[:start]) <= max(GIVEN_WEIGHT.values()) and weights[-1] == (4.0 if modalities[-1] == "text" else 1.0)
    assert all(part.shape == (1, len(ids)) for part in world.batch(np.random.default_rng(0)))
