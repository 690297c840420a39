"""The shipped text vocabulary: 1,024 ids learned from captions of the world and a little English prose."""
import platform
import time

from mmcourse import checkpoints
from mmcourse.bpe import BPETokenizer
from mmcourse.recipes import options, run_file, say_where, target
from mmcourse.world.corpus import captions, prose, spoken_words

VOCAB_SIZE = 1024
CAPTIONS = 20_000
SPOKEN = 1_000          # times that the list of words is read: enough that each becomes one token


def train_vocabulary(seed: int = 0) -> BPETokenizer:
    """The vocabulary of the reference model, in seconds. The same on every run of one Python version."""
    text = [captions(CAPTIONS, seed), *[spoken_words()] * SPOKEN, prose()]
    return BPETokenizer.train(text, VOCAB_SIZE)


def main(argv: list[str] | None = None, folder=None) -> BPETokenizer:
    """Train, save `bpe.json` and record it in the manifest."""
    args = options("bpe", argv, steps=None)
    start = time.process_time()
    tokenizer = train_vocabulary(args.seed)
    run = run_file("bpe", seed=args.seed, python=platform.python_version())
    folder, draft = target(args, run, folder), tokenizer.save(run.parent / "trained.json")
    checkpoints.record("bpe", "bpe.json", folder=folder, content=draft.read_bytes(), model="BPETokenizer", seed=args.seed,
                       steps=len(tokenizer.merges), cpu_minutes=round((time.process_time() - start) / 60, 3),
                       config={"vocab_size": VOCAB_SIZE, "captions": CAPTIONS, "spoken": SPOKEN,
                               "python": platform.python_version()})
    draft.unlink()
    say_where(folder / "bpe.json", {"ids": tokenizer.vocab_size})
    return tokenizer
