"""The judge that hears phrases: word errors counted as they are, CTC read as it should be, and true speech of the course heard."""
import itertools

import numpy as np
import pytest
import torch

from mmcourse.judges.phrase_listener import PhraseListener, word_errors, words_of
from mmcourse.recipes import phrase_listener as recipe


@pytest.mark.parametrize(("heard", "said", "wrong"), [
    ("a cat", "a cat", 0), ("", "a cat", 2), ("a cat on the left", "a cat", 3), ("the cat", "a cat", 1),
    ("two cats a dog", "cats a dog", 1), ("tell me how many", "tell me: how many?", 0)])
def test_word_errors_are_changes_insertions_and_omissions(heard, said, wrong):
    assert word_errors(heard, said) == (wrong, len(words_of(said)))


def test_word_errors_equal_a_search_over_all_alignments():
    """Levenshtein by brute force: the most words that can be kept in order, for texts of which only the order matters."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = ([str(w) for w in rng.integers(3, size=rng.integers(1, 5))] for _ in range(2))
        best = max(len(a), len(b))
        for n in range(1, min(len(a), len(b)) + 1):
            for i, j in itertools.product(itertools.combinations(range(len(a)), n), itertools.combinations(range(len(b)), n)):
                # words at i stand for those at j; between two of them the longer stretch must be written
                at = [-1, *i, len(a)], [-1, *j, len(b)]
                gaps = sum(max(p - q, r - s) - 1 for p, q, r, s in zip(at[0][1:], at[0], at[1][1:], at[1]))
                best = min(best, gaps + sum(a[x] != b[y] for x, y in zip(i, j)))
        assert word_errors(" ".join(a), " ".join(b))[0] == best


def test_the_likeliest_steps_are_read_as_ctc_has_it(monkeypatch):
    """Equal steps in a row are one word, a silent step between them makes two."""
    listener = PhraseListener(["cat", "dog"], width=8).eval()
    steps = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 0]])
    monkeypatch.setattr(PhraseListener, "forward", lambda self, features: torch.nn.functional.one_hot(steps, 3).float())
    assert listener.hear([np.random.default_rng(0).normal(size=8000).astype(np.float32)]) == ["cat cat dog"]


def test_the_loss_counts_all_ways_to_spread_the_words():
    """Two steps, one word: word+silence, silence+word, word+word."""
    listener = PhraseListener(["cat", "dog"], width=8).eval()
    probabilities = torch.tensor([[[0.5, 0.3, 0.2], [0.6, 0.1, 0.3]]])
    listener.forward = lambda features: probabilities.log()
    listener.features = lambda sound: sound
    ways = 0.3 * 0.6 + 0.5 * 0.1 + 0.3 * 0.1
    assert recipe.ctc(listener, None, torch.tensor([[1]])).item() == pytest.approx(-np.log(ways), rel=1e-5)


def test_it_learns_from_no_voice_of_the_course():
    from mmcourse.world.other_voices import OTHER_VOICES
    from mmcourse.world.speech import VOICES
    assert not {*OTHER_VOICES} & {*VOICES}
