"""Text <-> ids: byte-pair encoding (Sennrich et al., 2016) with GPT-2's rules (Radford et al., 2019).

A text is cut into words, a word is a row of bytes, and the most frequent pair of neighbours is merged into
a new token, again and again. The speed comes from one trick: a word is a Python `str` of `chr(id)`, so that
a merge is `word.replace(pair, new)` and runs in C.
"""
import hashlib
import heapq
import json
import operator
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import regex

from mmcourse.files import write_text

# GPT-2's cut: a contraction; letters, digits or other signs with at most one space before; or spaces.
SPLIT_PATTERN = regex.compile(r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
LONG_WORD = 200        # above this length it is faster to replay every merge than to look for the next one
CACHE_SIZE = 200_000   # distinct words whose ids are remembered


def byte_order() -> list[int]:
    """The 256 bytes in the order of their ids: GPT-2's, the visible characters first."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return visible + [b for b in range(256) if b not in visible]


BYTES = byte_order()
TO_IDS = bytes(BYTES.index(b) for b in range(256))                   # a table for bytes.translate: byte -> id
# one visible character for each byte, as GPT-2 prints them: a space is "Ġ" and a line feed is "Ċ"
LETTERS = [chr(b) if i < 188 else chr(256 + i - 188) for i, b in enumerate(BYTES)]


def to_byte_chars(word: str) -> str:
    """A word as one character a byte, `chr(id)`. ValueError for half a character."""
    check_unicode(word)
    return word.encode("utf-8").translate(TO_IDS).decode("latin-1")


def count_words(text: str | Iterable[str]) -> Counter[str]:
    """How often each word occurs, spelled in byte ids. `text` is one string or several."""
    counts = Counter()
    for part in several(text):
        counts.update(SPLIT_PATTERN.findall(part))
    return Counter({to_byte_chars(word): count for word, count in counts.items()})


def pairs(word: str) -> Iterable[str]:
    """The neighbours in a word.

    >>> list(pairs("abca"))
    ['ab', 'bc', 'ca']
    """
    return map(operator.add, word, word[1:])


def merge_words(words: list[str], counts: list[int], pair: str, new: str,
                pair_count: dict[str, int], where: dict[str, set[int]]) -> set[str]:
    """Merge `pair` into `new` in `words`, update the books, return pairs with `new`."""
    created = set()
    for i in where.pop(pair):
        before, count = words[i], counts[i]
        after = words[i] = before.replace(pair, new)
        if after == before:                    # an earlier merge took the pair out of it
            continue
        for old in pairs(before):
            pair_count[old] -= count
        for now in pairs(after):
            pair_count[now] += count
            if new in now:
                created.add(now)
                where[now].add(i)
    return created


def learn_merges(word_counts: Counter[str], n_merges: int) -> list[str]:
    """The first `n_merges` merges (fewer if pairs run out): merge i makes `chr(256 + i)`.

    The most frequent pair comes first; of equally frequent ones, that with the smaller ids.
    """
    words, counts = list(word_counts), list(word_counts.values())
    pair_count, where = defaultdict(int), defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairs(word):
            pair_count[pair] += counts[i]
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in pair_count.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merges:
        count, pair = heapq.heappop(heap)
        if -count != pair_count[pair]:         # out of date: counts only fall; put it back
            if pair_count[pair] > 0:
                heapq.heappush(heap, (-pair_count[pair], pair))
            continue
        new = chr(256 + len(merges))
        merges.append(pair)
        for created in merge_words(words, counts, pair, new, pair_count, where):
            heapq.heappush(heap, (-pair_count[created], created))
    return merges


def apply_merges(word: str, merged: dict[str, str]) -> str:
    """Merge a spelled word as far as it goes. `merged`: pair -> new character.

    New characters are numbered as they were learned: the earliest merge makes the smallest.
    """
    if len(word) > LONG_WORD:                  # replay all merges: faster for a long word
        for pair, new in merged.items():
            word = word.replace(pair, new)
        return word
    while possible := {merged[pair]: pair for pair in pairs(word) if pair in merged}:
        new = min(possible)
        word = word.replace(possible[new], new)
    return word


class WordIds(dict):
    """word -> ids, computed when first asked for, and remembered while there is room."""

    def __init__(self, merged: dict[str, str]):
        self.merged = merged

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(map(ord, apply_merges(to_byte_chars(word), self.merged)))
        if len(self) < CACHE_SIZE and len(word) <= LONG_WORD:
            self[word] = ids
        return ids


class VocabularyFile:
    """How a vocabulary is printed, written and read: what `BPETokenizer` does with files, and no more."""

    def __repr__(self):
        return f"{type(self).__name__}({len(self.merges)} merges, {self.vocab_size} ids)"

    def render_token(self, i: int) -> str:
        """A token as GPT-2 prints it, one visible character a byte: ``" cat"`` is ``"Ġcat"``."""
        if not 0 <= operator.index(i) < self.vocab_size:
            raise ValueError(f"id out of range: {i}; this vocabulary has ids 0 to {self.vocab_size - 1}")
        names = list(self.special_tokens)
        first = self.vocab_size - len(names)
        return names[i - first] if i >= first else "".join(LETTERS[TO_IDS[b]] for b in self.tokens[i])

    @classmethod
    def from_gpt2_merges(cls, lines: Iterable[str], special_tokens: Sequence[str] = ()):
        """From merges as GPT-2 published them (`vocab.bpe`): two visible tokens a line, a space between.

        The lines of the file as they are: with or without their line ends and the `#version` at the top.
        """
        char, merges = {letter: chr(i) for i, letter in enumerate(LETTERS)}, []
        lines = (line.rstrip("\r\n") for line in lines)
        for number, line in enumerate(line for line in lines if line and not line.startswith("#version: ")):
            left, _, right = line.partition(" ")
            if left not in char or right not in char or left + right in char:
                raise ValueError(f"merge {number}, {line!r}, does not join two tokens that exist before it")
            merges.append(char[left] + char[right])
            char[left + right] = chr(255 + len(merges))
        return cls(merges, special_tokens)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the vocabulary as JSON that a person can read: one merge a line. The write is atomic."""
        lines = [f"{self.render_token(ord(left))} {self.render_token(ord(right))}"
                 for left, right in self.merges]
        content = {"format": "mmcourse-bpe", "version": 1, "vocab_size": self.vocab_size,
                   "pattern": SPLIT_PATTERN.pattern, "special_tokens": list(self.special_tokens),
                   "merges": lines}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1, ensure_ascii=False) + "\n"
        write_text(path, text)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Read what `save` wrote. ValueError if the file is cut, altered, of another format or version."""
        again = "train it again (`python -m mmcourse train bpe`) or fetch the file again"
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is cut or is not JSON ({error}); {again}") from None
        if not isinstance(content, dict) or content.get("format") != "mmcourse-bpe":
            raise ValueError(f"{path} is no vocabulary of this course (format 'mmcourse-bpe'); {again}")
        if content.get("version") != 1:
            raise ValueError(f"{path} has version {content.get('version')!r}, this package reads 1; {again}")
        if content.pop("sha256", None) != _digest(content) or content.get("pattern") != SPLIT_PATTERN.pattern:
            raise ValueError(f"{path} was altered: its content does not match its checksum; {again}")
        return cls.from_gpt2_merges(content["merges"], content["special_tokens"])


class BPETokenizer(VocabularyFile):
    """Text <-> ids: first the 256 bytes, then the merges, then the special tokens.

    A special token comes out of `encode` only if the caller names it in `allowed_special`:
    what a user types stays text.

    >>> tokenizer = BPETokenizer.train("a cat, a cat, a cat", 258)
    >>> tokenizer.encode("a cat"), tokenizer.decode(tokenizer.encode("a cat"))
    ([64, 220, 257], 'a cat')
    """

    def __init__(self, merges: Sequence[str], special_tokens: Sequence[str] = ()):
        """`merges` as `learn_merges` gives them. ValueError if they do not fit."""
        check_merges(merges)
        self.merges = list(merges)
        self.merged = {pair: chr(256 + i) for i, pair in enumerate(merges)}
        self.tokens = [bytes([b]) for b in BYTES]
        for left, right in merges:
            self.tokens.append(self.tokens[ord(left)] + self.tokens[ord(right)])
        self.special_tokens = numbered(special_tokens, first=len(self.tokens))
        self.tokens += [name.encode("utf-8") for name in self.special_tokens]
        self.vocab_size = len(self.tokens)
        self._word_ids = WordIds(self.merged)

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int,
              special_tokens: Sequence[str] = ()):
        """Learn a vocabulary of `vocab_size` ids, bytes and special tokens included.

        `text` is one string or several. ValueError for none, or no room for the bytes.
        If the text is too short to fill the vocabulary: a smaller one, with a warning.
        """
        check_vocab_size(vocab_size, special_tokens)
        word_counts = count_words(text)
        merges = learn_merges(word_counts, vocab_size - 256 - len(special_tokens))
        tokenizer = cls(merges, special_tokens)
        check_learned(tokenizer, word_counts, vocab_size)
        return tokenizer

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """The ids of a text. Special tokens are found in it only if they are allowed."""
        check_text(text)
        allowed = names_in(allowed_special, self.special_tokens)
        if not allowed:
            words = SPLIT_PATTERN.findall(text)
            return list(chain.from_iterable(map(self._word_ids.__getitem__, words)))
        ids = []
        for part in split_at(allowed, text):
            ids += [self.special_tokens[part]] if part in allowed else self.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a flat row of ids. Bytes that are not valid UTF-8 become U+FFFD."""
        ids = whole_numbers(ids, below=self.vocab_size)
        return b"".join(map(self.tokens.__getitem__, ids)).decode("utf-8", errors="replace")


# ---------------------------------------------------------------- clear words for what does not fit

def several(text: str | Iterable[str]) -> Iterator[str]:
    """The parts of a text that is one `str` or several. TypeError for anything else."""
    parts = [text] if isinstance(text, (str, bytes)) or not isinstance(text, Iterable) else text
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"the text must be a str or an iterable of str, got {type(part).__name__}")
        yield part


def check_unicode(word: str) -> None:
    """ValueError for half a character, which cannot be written as bytes."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text holds a lone surrogate, {error.object[error.start]!r}: half a character; "
                         "clean it with text.encode('utf-8', 'replace').decode()") from None


def check_text(text: str) -> None:
    """TypeError unless a text to encode is a `str`."""
    if not isinstance(text, str):
        raise TypeError(f"encode takes a str, got {type(text).__name__}")


def check_merges(merges: Sequence[str]) -> None:
    """ValueError unless each merge joins two tokens that exist before it, and none occurs twice."""
    for i, pair in enumerate(merges):
        if len(pair) != 2 or ord(max(pair)) >= 256 + i:
            raise ValueError(f"merge {i} is {pair!r}: it must join two tokens that exist before it")
    if len(set(merges)) != len(merges):
        raise ValueError("a merge occurs twice")


def check_vocab_size(vocab_size: int, special_tokens: Sequence[str]) -> None:
    """ValueError if bytes and special tokens do not fit into the vocabulary; TypeError unless an integer."""
    needed = 256 + len(numbered(special_tokens, first=0))
    if operator.index(vocab_size) < needed:
        raise ValueError(f"vocab_size={vocab_size} is too small: bytes and special tokens need {needed}")


def check_learned(tokenizer: "BPETokenizer", word_counts: Counter[str], vocab_size: int) -> None:
    """ValueError if there was nothing to learn from; a warning, for the caller of `train`, if too little."""
    if not word_counts:
        raise ValueError("the text is empty: there is nothing to learn merges from")
    if tokenizer.vocab_size < vocab_size:
        warnings.warn(f"the text has no pairs left after {len(tokenizer.merges)} merges: the vocabulary has "
                      f"{tokenizer.vocab_size} ids, not {vocab_size}", stacklevel=3)


def numbered(special_tokens: Sequence[str], first: int) -> dict[str, int]:
    """name -> id of the special tokens. TypeError or ValueError unless distinct, non-empty strings."""
    if isinstance(special_tokens, str) or not all(isinstance(name, str) for name in special_tokens):
        raise TypeError(f"special_tokens is a list of str, got {special_tokens!r}")
    if "" in special_tokens or len(set(special_tokens)) != len(special_tokens):
        raise ValueError(f"special tokens must be distinct and not empty, got {list(special_tokens)}")
    for name in special_tokens:
        check_unicode(name)
    return {name: first + i for i, name in enumerate(special_tokens)}


def names_in(allowed: str | Iterable[str], special_tokens: dict[str, int]) -> set[str]:
    """The names of special tokens that a caller allows, one or several. ValueError for an unknown one."""
    allowed = {allowed} if isinstance(allowed, str) else set(allowed)
    if unknown := allowed - set(special_tokens):
        raise ValueError(f"{sorted(unknown)} are not special tokens of this vocabulary, which has "
                         f"{list(special_tokens)}")
    return allowed


def split_at(names: set[str], text: str) -> list[str]:
    """The text cut before and after each of `names`, the longest first where two begin at the same place."""
    longest_first = sorted(names, key=len, reverse=True)
    return regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text)


def whole_numbers(ids: Iterable[int], below: int) -> list[int]:
    """`ids` as a list of `int` from 0 to `below` - 1; TypeError or ValueError that says what is wrong."""
    try:
        ids = [operator.index(i) for i in ids]
    except TypeError as error:
        raise TypeError(f"decode takes a flat sequence of whole numbers: {error}") from None
    if wrong := list(islice((i for i in ids if not 0 <= i < below), 3)):
        raise ValueError(f"ids out of range: {wrong}; this vocabulary has ids 0 to {below - 1}")
    return ids


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
