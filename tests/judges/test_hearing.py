"""The judges of spoken words: right on held-out voices, lost on shuffled labels, clear on bad input."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.judges import hearing
from mmcourse.judges.hearing import SphinxJudge, WordJudge, pesq, stack, stoi
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import load_speech


@pytest.fixture(scope="module")
def judge():
    return checkpoints.load("word_judge")


@pytest.fixture(scope="module")
def clips():
    corpus = load_speech(progress=False)
    chosen = np.random.default_rng(0).choice(corpus.select(held_out=True), 64, replace=False)
    return [corpus.clips[i] for i in chosen], [corpus.words[i] for i in chosen]


def test_the_judge_hears_held_out_voices(judge, clips):
    assert judge.words == WORDS
    assert judge.accuracy(*clips) > 0.85
    assert judge.accuracy(clips[0], clips[1][1:] + clips[1][:1]) < 0.15              # shuffled labels: it cannot be right


def test_probabilities_and_loudness(judge, clips):
    one = clips[0][0]
    p = judge.probabilities(one)
    assert p.shape == (1, len(WORDS)) and p.sum().item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(p, judge.probabilities(one * 0.2), atol=1e-3)
    assert judge.hear(one) == judge.hear(torch.from_numpy(one)[None])


@pytest.mark.parametrize("samples", [np.zeros(8000), np.zeros(80), np.random.default_rng(0).normal(size=480_000)])
def test_the_judge_survives_odd_sounds(judge, samples):
    assert judge.hear(samples)[0] in WORDS


def test_bad_input(judge):
    with pytest.raises(ValueError, match="NaN"):
        judge.hear(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match="empty"):
        judge.hear(np.zeros(0))
    with pytest.raises(TypeError, match="int16"):
        judge.hear(np.zeros(100, np.int16))


def test_stack():
    out = stack([np.ones(10), torch.ones(20000)])
    assert out.shape == (2, hearing.LENGTH) and out[0].sum() == 10 and out[1].min() == 1


def test_stoi_and_pesq_fall_with_noise(clips):
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    clean = np.concatenate(clips[0][:8])
    noise = np.random.default_rng(0).normal(size=len(clean))
    assert stoi(clean, clean) > 0.999 and pesq(clean, clean) > 4
    assert stoi(clean, clean + 0.02 * noise) > stoi(clean, clean + 0.2 * noise)
    assert pesq(clean, clean + 0.002 * noise) > pesq(clean, clean + 0.2 * noise)
    with pytest.raises(ValueError, match="join several words"):
        stoi(clean[:3000], clean[:3000])
    with pytest.raises(ValueError, match="silent"):
        pesq(np.zeros(8000), np.zeros(8000))


def test_missing_extra_is_said_clearly():
    with pytest.raises(ImportError, match=r"pip install 'mmcourse\[test\]'"):
        hearing._extra("surely_not_installed")


def test_sphinx(clips):
    pytest.importorskip("pocketsphinx")
    sphinx = SphinxJudge()
    assert len(sphinx.unknown) <= 2
    heard = sphinx.hear(clips[0][:12] + [np.zeros(800)])
    assert len(heard) == 13 and all(word == "" or word in WORDS for word in heard)


def test_training_sees_no_held_out_voice():
    from mmcourse.recipes.word_judge import WordBatches, word_loss
    batches = WordBatches(8, humans=False)
    assert len(batches.pairs) == len(load_speech(progress=False).select())
    sound, labels = batches(np.random.default_rng(0))
    model = WordJudge(width=4).train()
    result = word_loss(model, sound, labels)
    result["loss"].backward()
    assert sound.shape == (8, hearing.LENGTH) and result["loss"].isfinite()
