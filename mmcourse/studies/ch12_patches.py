"""Text in patches of bytes: does it matter where they end? About 80 CPU minutes.

A net reads bytes, its trunk, which has most of the weights, works once a patch (`experiments.byte_patches`). The same net learns
the same English rows; only where patches end differs: where a small model of bytes is unsure of the next one (`surprise`, Pagnoni
et al. 2024), where a piece of a BPE vocabulary ends (`pieces`), every so many bytes (`stride`), by dice (`thrown`), all equally
often; and after each byte (`bytes`), the ceiling, whose trunk computes over three times as much. Where a piece ends is known only
from the bytes that follow, so that its end tells something about them: this net has to say the ends, too, and their bits count.
Written down before it ran:

- E1: `surprise` needs fewer bits a byte than `thrown`.
- E2: and fewer than `stride`.
- E3: `surprise` is not behind `pieces` by more than .02 bits a byte.
- E4: `bytes` needs fewer bits than all of them.
- E5: the bits of the bytes alone, given the ends of the pieces, look better than they are by more than .05 bits a byte: a trap.
- E6 (added when one seed of the others was seen, in which `pieces` did badly): a plain transformer whose tokens are the pieces
  themselves (`vocabulary`), with as many blocks as the trunk and hence about as many operations a byte, needs fewer bits than
  all nets with patches.

Rows: `bits` a byte of the test split (the bytes of a row after its first, or after its first piece), `bytes alone`: without those
for the ends of patches; `length`: bytes a patch there; `flops`: operations a byte, those of the small model of bytes included
where it is asked; `byte model`: bits a byte of that model by itself.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.bpe import BPETokenizer
from mmcourse.experiments.byte_patches import (
    BYTES,
    LENGTH,
    PIECES,
    WAYS,
    Cutter,
    PatchNet,
    as_ids,
    chunks,
    patch_loss,
    random_rows,
    rows,
    targets,
)
from mmcourse.judges.metrics import count_flops
from mmcourse.optim import Optim
from mmcourse.studies import Job, Study, finished
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer, next_token_loss

OPTIM = Optim("muon", lr=2e-3, warmup=30)


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: `steps` of the net, each with `batch` rows, `byte_steps` of the small model of bytes; `rows`: of
    the test split, at most."""
    steps: int = 600
    batch: int = 16
    byte_steps: int = 600
    rows: int = 10_000
    split: str = "test"


@cache
def pieces() -> BPETokenizer:
    """A vocabulary of the training text."""
    return BPETokenizer.train((chunk.decode("ascii") for chunk in chunks("train")), PIECES)


@cache
def cutter(seed: int, plan: Plan) -> Cutter:
    """The small model of bytes, trained, and what it takes to cut."""
    torch.manual_seed(seed)
    model = Transformer(BYTES, width=64, layers=2, heads=4, context=LENGTH)
    finished(train(model, lambda rng: (as_ids(random_rows(rng, 2 * plan.batch)),), partial(next_token_loss, pad=-1),
                   steps=plan.byte_steps, optim=OPTIM, run=Run(seed=seed, progress=False)))
    return Cutter(model, pieces(), random_rows(np.random.default_rng(seed), 400))


def trained(way: str, seed: int, plan: Plan) -> PatchNet:
    """The net that learned with patches cut in one way."""
    cut = cutter(seed, plan)
    torch.manual_seed(seed)
    net = PatchNet(2 * BYTES if way == "pieces" else BYTES)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        texts = random_rows(rng, plan.batch)
        return as_ids(texts), cut(way, texts, rng)
    finished(train(net, batch, patch_loss, steps=plan.steps, optim=OPTIM, run=Run(seed=seed, progress=False)))
    return net


def measure(way: str, seed: int, plan: Plan) -> dict:
    """A row."""
    net, cut = trained(way, seed, plan), cutter(seed, plan)
    every, dice = rows(plan.split)[:plan.rows], np.random.default_rng(seed)
    bits, alone, patches = 0.0, 0.0, 0
    with torch.no_grad():
        for i in range(0, len(every), 32):
            texts = every[i:i + 32]
            ids, ends = as_ids(texts), cut(way, texts, dice)
            logs = net(ids[:, :-1], ends[:, :-1]).log_softmax(-1)                               # (B, T - 1, classes)
            bits += F.nll_loss(logs.flatten(0, 1), targets(net, ids, ends)[:, 1:].flatten(), reduction="sum").item()
            of_bytes = logs.unflatten(-1, (-1, BYTES)).logsumexp(-2)                            # (B, T - 1, 256)
            alone += F.nll_loss(of_bytes.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
            patches += int(ends.sum())
    said = len(every) * (LENGTH - 1) * math.log(2)                        # bytes, in nats a bit
    ids, ends = as_ids(every[:1]), cut(way, every[:1], dice)
    flops = count_flops(lambda: net(ids, ends)) + (count_flops(lambda: cut.byte_model(ids)) if way == "surprise" else 0)
    return {"bits": round(bits / said, 4), "bytes alone": round(alone / said, 4),
            "length": round(len(every) * LENGTH / patches, 3), "flops": round(flops / LENGTH),
            "byte model": round(byte_bits(cut, every), 4)}


def vocabulary(seed: int, plan: Plan) -> dict:
    """The row of a plain transformer over pieces."""
    tokenizer, room = pieces(), LENGTH + 1

    def encoded(texts: Sequence[bytes]) -> torch.Tensor:
        rows_ = [[1 + i for i in tokenizer.encode(text.decode("ascii"))] for text in texts]    # 0: nothing
        most = max(map(len, rows_))
        return torch.tensor([row + [0] * (most - len(row)) for row in rows_])
    torch.manual_seed(seed)
    model = Transformer(1 + tokenizer.vocab_size, width=192, layers=3, heads=4, context=room)
    finished(train(model, lambda rng: (encoded(random_rows(rng, plan.batch)),), next_token_loss, steps=plan.steps, optim=OPTIM,
                   run=Run(seed=seed, progress=False)))
    every, bits, said, tokens = rows(plan.split)[:plan.rows], 0.0, 0, 0
    with torch.no_grad():
        for i in range(0, len(every), 32):
            ids = encoded(every[i:i + 32])
            n = int((ids[:, 1:] > 0).sum())
            bits, tokens = bits + n * next_token_loss(model, ids).item() / math.log(2), tokens + n + len(ids)
            said += sum(len(text) - len(tokenizer.tokens[row[0] - 1]) for text, row in zip(every[i:i + 32], ids.tolist()))
    one = encoded(every[:1])
    return {"bits": round(bits / said, 4), "bytes alone": round(bits / said, 4), "length": round(len(every) * LENGTH / tokens, 3),
            "flops": round(count_flops(lambda: model(one)) / LENGTH)}


def byte_bits(cut: Cutter, texts: Sequence[bytes]) -> float:
    """Bits a byte of the small model."""
    with torch.no_grad():
        each = [next_token_loss(cut.byte_model, as_ids(texts[i:i + 32]), pad=-1).item() * len(texts[i:i + 32])
                for i in range(0, len(texts), 32)]
    return sum(each) / len(texts) / math.log(2)


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Every way with every seed."""
    makes = {way: partial(measure, way) for way in WAYS} | {"vocabulary": vocabulary}
    return [Job(f"{arm}, seed {seed}", partial(make, seed, plan), ("rows", arm), str(seed), seed=seed)
            for seed in seeds for arm, make in makes.items()]


STUDY = Study("ch12_patches", Plan(), Plan(steps=3, byte_steps=3, batch=2, rows=4, split="validation"), jobs, seeds=(0, 1, 2),
              minutes=True)
main = STUDY.run
