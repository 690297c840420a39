"""How a word is told: in letters, pieces or both; and which words are new to one who was told pieces."""
import pytest

from mmcourse.experiments.spelling import (
    LAYOUT,
    LETTERS,
    PIECES,
    PROMPT_VOCAB,
    PROMPTS,
    STRATA,
    VOCAB_SIZE,
    drawn_pieces,
    pieces,
    prompt_ids,
    shortened,
    sign_bpe,
    stratum,
)
from mmcourse.world.scene import BACKGROUNDS
from mmcourse.world.signs import ROWS, counted, word_counts, words_of


def test_every_shipped_word_fits_in_every_prompt():
    for kind, places in PROMPTS.items():
        rows = [prompt_ids(word, kind) for word in word_counts()]
        assert {len(row) for row in rows} == {places} and 0 <= min(map(min, rows)) and max(map(max, rows)) < PROMPT_VOCAB
        assert len(set(map(tuple, rows))) == len(rows), "two words are told alike"


def test_pieces_and_letters_spell_the_word():
    bpe = sign_bpe()
    assert bpe.vocab_size == VOCAB_SIZE
    for word in list(word_counts())[::97]:
        row = prompt_ids(word, "both")
        cut, letters = row[:PIECES], row[PIECES:PIECES + LETTERS]
        assert bpe.decode([i - 1 for i in cut if i]).strip() == word == bpe.decode([i - 1 for i in letters if i])
        assert row == prompt_ids(word, "bpe")[:-LAYOUT] + prompt_ids(word, "letters")


def test_ground_and_row_have_ids_of_their_own():
    ends = {tuple(prompt_ids("class", "bpe", ground, row)[-LAYOUT:]) for ground in BACKGROUNDS for row in ROWS}
    assert len(ends) == len(BACKGROUNDS) * len(ROWS) and min(map(min, ends)) > VOCAB_SIZE


def test_strata_are_what_they_say():
    drawn = {piece for word in words_of("train") for piece in pieces(word)}
    assert drawn == drawn_pieces()
    for word in word_counts():
        known = set(pieces(word)) <= drawn
        assert stratum(word) == (STRATA[0] if word in words_of("train") else STRATA[1] if known else STRATA[2])
    for split in ("validation", "test"):
        assert {stratum(word) for word in words_of(split)} == set(STRATA[1:])


def test_most_words_are_a_piece_or_two():
    lengths = [len(pieces(word)) for word in word_counts()]
    assert sum(n <= 2 for n in lengths) / len(lengths) > 0.6 and max(lengths) == PIECES


@pytest.mark.parametrize("word, said", [("caf3", "no '3'"), ("", "type a word"), ("ab", "3 to 8 letters"), ("toolongword", "got 11"),
                                        ("two words", "no ' '"), ("Ärger", "no 'Ä'"), (None, "letters A to Z")])
def test_what_is_no_word_gets_a_sentence(word, said):
    for kind in PROMPTS:
        with pytest.raises(ValueError, match=said):
            prompt_ids(word, kind)


def test_a_word_of_too_many_pieces_can_be_told_in_letters():
    with pytest.raises(ValueError, match="8 pieces .* spell it in letters"):
        prompt_ids("zqxjkvwz", "both")
    assert 0 not in prompt_ids("zqxjkvwz", "letters")
    with pytest.raises(ValueError, match="a prompt is 'letters', 'bpe', 'both', got 'words'"):
        prompt_ids("class", "words")


def test_capitals_are_told_as_small_letters():
    assert prompt_ids("CLASS", "both") == prompt_ids("class", "both")


@pytest.mark.slow                                                      # learns a vocabulary some times over
def test_the_list_is_this_pythons_manual_or_nearly():
    from mmcourse.world.corpus import prose
    now, listed = set(shortened(counted(prose()))), set(word_counts())
    assert len(now & listed) / len(listed) >= 0.95
