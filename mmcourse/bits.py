"""What a token can carry and what it does carry: nominal and measured bits, two tokenizers without training.

Sources: Shannon 1948 and 1951 (entropy, and prediction as its measure), ITU-T G.711 (mu-law).
"""
import math

import numpy as np

# ---------------------------------------------------------------- nominal bits

def token_bits(tokens: float, vocab_size: int) -> float:
    """The most that `tokens` tokens can say, in bits: log2 of the number of different rows of them."""
    if vocab_size < 1 or tokens < 0:
        raise ValueError(f"at least one entry and no negative number of tokens, got {vocab_size} and {tokens}")
    return tokens * math.log2(vocab_size)


def stack_rate(frame_rate: float, levels: int, codebook_size: int) -> float:
    """Bits a second of a residual quantizer: `levels` codes in each of `frame_rate` frames a second."""
    return frame_rate * levels * math.log2(codebook_size)


def picture_budget(size: int, patch: int, vocab_size: int, channels: int = 3) -> dict:
    """Tokens and bits of a square picture cut into patches; raw: 8 bits a channel.

    ValueError if patches of that size do not fill it.
    """
    if size % patch:
        raise ValueError(f"patches of {patch} pixels do not fill {size} pixels: "
                         "choose a divisor")
    tokens, raw = (size // patch) ** 2, size * size * channels * 8
    bits = tokens * math.log2(vocab_size)
    return {"tokens": tokens, "bits": bits, "raw bits": raw, "times smaller": raw / bits}


def sound_budget(seconds: float, frame_ms: float, levels: int, vocab_size: int,
                 rate: int = 8000) -> dict:
    """Tokens and bits of a sound in frames of `levels` codes; raw: 16 bits a sample."""
    frames, raw = math.ceil(seconds * 1000 / frame_ms), seconds * rate * 16
    tokens, bits = frames * levels, frames * levels * math.log2(vocab_size)
    return {"tokens": tokens, "bits": bits, "raw bits": raw, "times smaller": raw / bits}


# ---------------------------------------------------------------- two exact tokenizers

def patch_tokens(pictures: np.ndarray) -> np.ndarray:
    """Pictures (..., H, W) of 0 and 1 -> tokens (..., H/2 * W/2): four bits a patch."""
    *batch, height, width = pictures.shape
    grid = pictures.reshape(*batch, height // 2, 2, width // 2, 2)
    patches = grid.swapaxes(-3, -2).reshape(*batch, height * width // 4, 4)
    return patches.astype(np.int64) @ np.array([8, 4, 2, 1])


def unpatch(tokens: np.ndarray, width: int) -> np.ndarray:
    """The exact inverse of `patch_tokens`: tokens (..., n) -> pictures (..., H, width) of 0 and 1."""
    *batch, n = tokens.shape
    bits = (tokens[..., None] >> np.array([3, 2, 1, 0])) & 1               # (..., n, 4)
    grid = bits.reshape(*batch, n * 2 // width, width // 2, 2, 2)          # (..., H/2, W/2, 2, 2)
    return grid.swapaxes(-3, -2).reshape(*batch, n * 4 // width, width)


def mu_law(samples: np.ndarray, mu: int = 255) -> np.ndarray:
    """Sound in [-1, 1] -> tokens 0..mu: fine steps for quiet samples, coarse for loud (ITU-T G.711, 1972)."""
    squeezed = np.sign(samples) * np.log1p(mu * np.abs(samples)) / np.log1p(mu)          # still in [-1, 1]
    return np.floor((squeezed + 1) / 2 * mu + 0.5).astype(np.int64)


def mu_law_inverse(tokens: np.ndarray, mu: int = 255) -> np.ndarray:
    """Tokens 0..mu -> the sound in the middle of each step, in [-1, 1]."""
    squeezed = 2 * tokens / mu - 1
    return np.sign(squeezed) * ((1 + mu) ** np.abs(squeezed) - 1) / mu


# ---------------------------------------------------------------- measured bits

def entropy_bits(counts) -> float:
    """The mean surprise of a draw, in bits, if things happen as often as was counted (Shannon, 1948)."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not counts.sum() > 0 or counts.min() < 0:
        raise ValueError(f"counts are a flat row, none negative, not all zero, got {str(counts)[:60]}")
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def surprise_bits(logits, ids):
    """How surprised a model is by each token, in bits: logits (T, V), the tokens that came (T,) -> (T,)."""
    return -logits.log_softmax(-1).gather(1, ids[:, None])[:, 0] / math.log(2)


def segment_bits(transformer, vocabulary, segment, given=()) -> np.ndarray:
    """Surprise of each token of a segment, in bits, after the segments `given`: (n + 1,).

    The opening token is free (who asks supplies it); the last is the closing one.
    """
    import torch
    before, row = vocabulary.pack(given), vocabulary.pack([*given, segment])
    with torch.no_grad():
        ids = torch.tensor([row[:-1]], device=transformer.device)
        logits = transformer(ids)[0].cpu()                                         # (T, V)
    return surprise_bits(logits, torch.tensor(row[1:]))[len(before):].numpy()
