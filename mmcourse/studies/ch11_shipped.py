"""Practice at the size of the shipped model: is one try then as good as the best of eight? About 35 CPU minutes.

The any-to-any model of chapter 06 draws captions. It practises, by GRPO, on captions of the validation split, whose pairs of
noun and ground and whose signs it never saw; it is asked captions of the test split. The reward reads with templates; the
report has eyes of another make: a net for things and ground, and RapidOCR for the sign. Written down before it ran:

- S1: practice raises sampled answers (temperature 1, no guidance).
- S2: it raises greedy answers too.
- S3: a greedy answer after practice is right as often as the best of eight before, within three points.
- S4 (cheating): with the sign alone as reward, read by OCR, signs do not fall, and things and ground do.

Rows: of `n` captions how many pictures the templates find `right`, in how many the net sees the right `things` and ground
and OCR the right `sign` (of `signs` captions that have one), by how they were drawn, with `cpu` seconds a picture.
"""
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np

from mmcourse import checkpoints, rerank
from mmcourse.assistant import Assistant, load, painted
from mmcourse.judges import PictureReader, read_sign
from mmcourse.judges.picture_net import halves
from mmcourse.posttraining import POLICY_OPTIM, Question, Task, post_train
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch11 import curve_of
from mmcourse.training import Run
from mmcourse.vocabulary import Segment
from mmcourse.world.scene import WORLD

WAYS = {"sampled": {"best_of": 1, "temperature": 1.0, "guidance": 1.0},
        "greedy": {"best_of": 1, "temperature": 0.0, "guidance": 1.0},
        "one draft": {"best_of": 1}, "best of eight": {}}              # the last two with the settings that are shipped
TEST_SEED = 1011
BATCH = 48                              # captions that are drawn together


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 40
    longer: int = 200
    prompts: int = 8
    rate: float = 2e-4
    asked: int = 160


def shipped() -> Assistant:
    """A fresh copy of the shipped model."""
    return load("reference")


@cache
def reader() -> PictureReader:
    """The templates."""
    return PictureReader()


def ask(a: Assistant, split: str, rng: np.random.Generator, n: int, signed: bool = False) -> list[Question]:
    """Captions of a split; `signed`: only of scenes with a sign."""
    scenes: list = []
    while len(scenes) < n:
        scene = WORLD.sample(rng, split)
        scenes += [scene] if scene.sign or not signed else []
    return [Question((a.segment(WORLD.caption(scene)),), "image", scene) for scene in scenes]


def right(a: Assistant, questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
    """Whether the templates find the whole scene."""
    return [float(seen == question.truth) for seen, question in zip(reader().read(painted(a.vqvae, answers)), questions)]


def sign_by_ocr(a: Assistant, questions: Sequence[Question], answers: Sequence[Segment]) -> list[float]:
    """Whether OCR reads the right sign, whatever else there is."""
    return [float(read_sign(picture) == question.truth.sign) for picture, question in zip(painted(a.vqvae, answers), questions)]


def measure(a: Assistant, n: int, ways: Sequence[str]) -> dict:
    """Captions of the test, drawn in several ways."""
    questions, out = ask(a, "test", np.random.default_rng(TEST_SEED), n), {}
    signed = [i for i, question in enumerate(questions) if question.truth.sign]
    for way in ways:
        start, answers = time.process_time(), []
        for i in range(0, n, BATCH):
            answers += rerank.answer(a.transformer, a.vocabulary, [list(q.prompt) for q in questions[i:i + BATCH]], "image",
                                     seed=TEST_SEED + i, **WAYS[way])
        seconds = time.process_time() - start
        seen = checkpoints.load("picture_judge").read(painted(a.vqvae, answers))
        hits = right(a, questions, answers)
        out[way] = {"n": n, "right": int(sum(hits)), "hits": "".join(str(int(hit)) for hit in hits),
                    "things": sum(what == halves(q.truth) for what, q in zip(seen, questions)), "signs": len(signed),
                    "sign": int(sum(sign_by_ocr(a, [questions[i] for i in signed], [answers[i] for i in signed]))),
                    "cpu": round(seconds / n, 3)}
    return out


def before(plan: Plan) -> dict:
    """The shipped model as it is."""
    return measure(shipped(), plan.asked, list(WAYS))


def practised(plan: Plan, reward, signed: bool, seed: int, steps: int = 0) -> dict:
    """The shipped model after practice (`plan.steps`, unless said), and how that went."""
    a = shipped()
    task = Task("draw", lambda rng, n: ask(a, "validation", rng, n, signed), partial(reward, a))
    history = finished(post_train(a.transformer, a.vocabulary, [task], "grpo", steps=steps or plan.steps, prompts=plan.prompts,
                                  optim=replace(POLICY_OPTIM, lr=plan.rate), run=Run(seed=seed, progress=False, log_every=4)))
    return {"cpu_minutes": round(history.cpu_minutes, 2),
            "curve": curve_of(history),
            **measure(a, plan.asked, ["sampled", "greedy", "one draft"])}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Before; practice, once or twice; and a reward that can be cheated."""
    return [Job("before", partial(before, plan)),
            Job("practised", partial(practised, plan, right, False, 0)),
            Job("practised longer", partial(practised, plan, right, False, 0, plan.longer)),
            Job("practised, another seed", partial(practised, plan, right, False, 1), optional=True),
            Job("practised, the sign alone", partial(practised, plan, sign_by_ocr, True, 0))]


def head(plan: Plan) -> dict:
    """The plan and the model."""
    return {"plan": asdict(plan),
            "made with": {name: checkpoints.identity(name)[:8] for name in ("transformer", "vqvae", "picture_judge")}}


STUDY = Study("ch11_shipped", Plan(), Plan(steps=1, longer=1, prompts=1, asked=2), jobs, head, minutes=True)
main = STUDY.run
