"""Text <-> ids: byte-pair encoding (Sennrich et al., 2016) with GPT-2's rules (Radford et al., 2019).

A text is cut into words, a word is a row of bytes, and the most frequent pair of neighbours is merged into a new
token, again and again. The speed comes from one trick: a word is a Python `str` of `chr(id)`, so that a merge
is `word.replace(pair, new)` and runs in C.
"""
import hashlib
import heapq
import json
import operator
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import regex

from mmcourse.files import write_text

# GPT-2's cut: a contraction; letters, digits or other signs with at most one space before; or spaces.
SPLIT_PATTERN = regex.compile(r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
LONG_WORD = 200        # above this length it is faster to replay every merge than to look for the next one
CACHE_SIZE = 200_000   # distinct words whose ids are remembered


def byte_order() -> list[int]:
    """The 256 bytes in GPT-2's order, visible Latin-1 characters first: byte `byte_order()[i]` has id i."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return visible + [b for b in range(256) if b not in visible]


BYTES = byte_order()
TO_IDS = bytes(BYTES.index(b) for b in range(256))                   # a table for bytes.translate: byte -> id
# one visible character for each byte, as GPT-2 prints them: a space is "Ġ" and a line feed is "Ċ"
LETTERS = [chr(b) if i < 188 else chr(256 + i - 188) for i, b in enumerate(BYTES)]


def to_byte_chars(word: str) -> str:
    """A word as one character a byte: `chr(id)` of the byte in UTF-8. ValueError if not Unicode."""
    try:
        return word.encode("utf-8").translate(TO_IDS).decode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text holds a lone surrogate, {error.object[error.start]!r}: half a character; "
                         "clean it with text.encode('utf-8', 'replace').decode()") from None


def count_words(text: str | Iterable[str]) -> Counter[str]:
    """How often each word occurs, spelled in byte ids. `text` is one string or several."""
    counts = Counter()
    parts = [text] if isinstance(text, (str, bytes)) or not isinstance(text, Iterable) else text
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"the text must be a str or an iterable of str, got {type(part).__name__}")
        counts.update(SPLIT_PATTERN.findall(part))
    return Counter({to_byte_chars(word): count for word, count in counts.items()})


def pairs(word: str) -> Iterable[str]:
    """The neighbours in a word.

    >>> list(pairs("abca"))
    ['ab', 'bc', 'ca']
    """
    return map(operator.add, word, word[1:])


def learn_merges(word_counts: Counter[str], n_merges: int) -> list[str]:
    """The first `n_merges` merges (fewer if the pairs run out): merge i turns a pair into `chr(256 + i)`.

    The most frequent pair comes first; of equally frequent ones, that with the smaller ids (left, then right).
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
        if -count != pair_count[pair]:                     # out of date: counts only fall; put it back
            if pair_count[pair] > 0:
                heapq.heappush(heap, (-pair_count[pair], pair))
            continue
        new = chr(256 + len(merges))
        merges.append(pair)
        for created in merge_words(words, counts, pair, new, pair_count, where):
            heapq.heappush(heap, (-pair_count[created], created))
    return merges


def merge_words(words: list[str], counts: list[int], pair: str, new: str,
                pair_count: dict[str, int], where: dict[str, set[int]]) -> set[str]:
    """Merge `pair` into `new` in `words`; updates `pair_count` and `where`. Returns pairs with `new`."""
    created = set()
    for i in where.pop(pair):
        before, count = words[i], counts[i]
        after = words[i] = before.replace(pair, new)
        if after == before:                                # an earlier merge took the pair out of this word
            continue
        for old in pairs(before):
            pair_count[old] -= count
        for now in pairs(after):
            pair_count[now] += count
            if new in now:
                created.add(now)
                where[now].add(i)
    return created


def apply_merges(word: str, merged: dict[str, str]) -> str:
    """Merge a spelled word as far as it goes. `merged`: pair -> new character, in order of learning.

    New characters are numbered in that order too: the earliest possible merge makes the smallest one.
    """
    if len(word) > LONG_WORD:
        for pair, new in merged.items():
            word = word.replace(pair, new)
        return word
    pair_of = {}
    while True:
        for pair in pairs(word):
            if pair in merged:
                pair_of[merged[pair]] = pair
        if not pair_of:
            return word
        new = min(pair_of)
        word = word.replace(pair_of[new], new)
        pair_of.clear()


class _WordIds(dict):
    """word -> ids, computed when first asked for, and remembered while there is room."""

    def __init__(self, merged: dict[str, str]):
        self.merged = merged

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(map(ord, apply_merges(to_byte_chars(word), self.merged)))
        if len(self) < CACHE_SIZE and len(word) <= LONG_WORD:
            self[word] = ids
        return ids


class BPETokenizer:
    """Text <-> ids. Ids 0-255 are the bytes in GPT-2's order, then the merges, then the special tokens.

    Make one with `train`, `load` or `from_gpt2_merges`. A special token comes out of `encode` only if the caller
    names it in `allowed_special`: what a user types stays text.

    >>> tokenizer = BPETokenizer.train("a cat, a cat, a cat", 258)
    >>> tokenizer.encode("a cat"), tokenizer.decode(tokenizer.encode("a cat"))
    ([64, 220, 257], 'a cat')
    """

    def __init__(self, merges: Sequence[str], special_tokens: Sequence[str] = ()):
        """`merges` as `learn_merges` gives them: pairs of `chr(id)`. ValueError if they do not fit."""
        for i, pair in enumerate(merges):
            if len(pair) != 2 or ord(max(pair)) >= 256 + i:
                raise ValueError(f"merge {i} is {pair!r}: it must join two tokens that exist before it")
        self.merges = list(merges)
        self.merged = {pair: chr(256 + i) for i, pair in enumerate(merges)}
        if len(self.merged) != len(self.merges):
            raise ValueError("a merge occurs twice")
        self.tokens = [bytes([b]) for b in BYTES]
        for left, right in merges:
            self.tokens.append(self.tokens[ord(left)] + self.tokens[ord(right)])
        self.special_tokens = _numbered(special_tokens, first=len(self.tokens))
        self.tokens += [name.encode("utf-8") for name in self.special_tokens]
        self.vocab_size = len(self.tokens)
        self._word_ids = _WordIds(self.merged)

    def __repr__(self):
        return f"BPETokenizer({len(self.merges)} merges, {self.vocab_size} ids)"

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int,
              special_tokens: Sequence[str] = ()) -> "BPETokenizer":
        """Learn a vocabulary of `vocab_size` ids (bytes and special tokens included) from a text or several.

        ValueError if there is no text or if `vocab_size` is too small to hold the bytes. A text too short to
        fill the vocabulary gives a smaller one, with a warning.
        """
        alone = 256 + len(_numbered(special_tokens, first=0))
        n_merges = operator.index(vocab_size) - alone
        if n_merges < 0:
            raise ValueError(f"vocab_size={vocab_size} is too small: bytes and special tokens need {alone}")
        word_counts = count_words(text)
        if not word_counts:
            raise ValueError("the text is empty: there is nothing to learn merges from")
        merges = learn_merges(word_counts, n_merges)
        if len(merges) < n_merges:
            warnings.warn(f"the text has no pairs left after {len(merges)} merges: the vocabulary has "
                          f"{alone + len(merges)} ids, not {vocab_size}", stacklevel=2)
        return cls(merges, special_tokens)

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """The ids of a text. Only the special tokens named in `allowed_special` are looked for in it."""
        if not isinstance(text, str):
            raise TypeError(f"encode takes a str, got {type(text).__name__}")
        allowed = {allowed_special} if isinstance(allowed_special, str) else set(allowed_special)
        if unknown := allowed - set(self.special_tokens):
            raise ValueError(f"{sorted(unknown)} are not special tokens of this vocabulary, which has "
                             f"{list(self.special_tokens)}")
        if not allowed:
            return list(chain.from_iterable(map(self._word_ids.__getitem__, SPLIT_PATTERN.findall(text))))
        longest_first = sorted(allowed, key=len, reverse=True)
        ids = []
        for part in regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text):
            ids += [self.special_tokens[part]] if part in allowed else self.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a flat sequence of ids. Bytes that are not valid UTF-8 become the character U+FFFD."""
        try:
            ids = [operator.index(i) for i in ids]
        except TypeError as error:
            raise TypeError(f"decode takes a flat sequence of whole numbers: {error}") from None
        if wrong := list(islice((i for i in ids if not 0 <= i < self.vocab_size), 3)):
            raise ValueError(f"ids out of range: {wrong}; this vocabulary has ids 0 to {self.vocab_size - 1}")
        return b"".join(map(self.tokens.__getitem__, ids)).decode("utf-8", errors="replace")

    def render_token(self, i: int) -> str:
        """A token as GPT-2 prints it, one visible character a byte: ``" cat"`` is ``"Ġcat"``."""
        if not 0 <= operator.index(i) < self.vocab_size:
            raise ValueError(f"id out of range: {i}; this vocabulary has ids 0 to {self.vocab_size - 1}")
        names = list(self.special_tokens)
        first = self.vocab_size - len(names)
        return names[i - first] if i >= first else "".join(LETTERS[TO_IDS[b]] for b in self.tokens[i])

    @classmethod
    def from_gpt2_merges(cls, lines: Iterable[str], special_tokens: Sequence[str] = ()) -> "BPETokenizer":
        """From merges as GPT-2 published them (`vocab.bpe`): two visible tokens a line, a space between."""
        char, merges = {letter: chr(i) for i, letter in enumerate(LETTERS)}, []
        for number, line in enumerate(lines):
            left, _, right = line.partition(" ")
            if left not in char or right not in char or left + right in char:
                raise ValueError(f"merge {number}, {line!r}, does not join two tokens that exist before it")
            merges.append(char[left] + char[right])
            char[left + right] = chr(255 + len(merges))
        return cls(merges, special_tokens)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the vocabulary as JSON that a person can read: one merge a line. The write is atomic."""
        lines = [f"{self.render_token(ord(left))} {self.render_token(ord(right))}" for left, right in self.merges]
        content = {"format": "mmcourse-bpe", "version": 1, "vocab_size": self.vocab_size,
                   "pattern": SPLIT_PATTERN.pattern, "special_tokens": list(self.special_tokens), "merges": lines}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1, ensure_ascii=False) + "\n"
        write_text(path, text)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "BPETokenizer":
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


def _numbered(special_tokens: Sequence[str], first: int) -> dict[str, int]:
    """name -> id of the special tokens. TypeError or ValueError unless distinct, non-empty strings."""
    if isinstance(special_tokens, str) or not all(isinstance(name, str) for name in special_tokens):
        raise TypeError(f"special_tokens is a list of str, got {special_tokens!r}")
    if "" in special_tokens or len(set(special_tokens)) != len(special_tokens):
        raise ValueError(f"special tokens must be distinct and not empty, got {list(special_tokens)}")
    for name in special_tokens:
        to_byte_chars(name)
    return {name: first + i for i, name in enumerate(special_tokens)}


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
