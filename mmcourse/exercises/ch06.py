"""Exercises of chapter 06: packing segments, the unigram floor, modality masks, guidance."""
import math
from collections import Counter

import torch

from mmcourse.exercises import register
from mmcourse.generate import modality_mask
from mmcourse.vocabulary import CLOSE, OPEN, Segment, Vocabulary

TINY = Vocabulary(text=5, image=4, audio=3, audio_levels=2, image_tokens=4)


# ---------------------------------------------------------------- segments -> one sequence

def pack(vocabulary, segments) -> list[int]:
    """Each segment's ids, moved into their range, between its two boundary tokens."""
    out = []
    for segment in segments:
        out += [OPEN[segment.modality], *vocabulary.shift(segment), CLOSE[segment.modality]]
    return out


def _not_shifted(vocabulary, segments):
    return [i for s in segments for i in (OPEN[s.modality], *s.ids, CLOSE[s.modality])]


def _never_closed(vocabulary, segments):
    return [i for s in segments for i in (OPEN[s.modality], *vocabulary.shift(s))]


def _one_range_for_all_levels(vocabulary, segments):
    return [i for s in segments
            for i in (OPEN[s.modality], *(vocabulary.ranges[s.modality].start + j for j in s.ids), CLOSE[s.modality])]


@register("06.pack", reference=pack, minutes=5, difficulty=1,
          wrong=[_not_shifted, _never_closed, _one_range_for_all_levels],
          hint="For each segment: OPEN[segment.modality], then vocabulary.shift(segment), then CLOSE[segment.modality].")
def check_pack(fn):
    text, image, audio = Segment("text", (0, 4)), Segment("image", (3, 0, 1, 2)), Segment("audio", (2, 0, 1, 2))
    for segments in ([], [text], [image], [audio], [text, image], [audio, text, image, text], [Segment("text", ())]):
        got, expected = list(fn(TINY, segments)), TINY.pack(segments)
        kinds = " + ".join(s.modality for s in segments) or "nothing"
        assert got == expected, f"for {kinds} the sequence must be {expected}, but it is {got}"


# ---------------------------------------------------------------- the floor to beat

def unigram_bits(ids) -> float:
    """Entropy of the tokens' frequencies, in bits per token: what counting alone can predict."""
    counts = Counter(ids)
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def _in_nats(ids):
    return unigram_bits(ids) * math.log(2)


def _as_if_all_were_alike(ids):
    return math.log2(len(set(ids)))


def _of_the_whole_text(ids):
    return unigram_bits(ids) * len(ids)


@register("06.unigram_bits", reference=unigram_bits, minutes=8, difficulty=1,
          wrong=[_in_nats, _as_if_all_were_alike, _of_the_whole_text],
          hint="Counter(ids) counts; p = n / total; the entropy is the sum of -p log2(p).")
def check_unigram_bits(fn):
    for ids, bits in (([7, 7, 7, 7], 0.0), ([1, 2], 1.0), ([0, 1, 2, 3] * 3, 2.0), ([5, 5, 5, 9], 0.8112781)):
        got = fn(ids)
        assert abs(float(got) - bits) < 1e-4, f"the tokens {ids} carry {bits:.4f} bits each, but you say {float(got):.4f}"


# ---------------------------------------------------------------- what may come next

def _closes_at_any_time(vocabulary, modality, index, limit):
    mask = modality_mask(vocabulary, modality, index, limit)
    mask[CLOSE[modality]] = True
    return mask


def _forgets_the_levels(vocabulary, modality, index, limit):
    mask = modality_mask(vocabulary, modality, index, limit)
    if mask[list(vocabulary.ranges[modality])].any():
        mask[list(vocabulary.ranges[modality])] = True
    return mask


def _never_closes(vocabulary, modality, index, limit):
    mask = torch.zeros(vocabulary.size, dtype=torch.bool)
    allowed = vocabulary.allowed(modality, index)
    mask[allowed.start:allowed.stop] = True
    return mask


def _ignores_the_limit(vocabulary, modality, index, limit):
    return modality_mask(vocabulary, modality, index, 10**9)


@register("06.modality_mask", reference=modality_mask, minutes=15, difficulty=2,
          wrong=[_closes_at_any_time, _forgets_the_levels, _never_closes, _ignores_the_limit],
          hint="Start with zeros. Unless the segment is full, the ids of vocabulary.allowed(modality, index) become True; "
               "if vocabulary.may_close(modality, index), CLOSE[modality] does.")
def check_modality_mask(fn):
    for modality, limit, places in (("image", 4, range(5)), ("text", 3, range(4)), ("audio", 4, range(5))):
        for index in places:
            got, expected = fn(TINY, modality, index, limit), modality_mask(TINY, modality, index, limit)
            assert isinstance(got, torch.Tensor) and got.dtype == torch.bool and got.shape == expected.shape, \
                f"give a tensor of {TINY.size} booleans back"
            got, expected = got.nonzero().flatten().tolist(), expected.nonzero().flatten().tolist()
            assert got == expected, (f"{modality}, content token {index}, limit {limit}: the ids {expected} may come "
                                     f"(the closing token is {CLOSE[modality]}), but your mask allows {got}")


# ---------------------------------------------------------------- classifier-free guidance

def guided(with_prompt, empty, scale):
    """Logits pushed away from what would be said without a prompt."""
    return empty + scale * (with_prompt - empty)


def _the_wrong_way(with_prompt, empty, scale):
    return with_prompt + scale * (empty - with_prompt)


def _once_too_often(with_prompt, empty, scale):
    return with_prompt + scale * (with_prompt - empty)


def _a_mean(with_prompt, empty, scale):
    return (with_prompt + scale * empty) / (1 + scale)


@register("06.guided", reference=guided, minutes=5, difficulty=1, wrong=[_the_wrong_way, _once_too_often, _a_mean],
          hint="Scale 0 must give `empty`, scale 1 `with_prompt`; larger scales go on in the same direction.")
def check_guided(fn):
    a, b = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.0, 0.5, 1.0])
    for scale, said in ((0.0, "scale 0 forgets the prompt"), (1.0, "scale 1 changes nothing"), (3.0, "scale 3 goes beyond")):
        got, expected = fn(a, b, scale), b + scale * (a - b)
        assert torch.allclose(got, expected), f"{said}: the logits must be {expected.tolist()}, but they are {got.tolist()}"
