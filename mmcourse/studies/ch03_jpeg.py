"""72 bytes as tokens against JPEG, WebP and AVIF; about 2 CPU minutes.

The files are those that Pillow writes, on held-out pictures: for each kind the best PSNR among sizes and
qualities that fits 72, 144, 288 and 576 bytes, counted once without the file's headers and once with them.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.judges.metrics import mean_psnr, sign_accuracy
from mmcourse.studies import Job, Study
from mmcourse.studies._ch03 import letter_accuracy, signed_scenes
from mmcourse.world.photos import BUDGETS, KINDS, best, can_write, candidates

TOKEN_BYTES = 72                        # 64 tokens of 9 bits


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    pictures: int = 48                  # all have a sign, so that all can be read


@cache
def scenes_of(plan: Plan):
    """The scenes and their pictures."""
    return signed_scenes(plan.pictures, stream=(0, 98))


def row(plan: Plan, pictures: torch.Tensor, **more) -> dict:
    """PSNR (the mean of each picture's), letters by template and signs by OCR."""
    scenes, truth = scenes_of(plan)
    out = {**more, "psnr_db": round(mean_psnr(pictures, truth), 2),
           "letters": round(letter_accuracy(pictures, scenes), 3)}
    signs = sign_accuracy(pictures, scenes)
    return out if signs is None else {**out, "signs_ocr": round(signs, 3)}


def tokens(plan: Plan) -> dict:
    """The shipped tokenizer."""
    model = checkpoints.load("vqvae")
    return row(plan, model.decode(model.encode(scenes_of(plan)[1])), bytes=TOKEN_BYTES)


def files(plan: Plan, kind: str) -> list[dict]:
    """A row for each way of counting bytes and each budget. Measured only if every picture fits: else the
    mean would be one of the easy pictures."""
    found, rows = [candidates(picture, kind) for picture in scenes_of(plan)[1]], []
    for count in ("payload", "file"):
        for budget in BUDGETS:
            fits = [c for c in (best(f, budget, count) for f in found) if c]
            entry = {"kind": kind, "count": count, "budget": budget, "fits": len(fits)}
            if len(fits) == plan.pictures:
                size = round(float(np.mean([c["file"] for c in fits])), 1)
                entry |= {**row(plan, torch.stack([c["picture"] for c in fits])), "whole_file": size}
            rows.append(entry)
    return rows


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The ceiling, the tokens, and the kinds of files that this Pillow writes."""
    out = [Job("true pictures", lambda: row(plan, scenes_of(plan)[1]), section=()),
           Job("tokens", lambda: tokens(plan), section=())]
    return out + [Job(kind, lambda kind=kind: files(plan, kind), section=("codecs",), key={"kind": kind})
                  for kind in filter(can_write, KINDS)]


STUDY = Study("ch03_jpeg", Plan(), Plan(pictures=2), jobs, head=asdict)
main = STUDY.run
