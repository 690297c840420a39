"""Exercises of chapter 01: bits of tokens, a codec's rate, from patches back, mu-law, entropy, surprise."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.bits import (
    entropy_bits,
    mu_law,
    mu_law_inverse,
    patch_tokens,
    stack_rate,
    surprise_bits,
    token_bits,
    unpatch,
)
from mmcourse.exercises import register

# ---------------------------------------------------------------- how much a row of tokens can say

def _counts_entries(tokens, vocab_size):
    return tokens * vocab_size


def _natural(tokens, vocab_size):
    return tokens * math.log(vocab_size)


def _whole_bits(tokens, vocab_size):
    return tokens * math.ceil(math.log2(vocab_size))


def _one_token(tokens, vocab_size):
    return math.log2(vocab_size)


@register("01.token_bits", reference=token_bits, minutes=2, difficulty=1,
          wrong=[_counts_entries, _natural, _whole_bits, _one_token],
          hint="One token answers log2(vocab_size) yes-or-no questions; n tokens answer n times as many.")
def check_token_bits(fn):
    cases = [(1, 2, 1), (1, 512, 9), (64, 512, 576), (3, 50_000, 46.829), (5, 1, 0), (2, 10, 6.644)]
    for tokens, vocab_size, expected in cases:
        got = fn(tokens, vocab_size)
        assert got is not None and abs(got - expected) < 0.001, \
            f"{tokens} tokens of a vocabulary of {vocab_size} can say {expected} bits, not {got}"


# ---------------------------------------------------------------- the rate of a codec

def _forgets_levels(frame_rate, levels, codebook_size):
    return frame_rate * math.log2(codebook_size)


def _one_large_codebook(frame_rate, levels, codebook_size):
    return frame_rate * math.log2(levels * codebook_size)


def _tokens_a_second(frame_rate, levels, codebook_size):
    return frame_rate * levels


@register("01.stack_rate", reference=stack_rate, minutes=2, difficulty=1,
          wrong=[_forgets_levels, _one_large_codebook, _tokens_a_second],
          hint="frames a second, times codes a frame, times bits a code.")
def check_stack_rate(fn):
    cases = [(25, 4, 512, 900), (75, 8, 1024, 6000), (12.5, 8, 2048, 1100), (50, 1, 2, 50)]
    for rate, levels, size, expected in cases:
        got = fn(rate, levels, size)
        assert got is not None and abs(got - expected) < 1e-6, \
            f"{rate} frames a second, {levels} codes out of {size} each: {expected} bits a second, not {got}"


# ---------------------------------------------------------------- from tokens back to a picture

def _bits_backwards(tokens, width):
    *batch, n = tokens.shape
    bits = (tokens[..., None] >> np.array([0, 1, 2, 3])) & 1
    grid = bits.reshape(*batch, n * 2 // width, width // 2, 2, 2).swapaxes(-3, -2)
    return grid.reshape(*batch, n * 4 // width, width)


def _forgets_to_swap(tokens, width):
    *batch, n = tokens.shape
    bits = (tokens[..., None] >> np.array([3, 2, 1, 0])) & 1
    return bits.reshape(*batch, n * 4 // width, width)


def _always_16_wide(tokens, width):
    return unpatch(tokens, 16) if tokens.shape[-1] % 8 == 0 else unpatch(tokens, width) * 0


def _one_picture_alone(tokens, width):
    return unpatch(tokens.reshape(-1), width)


@register("01.unpatch", reference=unpatch, minutes=10, difficulty=2,
          wrong=[_bits_backwards, _forgets_to_swap, _always_16_wide, _one_picture_alone],
          hint="Read four bits of each token with >> and & 1; undo what patch_tokens does, last step first.")
def check_unpatch(fn):
    rng = np.random.default_rng(0)
    for shape in [(2, 2), (4, 4), (16, 16), (4, 8), (6, 2), (3, 8, 8), (2, 3, 4, 6)]:
        picture = rng.integers(2, size=shape)
        got = np.asarray(fn(patch_tokens(picture), shape[-1]))
        assert got.shape == shape, f"the tokens of pictures of shape {shape} came back as shape {got.shape}"
        wrong = int((got != picture).sum())
        assert wrong == 0, (f"{wrong} of {picture.size} pixels of a picture {shape} came back wrong; "
                            f"token 8 is ink in the upper left corner of its patch, token 1 in the lower right")


# ---------------------------------------------------------------- mu-law

def _linear(samples, mu=255):
    return np.floor((samples + 1) / 2 * mu + 0.5).astype(np.int64)


def _loses_the_sign(samples, mu=255):
    squeezed = np.log1p(mu * np.abs(samples)) / np.log1p(mu)
    return np.floor((squeezed + 1) / 2 * mu + 0.5).astype(np.int64)


def _one_too_many(samples, mu=255):
    squeezed = np.sign(samples) * np.log1p(mu * np.abs(samples)) / np.log1p(mu)
    return np.floor((squeezed + 1) / 2 * (mu + 1)).astype(np.int64)


def _not_rounded(samples, mu=255):
    squeezed = np.sign(samples) * np.log1p(mu * np.abs(samples)) / np.log1p(mu)
    return ((squeezed + 1) / 2 * mu).astype(np.int64)


def _divides_by_log_mu(samples):
    x = np.asarray(samples, float)
    return np.round((np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(255) + 1) / 2 * 255).astype(np.int64)


@register("01.mu_law", reference=mu_law, minutes=7, difficulty=2,
          wrong=[_linear, _loses_the_sign, _one_too_many, _not_rounded, _divides_by_log_mu],
          hint="np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu) is in [-1, 1]; move it to 0..mu, round.")
def check_mu_law(fn):
    for sample, expected in [(0.0, 128), (1.0, 255), (-1.0, 0), (0.01, 157), (-0.01, 98), (0.5, 239)]:
        got = np.asarray(fn(np.array([sample])))
        assert got.shape == (1,), f"one sample (1,) gives one token (1,), but yours have the shape {got.shape}"
        assert got[0] == expected, f"the sample {sample} is token {expected}, not {got[0]}"
    tokens = np.arange(256)
    got = np.asarray(fn(mu_law_inverse(tokens)))
    assert np.issubdtype(got.dtype, np.integer), f"tokens are whole numbers (int64), got {got.dtype}"
    lost = tokens[got != tokens]
    assert not len(lost), f"token {lost[0]} must come back as itself, but it comes back as {got[lost[0]]}"
    samples = np.linspace(-1, 1, 4001)
    other = samples[np.asarray(fn(samples)) != mu_law(samples)]
    assert not len(other), (f"the sample {other[0]:.4f} is token {mu_law(other[:1])[0]}, not {np.asarray(fn(other[:1]))[0]}: "
                            "close, but is it log(1 + mu |x|) over log(1 + mu), and rounded to the nearest?")


# ---------------------------------------------------------------- entropy

def _natural_entropy(counts):
    return entropy_bits(counts) * math.log(2)


def _trips_over_zero(counts):
    p = np.asarray(counts, float) / np.sum(counts)
    return float(-(p * np.log2(p + 1e-3)).sum())


def _does_not_normalize(counts):
    p = np.asarray([c for c in counts if c], float)
    return float(-(p * np.log2(p / p.sum())).sum())


def _plain_mean(counts):
    p = np.asarray([c for c in counts if c], float) / np.sum(counts)
    return float(-np.log2(p).mean())


@register("01.entropy_bits", reference=entropy_bits, minutes=4, difficulty=1,
          wrong=[_natural_entropy, _trips_over_zero, _does_not_normalize, _plain_mean],
          hint="Counts over their sum are p; leave out what never happened; minus the sum of p * log2(p).")
def check_entropy(fn):
    cases = [([1, 1], 1), ([5, 0, 5], 1), ([7], 0), ([1] * 512, 9), ([1, 3], 0.81128), ([2, 1, 1], 1.5)]
    for counts, expected in cases:
        for given in (counts, np.array(counts)):                # a list will do as well as an array
            got = fn(given)
            assert got is not None and abs(got - expected) < 1e-4, \
                f"counts {counts if len(counts) < 9 else '512 times 1'} have entropy {expected}, not {got}"


# ---------------------------------------------------------------- surprise

def _in_nats(logits, ids):
    return surprise_bits(logits, ids) * math.log(2)


def _wrong_axis(logits, ids):
    return -logits.log_softmax(0).gather(1, ids[:, None])[:, 0] / math.log(2)


def _one_mean(logits, ids):
    return F.cross_entropy(logits, ids) / math.log(2)


def _no_softmax(logits, ids):
    return -logits.gather(1, ids[:, None])[:, 0] / math.log(2)


def _ids_without_a_column(logits, ids):
    return -logits.log_softmax(-1).gather(1, ids) / math.log(2)


def _mean_of_the_die(logits, ids):
    p = logits.softmax(-1)
    return -(p * p.log2()).sum(-1)


@register("01.surprise_bits", reference=surprise_bits, minutes=4, difficulty=2,
          wrong=[_in_nats, _wrong_axis, _one_mean, _no_softmax, _ids_without_a_column, _mean_of_the_die],
          hint="logits.log_softmax(-1) are natural logs; gather the entry of each token; divide by ln 2.")
def check_surprise(fn):
    try:
        fair = fn(torch.zeros(3, 8), torch.tensor([0, 5, 7]))
    except RuntimeError as error:
        assert "dimensions" not in str(error), "gather wants as many dimensions in its index as in the logits: ids[:, None]"
        raise
    assert fair is not None and tuple(fair.shape) == (3,), \
        f"give one number for each of the 3 tokens, not {getattr(fair, 'shape', fair)}"
    assert torch.allclose(fair, torch.full((3,), 3.0)), \
        f"a fair choice of 8 surprises by 3 bits each time, not by {fair.tolist()}"
    torch.manual_seed(1)
    for T, V in [(4, 5), (7, 300), (1, 2)]:
        logits, ids = 3 * torch.randn(T, V), torch.randint(V, (T,))
        expected = F.cross_entropy(logits, ids, reduction="none") / math.log(2)
        got = fn(logits, ids)
        assert torch.allclose(got, expected, atol=1e-4), \
            f"for logits of shape {(T, V)} the surprise is {expected.tolist()[:4]}, not {got.tolist()[:4]}"
