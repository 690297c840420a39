"""Chapter 01: bits and entropies against outside oracles, two exact tokenizers, what a scene is worth."""
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmcourse import bits
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment, Vocabulary
from mmcourse.world import letters
from mmcourse.world.scene import BACKGROUNDS, NOUNS, Group, Scene, held_out_pair, sample_scene, scene_bits

# ---------------------------------------------------------------- nominal bits

def test_nominal_bits_count_the_different_rows():
    assert 2 ** bits.token_bits(3, 5) == pytest.approx(5 ** 3)
    assert bits.token_bits(1, 50_000) == pytest.approx(15.61, abs=0.01)
    with pytest.raises(ValueError, match="at least one entry"):
        bits.token_bits(1, 0)


@pytest.mark.parametrize("name, rate, levels, size, kbit", [
    ("Mimi", 12.5, 8, 2048, 1.1), ("EnCodec lowest", 75, 2, 1024, 1.5), ("EnCodec highest", 75, 32, 1024, 24),
    ("MusicGen", 50, 4, 2048, 2.2),
])
def test_rates_of_published_codecs(name, rate, levels, size, kbit):
    assert bits.stack_rate(rate, levels, size) == pytest.approx(1000 * kbit)


def test_budgets():
    assert bits.picture_budget(64, 8, 512) == {"tokens": 64, "bits": 576, "raw bits": 98304, "times smaller": 98304 / 576}
    assert bits.picture_budget(16, 2, 16, channels=1)["bits"] == 256
    second = bits.sound_budget(1, 40, 2, 512)
    assert second["bits"] == bits.stack_rate(25, 2, 512) and second["raw bits"] == 128_000
    assert bits.sound_budget(0.05, 40, 1, 512)["tokens"] == 2                          # a frame that has begun counts
    with pytest.raises(ValueError, match="do not fill"):
        bits.picture_budget(64, 7, 512)


# ---------------------------------------------------------------- two exact tokenizers

@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)).map(
    lambda s: (s[0], 2 * s[1], 2 * s[2])), elements=st.integers(0, 1)))
def test_patches_come_back_exactly(pictures):
    tokens = bits.patch_tokens(pictures)
    assert tokens.shape == (len(pictures), pictures[0].size // 4) and tokens.min() >= 0 and tokens.max() <= 15
    assert (bits.unpatch(tokens, pictures.shape[2]) == pictures).all()
    assert (bits.unpatch(tokens[0], pictures.shape[2]) == pictures[0]).all()            # one picture without a batch


def test_a_patch_is_read_from_left_to_right():
    assert bits.patch_tokens(np.array([[1, 0, 0, 0], [0, 0, 0, 1]])).tolist() == [8, 1]


def test_mu_law_is_its_formula():
    """Against ITU-T G.711's continuous law, written with logarithms of another base, sample by sample."""
    for x in np.linspace(-1, 1, 401):
        squeezed = math.copysign(math.log2(1 + 255 * abs(x)) / 8, x)
        word = int(bits.mu_law(np.array([x]))[0])
        assert abs(word - (squeezed + 1) / 2 * 255) <= 0.5 + 1e-9
    words = np.arange(256)
    assert (bits.mu_law(bits.mu_law_inverse(words)) == words).all()


def test_mu_law_agrees_with_the_telephones():
    """`audioop` holds G.711's own table, which follows the curve in straight pieces: never more than 3 words apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="Python 3.13 dropped audioop")
    samples = np.arange(-32000, 32001, 16, dtype=np.int16)
    code = 255 - np.frombuffer(audioop.lin2ulaw(samples.tobytes(), 2), np.uint8).astype(int)    # sign, then 7 bits of size
    theirs = np.where(code >= 128, 127.5 - (code - 128) - 0.5, 127.5 + code + 0.5)
    apart = np.abs(bits.mu_law(samples / 32768) - theirs)
    assert apart.max() <= 3 and apart.mean() < 1.5


@settings(max_examples=50)
@given(hnp.arrays(np.float64, 50, elements=st.floats(-1, 1)))
def test_mu_law_loses_at_most_half_a_step(samples):
    back = bits.mu_law_inverse(bits.mu_law(samples))
    step = (1 + 255 * np.abs(samples)) * math.log(256) / 255 * 2 / 255                 # f'(x)^-1 times a step of 2 / 255
    assert (np.abs(back - samples) <= 0.55 * step + 1e-9).all()


# ---------------------------------------------------------------- letters

def test_letters_are_small_and_black_and_white():
    which, pictures = letters.letter_pictures(np.random.default_rng(0), 200)
    again = letters.letter_pictures(np.random.default_rng(0), 200)
    assert pictures.shape == (200, 16, 16) and set(np.unique(pictures)) == {0, 1}
    assert set(which) <= set(range(26)) and (again[1] == pictures).all()
    assert pictures.reshape(200, -1).sum(1).min() > 5                                   # every letter has ink
    assert not set(letters.TEST_FONTS) & set(letters.TRAINING_FONTS)


# ---------------------------------------------------------------- measured bits

@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 1000)).filter(lambda c: c.sum() > 0))
def test_entropy_equals_torchs_cross_entropy_with_itself(counts):
    p = torch.tensor(counts[counts > 0] / counts.sum())
    theirs = F.cross_entropy(p.log()[None], p[None]).item() / math.log(2)
    assert bits.entropy_bits(counts) == pytest.approx(theirs, abs=1e-9)
    assert -1e-9 <= bits.entropy_bits(counts) <= math.log2(max(1, len(counts))) + 1e-9


def test_entropy_equals_scipys():
    stats = pytest.importorskip("scipy.stats")
    counts = np.random.default_rng(0).integers(0, 50, size=400)
    assert bits.entropy_bits(counts) == pytest.approx(stats.entropy(counts, base=2), abs=1e-9)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [[1, 2], [3, 4]]])
def test_bad_counts_are_named(counts):
    with pytest.raises(ValueError, match="counts are a flat row"):
        bits.entropy_bits(counts)


@pytest.fixture
def small():
    torch.manual_seed(0)
    vocabulary = Vocabulary(text=20, image=8, audio=6, image_tokens=4)
    return Transformer(vocabulary.size, width=16, layers=1, heads=2, context=32, segment_starts=(1, 3, 5)), vocabulary


def test_segment_bits_are_torchs_cross_entropy(small):
    model, vocabulary = small
    text, image = Segment("text", (3, 4, 5)), Segment("image", (0, 1, 2, 7))
    row = torch.tensor([vocabulary.pack([text, image])])
    with torch.no_grad():
        every = F.cross_entropy(model(row[:, :-1])[0], row[0, 1:], reduction="none") / math.log(2)
    found = bits.segment_bits(model, vocabulary, image, [text])
    assert found.shape == (5,) and np.allclose(found, every[-5:].numpy(), atol=1e-5)    # 4 tokens and the closing one
    first = bits.segment_bits(model, vocabulary, text)
    assert np.allclose(first, every[:4].numpy(), atol=1e-5)                             # the opening token is free


def test_a_model_that_knows_nothing_pays_log2_of_the_vocabulary(small):
    model, vocabulary = small
    torch.nn.init.zeros_(model.head.weight)
    found = bits.segment_bits(model, vocabulary, Segment("image", (0, 1, 2, 7)))
    assert np.allclose(found, math.log2(vocabulary.size), atol=1e-5)


# ---------------------------------------------------------------- what a scene is worth

def scenes_without_sign(background):
    for noun in NOUNS:
        for count in (1, 2, 3, 4):
            for place in ("left", "right") if count <= 2 else ("",):
                yield Scene((Group(noun, count, place),), background)
    for left in NOUNS:
        for right in NOUNS:
            if left != right:
                for a in (1, 2):
                    for b in (1, 2):
                        yield Scene((Group(left, a, "left"), Group(right, b, "right")), background)


@pytest.mark.parametrize("split, wanted", [("train", (False,)), ("held-out", (True,)), ("any", (True, False))])
def test_the_probabilities_of_all_scenes_without_a_sign_sum_to_one_half(split, wanted):
    total = 0.0
    for background in BACKGROUNDS:
        out = {noun: held_out_pair(noun, background) for noun in NOUNS}
        total += sum(2 ** -scene_bits(scene, split) for scene in scenes_without_sign(background)
                     if any(out[g.noun] for g in scene.groups) in wanted)
    assert total == pytest.approx(0.5, abs=1e-9)


def test_a_sign_costs_its_letters():
    plain = Scene((Group("cat", 1, "left"),), "blue")
    signed = Scene((Group("cat", 1, "left"),), "blue", "KITE")
    more = scene_bits(signed, "any") - scene_bits(plain, "any")
    assert more == pytest.approx(4 * math.log2(26) + math.log2(3))


def test_no_fixed_guess_beats_the_entropy_of_the_world():
    """Coding with the wrong dice costs more on average: scenes of one split, priced by the other's rule."""
    scenes = [sample_scene(np.random.default_rng(i), "train") for i in range(300)]
    own, anys = (np.mean([scene_bits(s, split) for s in scenes]) for split in ("train", "any"))
    assert 20 < own < anys
