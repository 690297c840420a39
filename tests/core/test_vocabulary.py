"""One vocabulary: ranges that do not overlap, segments <-> ids without loss, a clear sentence for all that is malformed."""
import doctest
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import vocabulary as module
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, PAD, SPECIAL, Segment, Vocabulary

SMALL = Vocabulary(text=10, image=6, audio=4, audio_levels=2, image_tokens=3)


def segment_of(modality: str):
    if modality == "text":
        ids = st.lists(st.integers(0, 9), max_size=8)
    elif modality == "image":
        ids = st.lists(st.integers(0, 5), min_size=3, max_size=3)
    else:
        ids = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=5).map(lambda f: [i for two in f for i in two])
    return ids.map(lambda i: Segment(modality, tuple(i)))


any_segments = st.lists(st.sampled_from(MODALITIES).flatmap(segment_of), max_size=6)


def test_docstrings():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("sizes", [{"text": 10, "image": 6, "audio": 4, "audio_levels": 3}, {"text": 1024},
                                   {"text": 5, "image": 0, "audio": 0}])
def test_every_id_belongs_to_one_range(sizes):
    v = Vocabulary(**sizes)
    kinds = [v.modality(i) for i in range(v.size)]
    assert kinds[:len(SPECIAL)] == ["special"] * len(SPECIAL) and "special" not in kinds[len(SPECIAL):]
    for m in MODALITIES:
        assert kinds.count(m) == len(v.ranges[m])
    assert sum(map(len, v.audio_ranges)) == len(v.ranges["audio"])
    assert Vocabulary(**v.config).ranges == v.ranges


def test_boundary_tokens_are_distinct():
    assert sorted([PAD, *OPEN.values(), *CLOSE.values()]) == list(range(len(SPECIAL)))
    assert all(SPECIAL[OPEN[m]] == f"<{m}>" and SPECIAL[CLOSE[m]] == f"</{m}>" for m in MODALITIES)


@settings(max_examples=400, deadline=None)
@given(any_segments, st.integers(0, 3))
def test_round_trip(segments, padding):
    ids = SMALL.pack(segments)
    assert SMALL.unpack(ids + [PAD] * padding) == segments
    assert all(0 <= i < SMALL.size for i in ids)


@settings(max_examples=100, deadline=None)
@given(any_segments)
def test_the_same_from_arrays_and_tensors(segments):
    ids = SMALL.pack(segments)
    assert SMALL.unpack(np.array(ids, dtype=np.int16)) == SMALL.unpack(torch.tensor(ids)) == segments
    for segment in segments:
        again = Segment(segment.modality, torch.tensor(segment.ids, dtype=torch.long))
        assert again == segment and hash(again) == hash(segment) and all(type(i) is int for i in again.ids)


@settings(max_examples=400, deadline=None)
@given(any_segments.filter(bool), st.data())
def test_a_changed_sequence_still_parses_exactly_or_says_where_it_fails(segments, data):
    ids = SMALL.pack(segments)
    at = data.draw(st.integers(0, len(ids) - 1))
    ids[at] = data.draw(st.integers(-2, SMALL.size + 2))
    try:
        found = SMALL.unpack(ids)
    except ValueError as error:
        assert any(word in str(error) for word in ("position", "tokens", "frames"))
    else:
        packed = SMALL.pack(found)
        assert ids[:len(packed)] == packed and not any(ids[len(packed):])


T, P, A = OPEN["text"], OPEN["image"], OPEN["audio"]
TEXT, IMAGE, AUDIO = (SMALL.ranges[m].start for m in MODALITIES)


@pytest.mark.parametrize(("ids", "says"), [
    ([TEXT], "position 0: expected an opening"),
    ([CLOSE["text"]], "position 0: expected an opening"),
    ([T, TEXT], "position 0: the text segment is never closed"),
    ([T, TEXT, CLOSE["image"]], "never closed"),
    ([T, IMAGE, CLOSE["text"]], f"position 1: id {IMAGE} has no place in a segment of text"),
    ([T, T, CLOSE["text"]], f"position 1: id {T} has no place"),
    ([T, PAD, CLOSE["text"]], "position 1: id 0 has no place"),
    ([T, CLOSE["text"], TEXT], "position 2: expected an opening"),
    ([T, CLOSE["text"], PAD, TEXT], "position 2: only padding may follow"),
    ([P, IMAGE, CLOSE["image"]], "a picture has 3 tokens, got 1"),
    ([P, *[IMAGE] * 4, CLOSE["image"]], "a picture has 3 tokens, got 4"),
    ([A, AUDIO, CLOSE["audio"]], "frames of 2 levels, got 1"),
    ([A, AUDIO, AUDIO, CLOSE["audio"]], "position 2: id .* no place in a segment of audio"),
    ([T, SMALL.size, CLOSE["text"]], "position 1: id .* has no place"),
    ([T, -1, CLOSE["text"]], "position 1: id -1 has no place"),
])
def test_unpack_says_what_is_wrong(ids, says):
    with pytest.raises(ValueError, match=says):
        SMALL.unpack(ids)


@pytest.mark.parametrize(("segment", "says"), [
    (Segment("text", (10,)), r"text ids lie in 0..9, got 10"),
    (Segment("text", (-1,)), r"0..9, got -1"),
    (Segment("image", (0, 0)), "a picture has 3 tokens, got 2"),
    (Segment("image", (0,)), "a picture has 3 tokens, got 1"),
    (Segment("image", (0, 0, 6)), r"image ids lie in 0..5, got 6"),
    (Segment("audio", (0, 0, 0)), "frames of 2 levels, got 3"),
    (Segment("audio", (0, 4)), r"audio ids lie in 0..3, got 4"),
])
def test_pack_says_what_is_wrong(segment, says):
    with pytest.raises(ValueError, match=says):
        SMALL.pack([segment])


@pytest.mark.parametrize("bad", [1.5, [1.5], "ab", [[1, 2]], None, ["1"], torch.zeros(2, 2, dtype=torch.long)])
def test_ids_are_flat_rows_of_whole_numbers(bad):
    with pytest.raises(TypeError, match="flat row of whole numbers"):
        Segment("text", bad)
    with pytest.raises(TypeError, match="flat row of whole numbers"):
        SMALL.unpack(bad)


def test_unknown_modalities_and_ids():
    for bad in ("video", "", None, "Text"):
        with pytest.raises(ValueError, match="modality is one of"):
            Segment(bad, ())
    for bad in (-1, SMALL.size):
        with pytest.raises(ValueError, match=f"0..{SMALL.size - 1}"):
            SMALL.modality(bad)


@pytest.mark.parametrize("sizes", [{"text": -1}, {"text": 5, "audio_levels": 0}, {"text": 5, "image_tokens": 0}])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match="sizes"):
        Vocabulary(**sizes)


def test_nothing_and_empty_segments():
    assert SMALL.pack([]) == [] and SMALL.unpack([]) == [] and SMALL.unpack([PAD, PAD]) == []
    empty = [Segment("text", ()), Segment("audio", ())]
    assert SMALL.unpack(SMALL.pack(empty)) == empty


def test_text_cannot_forge_a_boundary_token():
    assert not set(SMALL.shift(Segment("text", tuple(range(10))))) & set(range(len(SPECIAL)))


def test_random_ids_never_make_it_stumble():
    """Ten thousand rows of random ids: each parses to segments that pack to the same row, or is a ValueError."""
    rng, good = random.Random(0), 0
    alphabet = (T, CLOSE["text"], TEXT, A, CLOSE["audio"], AUDIO, AUDIO + 4, PAD, P)
    for _ in range(10_000):
        ids = [rng.choice(alphabet) for _ in range(rng.randrange(7))]
        try:
            segments = SMALL.unpack(ids)
        except ValueError:
            continue
        good += 1
        packed = SMALL.pack(segments)
        assert packed == ids[:len(packed)] and not any(ids[len(packed):])
    assert good > 500
