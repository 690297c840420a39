"""Exercises of chapter 06: packing, what counting predicts, what the loss counts, masks, the answering loop, guidance,
calibration."""
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


def _never_opened(vocabulary, segments):
    return [i for s in segments for i in (*vocabulary.shift(s), CLOSE[s.modality])]


def _returns_too_early(vocabulary, segments):
    return pack(vocabulary, segments[:1])


@register("06.pack", reference=pack, minutes=4, difficulty=1,
          wrong=[_not_shifted, _never_closed, _one_range_for_all_levels, _never_opened, _returns_too_early],
          hint="For each segment: OPEN[segment.modality], then vocabulary.shift(segment), then "
               "CLOSE[segment.modality].")
def check_pack(fn):
    text, image = Segment("text", (0, 4)), Segment("image", (3, 0, 1, 2))
    audio = Segment("audio", (2, 0, 1, 2))
    for segments in ([], [text], [image], [audio], [text, image], [audio, text, image, text],
                     [Segment("text", ())]):
        got, expected = fn(TINY, segments), TINY.pack(segments)
        kinds = " + ".join(s.modality for s in segments) or "nothing"
        assert isinstance(got, list | tuple) and not any(isinstance(i, list | tuple) for i in got), (
            f"give one flat list of ids back, not {got!r}")
        slips = {" (the ids are the tokenizer's own: shift them)": _not_shifted,
                 " (each segment ends with its closing token)": _never_closed,
                 " (each segment begins with its opening token)": _never_opened,
                 " (the other segments are missing: return after the loop, not in it)": _returns_too_early,
                 " (each level of a sound has its own range: take vocabulary.shift)": _one_range_for_all_levels}
        rule = next((said for said, wrong in slips.items() if list(got) == wrong(TINY, segments)), "")
        assert list(got) == expected, f"for {kinds} the row must be {expected}, but it is {list(got)}{rule}"


# ---------------------------------------------------------------- what counting alone predicts

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


def _each_token_counts(ids):
    counts = Counter(ids)
    return -sum(counts[i] / len(ids) * math.log2(counts[i] / len(ids)) for i in ids)


def _no_minus(ids):
    return -unigram_bits(ids)


@register("06.unigram_bits", reference=unigram_bits, minutes=4, difficulty=1,
          wrong=[_in_nats, _as_if_all_were_alike, _of_the_whole_text, _each_token_counts, _no_minus],
          hint="Counter(ids) counts; p = n / total; the entropy is the sum of -p log2(p).")
def check_unigram_bits(fn):
    for ids, bits in (([7, 7, 7, 7], 0.0), ([1, 2], 1.0), ([0, 1, 2, 3] * 3, 2.0), ([5, 5, 5, 9], 0.8112781)):
        got = float(fn(ids))
        slip = (" (these are nats: take log2)" if bits and abs(got - bits * math.log(2)) < 1e-4 else
                " (the minus sign is missing)" if bits and abs(got + bits) < 1e-4 else
                " (sum over the different ids, each once)" if abs(got - _each_token_counts(ids)) < 1e-4 < abs(
                    _each_token_counts(ids) - bits * len(ids)) else
                " (that is the whole list: divide by its length)" if abs(got - bits * len(ids)) < 1e-4 else
                " (ids that come more often have a larger share)" if abs(got - math.log2(len(set(ids)))) < 1e-4 else "")
        assert abs(got - bits) < 1e-4, f"the tokens {ids} carry {bits:.4f} bits each, but you say {got:.4f}{slip}"


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


def _what(segments, given: int, place: int) -> str:
    """Which token of a packed row stands at a place, in words."""
    for number, segment in enumerate(segments):
        n = len(segment.ids) + 2
        if place < n:
            part = {0: "the opening token", n - 1: "the closing token"}.get(place, f"content token {place - 1}")
            return f"{part} of {'a given' if number < given else 'an answered'} {segment.modality}"
        place -= n
    raise ValueError(f"the row has no such place: {place}")


@register("06.answer_weights", reference=answer_weights, minutes=6, difficulty=2,
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
        if got != expected:
            place = next(i for i, (a, b) in enumerate(zip(got, expected)) if a != b)
            raise AssertionError(f"for {kinds} with {given} given, id {place} of the row ({_what(segments, given, place)}) "
                                 f"must count {expected[place]:g}, but yours counts {got[place]:g}")


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


def _a_picture_is_full_at_the_limit_only(vocabulary, modality, index, limit):
    mask = modality_mask(vocabulary, modality, index, limit)
    if modality == "image" and index < limit:
        mask[list(vocabulary.ranges["image"])] = True
    return mask


@register("06.modality_mask", reference=modality_mask, minutes=10, difficulty=2,
          wrong=[_closes_at_any_time, _forgets_the_levels, _never_closes, _ignores_the_limit,
                 _a_picture_is_full_at_the_limit_only],
          hint="Start with zeros. Unless the segment is full, the ids of vocabulary.allowed(modality, index) "
               "become True; if vocabulary.may_close(modality, index), CLOSE[modality] does.")
def check_modality_mask(fn):
    for modality, limit, places in (("image", 4, range(5)), ("image", 9, range(5)), ("text", 3, range(4)),
                                    ("audio", 4, range(5))):
        for index in places:
            got, expected = fn(TINY, modality, index, limit), modality_mask(TINY, modality, index, limit)
            boolean = isinstance(got, torch.Tensor) and got.dtype == torch.bool
            assert boolean and got.shape == expected.shape, f"give a tensor of {TINY.size} booleans back"
            got, expected = got.nonzero().flatten().tolist(), expected.nonzero().flatten().tolist()
            assert got == expected, (
                f"{modality}, content token {index}, limit {limit}: the ids {expected} may come (the closing "
                f"token is {CLOSE[modality]}), but your mask allows {got}{_rule(modality, got, expected)}")


def _rule(modality: str, got: list[int], expected: list[int]) -> str:
    """Which rule a mask breaks, as an addition to what it got wrong."""
    close = CLOSE[modality]
    if close in got and close not in expected:
        return ": it cannot close here"
    if close in expected and close not in got:
        return ": it may close here"
    if expected == [close]:
        return ": it is full, only the closing token is left"
    return ": in a sound the levels take turns" if modality == "audio" else ""


# ---------------------------------------------------------------- the loop that answers

def answering_loop(logits_of, row, vocabulary, want, limit, choose):
    """The content ids of the answer to a packed row that ends with the answer's opening token."""
    answer = []
    while True:
        mask = modality_mask(vocabulary, want, len(answer), limit)
        logits = logits_of([*row, *answer]).masked_fill(~mask, -torch.inf)
        token = choose(logits)
        if token == CLOSE[want]:
            return answer
        answer.append(token)


def _without_a_mask(logits_of, row, vocabulary, want, limit, choose):
    answer = []
    while len(answer) <= limit and (token := choose(logits_of([*row, *answer]))) != CLOSE[want]:
        answer.append(token)
    return answer


def _masked_with_zero(logits_of, row, vocabulary, want, limit, choose):
    answer = []
    while (token := choose(logits_of([*row, *answer]) * modality_mask(vocabulary, want, len(answer), limit))) != CLOSE[want]:
        answer.append(token)
    return answer


def _mask_the_wrong_way_round(logits_of, row, vocabulary, want, limit, choose):
    answer = []
    while True:
        mask = modality_mask(vocabulary, want, len(answer), limit)
        if (token := choose(logits_of([*row, *answer]).masked_fill(mask, -torch.inf))) == CLOSE[want]:
            return answer
        answer.append(token)


def _always_asks_about_the_prompt(logits_of, row, vocabulary, want, limit, choose):
    return answering_loop(lambda ids: logits_of(list(row)), row, vocabulary, want, limit, choose)


def _asks_about_the_last_token(logits_of, row, vocabulary, want, limit, choose):
    return answering_loop(lambda ids: logits_of(ids[-1:]), row, vocabulary, want, limit, choose)


def _keeps_the_closing_token(logits_of, row, vocabulary, want, limit, choose):
    return [*answering_loop(logits_of, row, vocabulary, want, limit, choose), CLOSE[want]]


def _gives_the_whole_row(logits_of, row, vocabulary, want, limit, choose):
    return [*row, *answering_loop(logits_of, row, vocabulary, want, limit, choose)]


def _always_the_likeliest(logits_of, row, vocabulary, want, limit, choose):
    return answering_loop(logits_of, row, vocabulary, want, limit, lambda logits: int(logits.argmax()))


def _the_place_counts_from_one(logits_of, row, vocabulary, want, limit, choose):
    answer = []
    while True:
        mask = modality_mask(vocabulary, want, len(answer) + 1, limit)
        token = choose(logits_of([*row, *answer]).masked_fill(~mask, -torch.inf))
        if token == CLOSE[want]:
            return answer
        answer.append(token)


def _changes_the_prompt(logits_of, row, vocabulary, want, limit, choose):
    start = len(row)
    while True:
        mask = modality_mask(vocabulary, want, len(row) - start, limit)
        token = choose(logits_of(row).masked_fill(~mask, -torch.inf))
        if token == CLOSE[want]:
            return row[start:]
        row.append(token)


class _Scripted:
    """A model that loves what may not come, and notes what it was asked about."""

    def __init__(self, want: str, length: int):
        self.want, self.length, self.asked = want, length, []

    def __call__(self, ids) -> torch.Tensor:
        assert len(self.asked) < 40, "the loop does not end: return when the closing token of `want` is chosen" + (
            " (yours took ids that may not come: is the mask the right way round?)"
            if ids[-1] not in TINY.ranges[self.want] else "")
        self.asked.append([int(i) for i in ids])
        logits = torch.linspace(-1, 1, TINY.size) + 0.01 * ((torch.arange(TINY.size) * (sum(self.asked[-1]) + 1)) % 7)
        logits[[0, OPEN["text"], OPEN["image"]]] = 9.0                 # never allowed inside an answer
        logits[CLOSE[self.want]] = 5.0 if len(self.asked) > self.length else -5.0
        return logits


def _second_best(logits: torch.Tensor) -> int:
    """The second likeliest id that may come, or the only one; it insists that the others cannot."""
    assert torch.isneginf(logits).any(), ("`choose` got logits of ids that may not come: set those to -infinity "
                                          "(`masked_fill`), so that no choice can take them")
    order = logits.argsort(descending=True)
    return int(order[min(1, int(logits.isfinite().sum()) - 1)])


@register("06.answering_loop", reference=answering_loop, minutes=15, difficulty=2,
          wrong=[_without_a_mask, _masked_with_zero, _mask_the_wrong_way_round, _always_asks_about_the_prompt,
                 _asks_about_the_last_token,
                 _keeps_the_closing_token, _gives_the_whole_row, _always_the_likeliest, _the_place_counts_from_one,
                 _changes_the_prompt],
          hint="Keep a list `answer`, empty at first. In an endless loop: the logits of [*row, *answer]; the mask for place "
               "len(answer); logits.masked_fill(~mask, -torch.inf); choose; if it is CLOSE[want], return, else append.")
def check_answering_loop(fn):
    prompt = TINY.pack([Segment("text", (0, 4))])
    for want, length, limit in (("text", 2, 5), ("text", 99, 3), ("image", 1, 4), ("audio", 3, 6), ("audio", 99, 4)):
        for choose in (lambda logits: int(logits.argmax()), _second_best):
            row, model, true = [*prompt, OPEN[want]], _Scripted(want, length), _Scripted(want, length)
            expected = answering_loop(true, list(row), TINY, want, limit, choose)
            given = list(row)
            got = fn(model, given, TINY, want, limit, choose)
            assert given == row, "`row` is the caller's: do not append to it, keep a list of your own"
            _compare_loops(want, [int(i) for i in got], expected, row, model.asked, true.asked)


def _compare_loops(want: str, got: list[int], expected: list[int], row: list[int], asked: list, should: list) -> None:
    """AssertionError that says what an answering loop did wrong."""
    for step, (a, b) in enumerate(zip(asked, should)):
        if a == b:
            continue
        if len(a) != len(b):
            what = "the prompt alone" if a == row else "another row"
            raise AssertionError(f"{want}, token {step}: the model must be asked about the prompt and every token chosen "
                                 f"so far, {b}; yours was asked about {what}, {a}")
        slip = (f"id {a[-1]}, which may not stand there: mask before you choose" if a[-1] not in
                TINY.allowed(want, step - 1) else f"id {a[-1]}, but `choose` said {b[-1]}: take what `choose` says")
        raise AssertionError(f"{want}, token {step - 1}: yours took {slip}")
    slip = ("leave the closing token out" if got == [*expected, CLOSE[want]] else
            "give the answer's ids alone, without the prompt" if got[:len(row)] == row else
            "the mask asks for the place of the token to come, 0 for the first, and for the limit"
            if len(got) != len(expected) else "take what `choose` says")
    assert got == expected, f"{want}: the content ids must be {expected}, but they are {got}: {slip}"


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


@register("06.guided", reference=guided, minutes=2, difficulty=1,
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


def _always_ten_bins(confidence, correct, bins=10):
    return calibration_error(confidence, correct)


def _answer_by_answer(confidence, correct, bins=10):
    return sum(abs(c - r) for c, r in zip(confidence, correct)) / len(confidence)


@register("06.calibration_error", reference=calibration_error, minutes=10, difficulty=2,
          wrong=[_bins_weigh_alike, _signs_cancel, _one_is_lost, _always_ten_bins, _answer_by_answer],
          hint="The bin of c is min(int(c * bins), bins - 1). Within a bin the gap is |sum of confidence - "
               "number right|.")
def check_calibration_error(fn):
    cases = (([0.9] * 10, [True] * 9 + [False], 10, 0.0),
             ([1.0, 1.0, 1.0, 1.0], [True, False, True, False], 10, 0.5),
             ([0.15, 0.85], [True, False], 10, 0.85), ([0.2, 0.3, 0.9], [False, True, True], 2, 0.2),
             ([0.55] * 3 + [0.95], [True, True, False, False], 10, 0.325))
    for confidence, correct, bins, expected in cases:
        got = float(fn(list(confidence), list(correct), bins))
        slips = {" (weigh each bin by its number of answers)": _bins_weigh_alike, " (take the absolute value in each bin, "
                 "not of the sum)": _signs_cancel, " (a confidence of exactly 1 belongs to the last bin)": _one_is_lost,
                 " (make `bins` bins, not always ten)": _always_ten_bins,
                 " (compare means within a bin, not answer by answer)": _answer_by_answer}
        slip = next((said for said, wrong in slips.items() if abs(wrong(confidence, correct, bins) - got) < 1e-6), "")
        assert abs(got - expected) < 1e-6, (
            f"confidence {confidence}, right {correct}, {bins} bins: the error is {expected:.4f}, but you "
            f"say {got:.4f}{slip}")
