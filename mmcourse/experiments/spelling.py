"""How a word is told to a painter (chapter 08): in letters, in BPE pieces, or in both; and how new it is to one.

Source of the question: Liu et al. 2022 (character-aware text encoders).
"""
from collections import Counter
from functools import cache

import numpy as np

from mmcourse.bpe import BPETokenizer
from mmcourse.world.scene import BACKGROUNDS
from mmcourse.world.signs import LENGTHS, ROWS, check_word, counted, word_counts, words_of

PIECES, LETTERS = 4, max(LENGTHS)       # the most that a prompt has room for
LAYOUT = 2                              # places that say where the sign stands: its ground, its row
PROMPTS = {"letters": LETTERS + LAYOUT, "bpe": PIECES + LAYOUT, "both": PIECES + LETTERS + LAYOUT}    # places of each
VOCAB_SIZE = 2048                       # ids of the words' own BPE
PROMPT_VOCAB = 1 + VOCAB_SIZE + len(BACKGROUNDS) + len(ROWS)     # silence, pieces, grounds, rows
STRATA = ("seen", "new, drawn pieces", "new, a piece never drawn")


def learn_pieces(counts: dict[str, int]) -> BPETokenizer:
    """The vocabulary of words that occur so often."""
    return BPETokenizer.train("".join(f" {word}" * counts[word] for word in sorted(counts)), VOCAB_SIZE)


@cache
def sign_bpe() -> BPETokenizer:
    """The vocabulary of the prompts: 2,048 ids, learned from the listed words as often as they occur.

    Held-out words are among them, as they are in the text that any tokenizer learns from: hence a held-out word
    can be one piece, which nothing ever drew.
    """
    return learn_pieces(word_counts())


@cache
def pieces(word: str) -> tuple[int, ...]:
    """The BPE ids of a word. ValueError for what no prompt or picture has room for."""
    check_word(word)
    ids = tuple(sign_bpe().encode(f" {word.lower()}"))
    if len(ids) > PIECES:
        parts = " + ".join(sign_bpe().decode([i]).strip() for i in ids)
        raise ValueError(f"{word!r} falls into {len(ids)} pieces ({parts}) and the prompt has room for {PIECES}: "
                         "spell it in letters")
    return ids


def prompt_ids(word: str, kind: str, background: str = "white", row: int = 0) -> list[int]:
    """A sign as the painters are told it: its word, filled up with 0, then its ground and its row.

    `bpe`: the word's pieces, four places. `letters`: the ids of its letters, eight places. `both`: the one, then
    the other. BPE ids are moved up by one. ValueError as `pieces`.
    """
    if kind not in PROMPTS:
        raise ValueError(f"a prompt is {', '.join(map(repr, PROMPTS))}, got {kind!r}")
    check_word(word)
    spelled = tuple(i for letter in word.lower() for i in sign_bpe().encode(letter))
    parts = [(pieces(word), PIECES)] if kind != "letters" else []
    parts += [(spelled, LETTERS)] if kind != "bpe" else []
    ids = [i for cut, places in parts for i in [*(i + 1 for i in cut), *[0] * (places - len(cut))]]
    ground = 1 + VOCAB_SIZE + list(BACKGROUNDS).index(background)
    return [*ids, ground, 1 + VOCAB_SIZE + len(BACKGROUNDS) + ROWS.index(row)]


@cache
def drawn_pieces() -> frozenset[int]:
    """The BPE ids that occur in the words of the training split."""
    return frozenset(i for word in words_of("train") for i in pieces(word))


def stratum(word: str) -> str:
    """Which of `STRATA` a word belongs to."""
    if word in words_of("train"):
        return STRATA[0]
    return STRATA[1] if set(pieces(word)) <= drawn_pieces() else STRATA[2]


def asked_words(seen: int, most: int | None = None) -> list[str]:
    """The words of the test: `seen` that were drawn in training, always the same, then all held-out test words; at
    most `most` of each kind."""
    drawn = words_of("train")
    some = [drawn[i] for i in np.random.default_rng(16).choice(len(drawn), seen, replace=False)]
    return [*some[:most], *words_of("test")[:most]]


def shortened(counts: Counter[str]) -> dict[str, int]:
    """The words whose own vocabulary cuts none into more than `PIECES` pieces: the others are left out."""
    while True:
        bpe = learn_pieces(counts)
        kept = Counter({word: n for word, n in counts.items() if len(bpe.encode(f" {word}")) <= PIECES})
        if len(kept) == len(counts):
            return dict(sorted(kept.items()))
        counts = kept


def main() -> None:
    """Print the list of words as this Python's manual has it: `mmcourse/world/words.txt`."""
    from mmcourse.world.corpus import prose
    print("# Words of three to eight letters in Python's manual, with how often they occur there:\n"
          "# python -m mmcourse.experiments.spelling (those that the vocabulary cuts into more than four pieces are left out)")
    for word, n in shortened(counted(prose())).items():
        print(word, n)


if __name__ == "__main__":
    main()
