"""Exercises of chapter 06: packing, the unigram floor, what the loss counts, masks, guidance, calibration."""
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
    return [i for s in segments for i in (OPEN[s.modality],
                                          *(vocabulary.ranges[s.modality].start + j for j in s.ids),
                                          CLOSE[s.modality])]


@register("06.pack", reference=pack, minutes=5, difficulty=1,
          wrong=[_not_shifted, _never_closed, _one_range_for_all_levels],
          hint="For each segment: OPEN[segment.modality], then vocabulary.shift(segment), then "
               "CLOSE[segment.modality].")
def check_pack(fn):
    text, image = Segment("text", (0, 4)), Segment("image", (3, 0, 1, 2))
    audio = Segment("audio", (2, 0, 1, 2))
    for segments in ([], [text], [image], [audio], [text, image], [audio, text, image, text],
                     [Segment("text", ())]):
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
        assert abs(float(got) - bits) < 1e-4, (
            f"the tokens {ids} carry {bits:.4f} bits each, but you say {float(got):.4f}")


# ---------------------------------------------------------------- what the loss counts

def answer_weights(vocabulary, segments, given) -> list[float]:
    """1 for each id that has to be answered, 0 for the `given` first segments and for the
    answers' opening tokens."""
    out = []
    for number, segment in enumerate(segments):
        n = len(vocabulary.pack([segment]))
        out += [0.0] * n if number < given else [0.0] + [1.0] * (n - 1)
    return out


def _everything(vocabulary, segments, given):
    return [1.0] * len(vocabulary.pack(segments))


def _the_opening_too(vocabulary, segments, given):
    return [float(number >= given) for number, s in enumerate(segments) for _ in vocabulary.pack([s])]


def _not_the_closing(vocabulary, segments, given):
    return [float(number >= given and 0 < i < len(s.ids) + 1) for number, s in enumerate(segments)
            for i in range(len(s.ids) + 2)]


def _only_the_first_is_given(vocabulary, segments, given):
    return answer_weights(vocabulary, segments, 1)


def _boundaries_forgotten(vocabulary, segments, given):
    return [float(number >= given) for number, s in enumerate(segments) for _ in s.ids]


@register("06.answer_weights", reference=answer_weights, minutes=8, difficulty=2,
          wrong=[_everything, _the_opening_too, _not_the_closing, _only_the_first_is_given,
                 _boundaries_forgotten],
          hint="A segment of n ids takes n + 2 places: opening token, ids, closing token; vocabulary.pack "
               "shows them.")
def check_answer_weights(fn):
    text, image, audio = Segment("text", (0, 4)), Segment("image", (3, 0, 1, 2)), Segment("audio", (2, 0))
    for segments, given in (([text, image], 1), ([image, text, image], 2), ([audio, text, image], 1),
                            ([text], 0)):
        got, expected = [float(w) for w in fn(TINY, segments, given)], answer_weights(TINY, segments, given)
        kinds = " + ".join(s.modality for s in segments)
        assert len(got) == len(expected), (
            f"{kinds} is a row of {len(expected)} ids, but you give {len(got)} weights")
        assert got == expected, (
            f"for {kinds} with {given} given, the weights must be {expected}, but they are {got}")


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
          hint="Start with zeros. Unless the segment is full, the ids of vocabulary.allowed(modality, index) "
               "become True; if vocabulary.may_close(modality, index), CLOSE[modality] does.")
def check_modality_mask(fn):
    for modality, limit, places in (("image", 4, range(5)), ("text", 3, range(4)), ("audio", 4, range(5))):
        for index in places:
            got, expected = fn(TINY, modality, index, limit), modality_mask(TINY, modality, index, limit)
            boolean = isinstance(got, torch.Tensor) and got.dtype == torch.bool
            assert boolean and got.shape == expected.shape, f"give a tensor of {TINY.size} booleans back"
            got, expected = got.nonzero().flatten().tolist(), expected.nonzero().flatten().tolist()
            assert got == expected, (
                f"{modality}, content token {index}, limit {limit}: the ids {expected} may come (the closing "
                f"token is {CLOSE[modality]}), but your mask allows {got}")


# ---------------------------------------------------------------- classifier-free guidance

def guided(conditional, unconditional, scale):
    """Logits pushed away from what would be said without a prompt."""
    return unconditional + scale * (conditional - unconditional)


def _the_wrong_way(conditional, unconditional, scale):
    return conditional + scale * (unconditional - conditional)


def _once_too_often(conditional, unconditional, scale):
    return conditional + scale * (conditional - unconditional)


def _a_mean(conditional, unconditional, scale):
    return (conditional + scale * unconditional) / (1 + scale)


@register("06.guided", reference=guided, minutes=5, difficulty=1,
          wrong=[_the_wrong_way, _once_too_often, _a_mean],
          hint="Scale 0 must give `unconditional`, scale 1 `conditional`; larger scales go on in the same "
               "direction.")
def check_guided(fn):
    a, b = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.0, 0.5, 1.0])
    for scale, said in ((0.0, "scale 0 forgets the prompt"), (1.0, "scale 1 changes nothing"),
                        (3.0, "scale 3 goes beyond")):
        got, expected = fn(a, b, scale), b + scale * (a - b)
        assert torch.allclose(got, expected), (
            f"{said}: the logits must be {expected.tolist()}, but they are {got.tolist()}")


# ---------------------------------------------------------------- is confidence worth anything?

def calibration_error(confidence, correct, bins=10) -> float:
    """Expected calibration error (Guo et al., 2017): |mean confidence - share right| of each bin,
    weighted by its answers."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidence) if min(int(c * bins), bins - 1) == b]
        if inside:
            gap = sum(confidence[i] for i in inside) - sum(correct[i] for i in inside)
            total += abs(gap) / len(confidence)
    return total


def _bins_weigh_alike(confidence, correct, bins=10):
    used = {min(int(c * bins), bins - 1) for c in confidence}
    gaps = []
    for b in used:
        inside = [i for i, c in enumerate(confidence) if min(int(c * bins), bins - 1) == b]
        gaps.append(abs(sum(confidence[i] - correct[i] for i in inside)) / len(inside))
    return sum(gaps) / len(gaps)


def _signs_cancel(confidence, correct, bins=10):
    return abs(sum(confidence) - sum(correct)) / len(confidence)


def _one_is_lost(confidence, correct, bins=10):
    kept = [i for i, c in enumerate(confidence) if c < 1]
    return calibration_error([confidence[i] for i in kept], [correct[i] for i in kept], bins) if kept else 0.0


def _answer_by_answer(confidence, correct, bins=10):
    return sum(abs(c - r) for c, r in zip(confidence, correct)) / len(confidence)


@register("06.calibration_error", reference=calibration_error, minutes=10, difficulty=2,
          wrong=[_bins_weigh_alike, _signs_cancel, _one_is_lost, _answer_by_answer],
          hint="The bin of c is min(int(c * bins), bins - 1). Within a bin the gap is |sum of confidence - "
               "number right|.")
def check_calibration_error(fn):
    cases = (([0.9] * 10, [True] * 9 + [False], 10, 0.0),
             ([1.0, 1.0, 1.0, 1.0], [True, False, True, False], 10, 0.5),
             ([0.15, 0.85], [True, False], 10, 0.85), ([0.2, 0.3, 0.9], [False, True, True], 2, 0.2),
             ([0.55] * 3 + [0.95], [True, True, False, False], 10, 0.325))
    for confidence, correct, bins, expected in cases:
        got = float(fn(list(confidence), list(correct), bins))
        assert abs(got - expected) < 1e-6, (
            f"confidence {confidence}, right {correct}, {bins} bins: the error is {expected:.4f}, but you "
            f"say {got:.4f}")
