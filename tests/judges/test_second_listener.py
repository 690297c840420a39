"""The second listener is another network with other teachers, and it can be wrong."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES
from mmcourse.judges.hearing import LENGTH, WordJudge, WordListener, stack, through_codec
from mmcourse.judges.second_listener import SecondListener
from mmcourse.recipes import second_listener as recipe
from mmcourse.recipes.word_judge import word_loss
from mmcourse.world.other_voices import OTHER_VOICES, VALIDATION_VOICES, load_other_voices
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import TAKES, VOICES, load_speech


@pytest.fixture(scope="module")
def listener():
    return checkpoints.load("second_listener")


@pytest.fixture(scope="module")
def clips():
    corpus = load_speech(progress=False)
    chosen = np.random.default_rng(0).choice(corpus.select(), 128, replace=False)
    return [corpus.clips[i] for i in chosen], [corpus.words[i] for i in chosen]


def variants(voices) -> set:
    return {voice.partition("+")[2].lower() for voice in voices}


def test_no_voice_and_no_variant_is_one_of_the_courses():
    assert len(OTHER_VOICES) == len(set(OTHER_VOICES)) == len(variants(OTHER_VOICES))
    assert not variants(OTHER_VOICES) & (variants(VOICES) | {""})
    assert set(VALIDATION_VOICES) < set(OTHER_VOICES)


@pytest.mark.slow                                                      # speaks the other voices if no cache holds them
def test_the_other_voices_are_another_corpus():
    other, course = load_other_voices(progress=False), load_speech(progress=False)
    assert len(other) == len(OTHER_VOICES) * len(WORDS) * TAKES
    assert {OTHER_VOICES[other.voices[i]] for i in other.select(held_out=True)} == set(VALIDATION_VOICES)
    ours, theirs = ({clip.tobytes() for clip in corpus.clips} for corpus in (other, course))
    assert not ours & theirs


@pytest.mark.slow                                                      # speaks the other voices if no cache holds them
def test_training_hears_neither_the_course_nor_the_validation_voices(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the course's voices are not for training")

    monkeypatch.setattr(recipe, "load_speech", refuse)
    batches = recipe.OtherVoiceBatches(8)
    corpus = load_other_voices(progress=False)
    assert len(batches.pairs) == len(corpus) - len(corpus.select(held_out=True)) == len(corpus.select())
    sound, labels = batches(np.random.default_rng(0))
    again, _ = batches(np.random.default_rng(0))
    assert sound.shape == (8, LENGTH) and labels.shape == (8,) and torch.equal(sound, again)
    model = SecondListener(width=4).train()
    result = word_loss(model, sound, labels)
    result["loss"].backward()
    assert result["loss"].isfinite() and all(p.grad is not None for p in model.parameters())


def test_it_is_another_network_behind_the_same_face(listener):
    assert isinstance(listener, WordListener) and not isinstance(listener, WordJudge)
    assert listener.words == WORDS
    assert not any(isinstance(module, torch.nn.Conv2d) for module in listener.modules())
    assert sum(p.numel() for p in listener.parameters()) < 400_000


def test_shapes(listener, clips):
    sound = stack(clips[0][:3])
    features = listener.features(sound)
    assert features.shape == (3, 40, 104) and listener(features).shape == (3, len(WORDS))
    p = listener.probabilities(sound)
    assert p.shape == (3, len(WORDS)) and torch.allclose(p.sum(1), torch.ones(3), atol=1e-5)
    assert torch.allclose(p[:1], listener.probabilities(sound[0] * 0.2), atol=1e-3)      # loudness is no clue
    assert listener.hear(sound[1]) == listener.hear(sound)[1:2]


@pytest.mark.parametrize("sound, error, match", [
    (np.array([np.nan, 0.0]), ValueError, "NaN"),
    (np.zeros(0), ValueError, "empty"),
    (np.zeros((2, 3, 100)), ValueError, "shape"),
    (np.zeros(100, np.int16), TypeError, "int16"),
])
def test_bad_sound_is_refused(listener, sound, error, match):
    with pytest.raises(error, match=match):
        listener.hear(sound)


@pytest.mark.parametrize("sound", [np.zeros(8000), np.zeros(80), np.random.default_rng(0).normal(size=9_000)])
def test_odd_sounds_are_heard_as_some_word(listener, sound):
    assert listener.hear(sound)[0] in WORDS


def test_it_hears_voices_that_it_never_met(listener, clips):
    assert listener.accuracy(*clips) > 0.9


def test_it_can_be_wrong(listener, clips):
    torch.manual_seed(0)
    assert SecondListener().eval().accuracy(*clips) < 0.1                   # untrained: chance is 1 in 84
    assert listener.accuracy(clips[0], clips[1][1:] + clips[1][:1]) < 0.15  # shuffled labels
    noise = list(np.random.default_rng(0).normal(0, 0.1, (64, 4000)).astype(np.float32))
    assert listener.accuracy(noise, clips[1][:64]) < 0.15


def test_it_hears_what_the_codec_leaves(listener, clips):
    sound = through_codec(checkpoints.load("codec"), stack(clips[0][:32], CLIP_SAMPLES))
    assert sound[2].shape == (32, CLIP_SAMPLES)
    assert listener.accuracy(sound[2], clips[1][:32]) > 0.8


def test_a_batch_larger_than_a_part_is_heard_as_its_rows_are(listener, clips):
    sound = stack(clips[0] + clips[0][:10])
    assert listener.hear(sound)[-10:] == listener.hear(sound[:10])


def test_the_manifest_records_the_ceilings():
    metrics = checkpoints.manifest()["second_listener"]["metrics"]
    assert metrics["training_voices_coded"] > 0.9
    assert set(metrics) == {"validation_voices", "held_out_voices", "held_out_voices_coded",
                            "training_voices", "training_voices_coded"}
