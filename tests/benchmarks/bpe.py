"""Side by side: this course's BPE, Hugging Face's, tiktoken's, and a plain one in the style of minbpe.

    python tests/benchmarks/bpe.py    # prints, and writes data/results/ch02_benchmark.json (two minutes)

CPU seconds of one thread. What is short runs in turns, us and them, and the fastest of five counts; what
takes seconds runs once. Read the ratios: absolute times belong to the machine. The floors were fixed
beforehand.
"""
import os
import platform
import subprocess
import sys
import sysconfig
from collections import Counter
from functools import partial
from pathlib import Path

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")   # before tokenizers is imported

from common import fastest  # noqa: E402

from mmcourse.bpe import SPLIT_PATTERN, TO_IDS, BPETokenizer  # noqa: E402
from mmcourse.files import write_json  # noqa: E402
from mmcourse.paths import RESULTS  # noqa: E402
from mmcourse.world import corpus  # noqa: E402

FLOORS = {"train_100kb_512": 100, "train_1mb_4096": 0.7, "train_10mb_4096": 1, "encode_10mb_32768": 1,
          "import": 10}      # how many times as fast as the peer; for the import, as a budget of 1 CPU second


def seconds(*functions, repeat: int = 1) -> list[float]:
    """CPU seconds of each function, run in turns; the fastest run counts."""
    return list(fastest(dict(enumerate(functions)), repeat, warm_up=0).values())


def import_seconds() -> float:
    """CPU seconds of `import mmcourse.bpe` in a fresh interpreter; the interpreter's own start is not
    counted."""
    code = ("import time; start = time.process_time(); import mmcourse.bpe; print(time.process_time() - start); "
            "import sys; assert 'torch' not in sys.modules")
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(5)]
    return min(float(run.stdout) for run in runs)


def english(size: int) -> str:
    """`size` characters: Python's manual first, then the sources of its standard library."""
    text = corpus.prose()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if len(text) >= size:
            break
        if "site-packages" not in path.parts:
            text += path.read_text(encoding="utf-8", errors="replace")
    return text[:size]


def plain_merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        hit = i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]
        out.append(new if hit else ids[i])
        i += 1 + hit
    return out


def plain_train(text: str, n_merges: int) -> dict:
    """Lists of ids, every pair counted anew for every merge."""
    words, merges = [list(word.encode()) for word in SPLIT_PATTERN.findall(text)], {}
    for k in range(n_merges):
        count = Counter()
        for word in words:
            count.update(zip(word, word[1:]))
        pair = max(count, key=count.get)
        words, merges[pair] = [plain_merge(word, pair, 256 + k) for word in words], 256 + k
    return merges


def plain_encode(text: str, merges: dict) -> list[int]:
    out = []
    for piece in SPLIT_PATTERN.findall(text):
        word = [TO_IDS[b] for b in piece.encode()]
        while len(word) > 1:
            pair = min(zip(word, word[1:]), key=lambda p: merges.get(p, 10**9))
            if pair not in merges:
                break
            word = plain_merge(word, pair, merges[pair])
        out += word
    return out


def hugging_face(text: str, vocab_size: int):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    peer.train_from_iterator([text], trainer)
    return peer


class Report:
    """The results so far: one entry for each comparison, with its floor if it has one."""

    def __init__(self):
        self.result = {"python": platform.python_version(), "threads": 1}

    def __call__(self, name: str, **figures) -> None:
        entry = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
        print(name, entry, flush=True)
        if name in FLOORS:
            reached = entry["times_as_fast"]
            entry |= {"floor": FLOORS[name], "met": reached >= FLOORS[name]}
            print(f"    {'met' if entry['met'] else 'MISSED'}: {reached:.2f}x, floor {FLOORS[name]}x")
        self.result[name] = entry


def training(report: Report) -> None:
    """Seconds to learn a vocabulary: against the plain way, and against Hugging Face."""
    text = english(100_000)
    (ours,) = seconds(lambda: BPETokenizer.train(text, 512), repeat=5)
    (plain,) = seconds(lambda: plain_train(text, 256))
    report("train_100kb_512", course=ours, plain=plain, times_as_fast=plain / ours)

    for name, size, repeat in [("train_1mb_4096", 1_000_000, 5), ("train_10mb_4096", 10_000_000, 1)]:
        sample = english(size)
        ours, theirs = seconds(partial(BPETokenizer.train, sample, 4096), partial(hugging_face, sample, 4096),
                               repeat=repeat)
        report(name, course=ours, hugging_face=theirs, times_as_fast=theirs / ours)

    text = english(1_000_000)
    (some,) = seconds(lambda: plain_train(text, 12))
    # A merge costs time in proportion to the tokens left, and the last vocabulary still leaves `share` of
    # them.
    share = len(BPETokenizer.train(text, 4096).encode(text)) / len(text.encode())
    least = 3840 * some / 12 * share
    report("train_1mb_4096_plain", twelve_merges=some, at_least=least,
           times_faster_at_least=least / report.result["train_1mb_4096"]["course"])


def encoding(report: Report) -> None:
    """Megabytes a second with one vocabulary of 32,768: against Hugging Face, tiktoken and the plain way."""
    import tiktoken
    text = english(10_000_000)
    tokenizer = BPETokenizer.train(text, 32_768)
    peer = hugging_face(text, 32_768)
    ranks = {token: i for i, token in enumerate(tokenizer.tokens)}
    tik = tiktoken.Encoding("same", pat_str=SPLIT_PATTERN.pattern, mergeable_ranks=ranks, special_tokens={})
    fresh = BPETokenizer(tokenizer.merges)
    (cold,), (warm,) = seconds(lambda: fresh.encode(text)), seconds(lambda: fresh.encode(text))
    theirs, rust = seconds(lambda: peer.encode(text), lambda: tik.encode_ordinary(text))
    report("encode_10mb_32768", course_cold=10 / cold, course_warm=10 / warm, hugging_face=10 / theirs,
           tiktoken=10 / rust, unit="MB/s", times_as_fast=theirs / cold)
    assert fresh.encode(text[:200_000]) == tik.encode_ordinary(text[:200_000]) == peer.encode(text[:200_000]).ids

    part, again = text[:1_000_000], BPETokenizer(tokenizer.merges)
    merges = {tuple(map(ord, pair)): 256 + i for i, pair in enumerate(tokenizer.merges)}
    plain, cold = seconds(lambda: plain_encode(part, merges), lambda: again.encode(part))
    assert plain_encode(part[:50_000], merges) == again.encode(part[:50_000])
    report("encode_1mb_32768_plain", plain=1 / plain, course_cold=1 / cold, unit="MB/s", times_faster=plain / cold)


def main() -> None:
    report = Report()
    taken = import_seconds()
    report("import", seconds=taken, budget=0.1, times_as_fast=1 / taken)
    training(report)
    encoding(report)
    missed = [name for name in FLOORS if not report.result[name]["met"]]
    print("all floors met" if not missed else f"MISSED: {', '.join(missed)}")
    write_json(RESULTS / "ch02_benchmark.json", report.result)


if __name__ == "__main__":
    main()
