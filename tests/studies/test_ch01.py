"""Chapter 01's prices: what is asked, the controls, the intervals and what the verdict makes of them."""
import math

import numpy as np
import pytest
import torch

from mmcourse import assistant
from mmcourse.files import results
from mmcourse.studies import ch01_prices, ch01_text
from mmcourse.vocabulary import Segment
from mmcourse.world.scene import WORDS


@pytest.fixture(scope="module")
def shipped():
    return assistant.load()


def row(name, predicted, spread=0.1, nominal=9.0, counted=6.0, mixed=12.0):
    return {"tokens of": name, "nominal": nominal, "counted": counted, "predicted": predicted,
            "in random order": mixed, "less than half": ch01_prices.holds((predicted - spread) / nominal, (predicted + spread) / nominal)}


def test_shuffling_keeps_the_tokens_and_the_levels(shipped):
    rng = np.random.default_rng(0)
    picture, sound = Segment("image", tuple(range(64))), Segment("audio", tuple(range(40)))
    mixed = ch01_prices.in_random_order(shipped, picture, rng)
    assert sorted(mixed.ids) == sorted(picture.ids) and mixed.ids != picture.ids
    frames = ch01_prices.in_random_order(shipped, sound, rng).ids
    assert all(first % 2 == 0 and second == first + 1 for first, second in zip(frames[::2], frames[1::2]))
    rolled = ch01_prices.rolled_evenly(shipped, picture, rng)
    assert len(rolled.ids) == 64 and max(rolled.ids) < 512


def test_another_word_is_another_word():
    spoken = [Segment("text", (i % 5,)) for i in range(50)]
    others = ch01_prices.other_words(spoken, np.random.default_rng(0))
    assert all(a.ids != b.ids for a, b in zip(spoken, others)) and len({b.ids for b in others}) == 5


def test_a_model_that_knows_nothing_pays_the_whole_vocabulary(shipped):
    class Blank(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, ids):
            return torch.zeros(*ids.shape, shipped.vocabulary.size)

    blind = type("Blind", (), {"transformer": Blank(), "vocabulary": shipped.vocabulary})()
    segments = [shipped.segment("a cat on the left"), shipped.segment("two suns on the right, red ground")]
    bits = ch01_prices.prices(blind, segments)
    assert np.allclose(bits, ch01_prices.lengths(segments) * math.log2(shipped.vocabulary.size))


def test_the_interval_holds_the_mean_and_narrows_with_the_number():
    rng = np.random.default_rng(0)
    bits, tokens = rng.normal(30, 8, 400), np.full(400, 10)
    few, many = (ch01_prices.share_of_nominal(bits[:n], tokens[:n], 6.0) for n in (25, 400))
    assert few[1] < few[0] < few[2] and many[1] < many[0] < many[2]
    assert many[2] - many[1] < 0.5 * (few[2] - few[1])
    assert many[0] == pytest.approx(bits.mean() / 10 / 6)


def test_the_verdict_reads_its_table():
    said = ch01_prices.verdict([row("text", 2.0, counted=3.0), row("picture", 4.5), row("speech", 8.0, counted=8.9, mixed=7.0)])
    assert said.splitlines() == [
        "less than half of nominal is left: text", "undecided: picture", "more than half is left: speech",
        "context saves more than uneven counts do: speech", "uneven counts save more: text; picture",
        "the control, random order, costs more: text; picture"]


def test_samples_are_of_the_splits_that_they_name(shipped):
    from mmcourse.world.speech import load_speech
    samples = ch01_prices.Samples(shipped, load_speech(progress=False), n=3)
    again = ch01_prices.Samples(shipped, load_speech(progress=False), n=3)
    assert samples.segments == again.segments and len(samples.segments) == 6
    assert {s.modality for s in samples.segments["picture, fresh"]} == {"image"}
    assert all(shipped.bpe.decode(list(word.ids)).strip() in WORDS for words in samples.spoken.values() for word in words)


def test_the_stored_rows_say_what_the_chapter_says_of_them():
    """Prose that no cell prints: text and pictures below half, new voices above; known ones below if the word is said first."""
    rows, words = results("ch01_prices")["rows"], results("ch01_prices")["word first"]
    assert [name for name, r in rows.items() if r["less than half"] == "yes"][:4] == [
        "text, fresh", "text, held out", "picture, fresh", "picture, held out"]
    assert rows["speech, new voices"]["less than half"] == "no" and rows["speech, known voices"]["less than half"] == "undecided"
    assert rows["text, held out"]["tokens each"] > rows["text, fresh"]["tokens each"]
    assert rows["text, held out"]["lower bound"] < rows["text, fresh"]["lower bound"]
    known, new = words["speech, known voices"], words["speech, new voices"]
    assert known["its word, then the clip"] < known["alone"] and known["bits a token, word first"] < 4.5
    assert new["its word, then the clip"] > new["alone"]
    assert all(r["after a wrong word"] > r["alone"] for r in words.values())


def test_the_text_that_gpt2s_vocabulary_counts():
    stored = results("ch01_text")["rows"]
    assert 8 < stored["GPT-2"]["counted"] < 12 < stored["GPT-2"]["nominal"] and 8 < stored["own, 8,192"]["counted"] < 12
    found = ch01_text.row(ch01_text.BPETokenizer.train("a cat, a cat, a dog. " * 50, 260), "a cat, a cat, a dog. " * 50)
    assert found["used"] <= found["entries"] and found["counted"] < found["nominal"]
