"""What the study of chapter 11 measures: a model's answers on a side of the practice world, as its judges see and hear them."""
import contextlib
import copy
import hashlib
import io
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from mmcourse.experiments import practice
from mmcourse.experiments.practice import REPORT, REWARD, TASKS, side
from mmcourse.files import locked
from mmcourse.generate import generate
from mmcourse.judges.pitch import cents, pitch_track
from mmcourse.paths import cache_dir
from mmcourse.posttraining import METHODS, POLICY_OPTIM, Question, Task, post_train
from mmcourse.studies import finished
from mmcourse.training import History, Run
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import Segment
from mmcourse.world.speech import SAMPLE_RATE

SAMPLED, GREEDY = 1.0, 0.0              # temperatures
SHOWN = 6                               # questions whose answers are kept along the way, for the chapter to show
DRAFTS = 8
QUESTIONS = {"validation": 3, "test": 7}                 # the seed of each side's questions
# What a question costs: an answer that is drawn 1, one that is learned from 3. A step of each arm costs the same, so the cheaper
# the question, the more of them it has. GRPO draws and learns eight (8 x 4), DPO learns a pair of eight (8 + 6).
PRICE = {"sft": 3, "rejection": 11, "random selection": 11, "dpo": 14, "grpo": 32, "grpo, differing": 32}


@dataclass(frozen=True)
class Size:
    """How much is asked: of the test (`asked`) and along the way (`looks`), and drafts of how many questions (`drafted`)."""
    asked: int = 240
    looks: int = 96
    drafted: int = 24


@cache
def base(seed: int, steps: int) -> Transformer:
    """The model that all arms of a seed begin from, trained once and kept in the cache."""
    made_of = hashlib.sha256(repr((practice.PRACTICE.identity, practice.PRACTISED, practice.ROWS, practice.SIZE)).encode())
    file = cache_dir() / "runs" / f"ch11-base-{seed}-{steps}-{made_of.hexdigest()[:8]}.pt"
    quiet = contextlib.redirect_stdout(io.StringIO()) if file.exists() else contextlib.nullcontext()
    with locked(file.with_suffix(".wait")), quiet:                     # who comes second waits, and finds it done
        model, history = practice.pre_train(seed, steps, Run(seed=seed, resume=file, progress=False))
    finished(history)
    return model


def questions(name: str, split: str, n: int) -> list[Question]:
    """Always the same `n` questions of a task."""
    return side(split).ask(name, np.random.default_rng((QUESTIONS[split], TASKS.index(name))), n)


def answers(model: Transformer, asked: Sequence[Question], temperature: float, seed: int = 0) -> list[Segment]:
    """One answer to each question."""
    return generate(model, side("train").vocabulary, [list(question.prompt) for question in asked], asked[0].want,
                    temperature=temperature, seed=seed)


def marked(model: Transformer, name: str, split: str, n: int, temperature: float) -> dict:
    """Of `n` answers to a task how many the reward judge and the report judge count as right, and which."""
    asked = questions(name, split, n)
    given = answers(model, asked, temperature)
    hits = REPORT[name](asked, given)
    return {"n": n, "reward": int(sum(REWARD[name](asked, given))), "report": int(sum(hits)),
            "hits": "".join(str(int(hit)) for hit in hits)}


def look(model: Transformer, name: str, size: Size, show: bool = False) -> dict:
    """A task on validation, sampled: what both judges say; `show`: and some greedy answers as tokens."""
    row = marked(model, name, "validation", size.looks, SAMPLED)
    shown = [list(answer.ids) for answer in answers(model, questions(name, "validation", SHOWN), GREEDY)] if show else None
    return {key: row[key] for key in ("n", "reward", "report")} | ({"shown": shown} if show else {})


def test(model: Transformer, size: Size) -> dict:
    """Every task on the test side, sampled and greedy, and what no reward asks for."""
    return {name: {"sampled": marked(model, name, "test", size.asked, SAMPLED),
                   "greedy": marked(model, name, "test", size.asked, GREEDY), **spread(model, name, size.drafted)}
            for name in TASKS}


def spread(model: Transformer, name: str, n: int) -> dict:
    """Eight answers to each of `n` test questions: the share that differ; of sounds how far apart their pitches lie (standard
    deviation in cents, the median over questions), and how long they are (seconds, mean and standard deviation)."""
    asked = questions(name, "test", n)
    given = answers(model, [question for question in asked for _ in range(DRAFTS)], SAMPLED, seed=1)
    groups = [given[i:i + DRAFTS] for i in range(0, len(given), DRAFTS)]
    row = {"distinct": round(float(np.mean([len(set(group)) / DRAFTS for group in groups])), 4)}
    if name != "say":
        return row
    heard = practice.sounds(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)                 # a sound without any pitch
        pitch = np.array([np.nanmedian(pitch_track(sound)) for sound in heard]).reshape(n, DRAFTS)
        row["pitch_cents"] = round(float(np.nanmedian(np.nanstd(cents(pitch, 100.0), axis=1))), 1)
    seconds = np.array([len(sound) / SAMPLE_RATE for sound in heard])
    return row | {"seconds": round(float(seconds.mean()), 4), "seconds_sd": round(float(seconds.std()), 4)}


def best_of_drafts(model: Transformer, name: str, n: int) -> dict:
    """Eight drafts of each of `n` test questions: how often the report judge finds the one right that the reward judge likes
    best, and how often any."""
    asked = questions(name, "test", n)
    repeated = [question for question in asked for _ in range(DRAFTS)]
    given = answers(model, repeated, SAMPLED, seed=2)
    reward, report = (np.array(judge[name](repeated, given)).reshape(n, DRAFTS) for judge in (REWARD, REPORT))
    chosen = report[np.arange(n), reward.argmax(1)]
    return {"n": n, "best": int(chosen.sum()), "any": int(report.max(1).sum()), "hits": "".join(str(int(x)) for x in chosen)}


# ---------------------------------------------------------------- a run of an arm

@dataclass(frozen=True)
class Arm:
    """How a task is practised: a method of `METHODS`, the reward, and further settings of the loss."""
    method: str
    reward: object = None               # of the task, unless there is another
    kl: float = 0.0

    def task(self, name: str) -> Task:
        """What is practised: supervised training needs answers, so it has the side that has them."""
        asked = practice.task(name, "train" if self.method == "sft" else None)
        return asked if self.reward is None else replace(asked, reward=self.reward)


def practised(arm: Arm, names: Sequence[str], model: Transformer, seed: int, steps: int, prompts: int, rate: float, looks: int,
              size: Size, show: bool = False) -> tuple[Transformer, dict]:
    """A copy of the model that has practised, and how it went: what the batches were like, looks at validation."""
    model, row, start = copy.deepcopy(model), {"curve": [], "looks": []}, time.process_time()
    spent = 0.0

    def after(model, step):
        nonlocal spent
        if (step + 1) % looks == 0:
            began = time.process_time()
            row["looks"].append({"step": step + 1, **look(model.eval(), names[0], size, show)})
            model.train()
            spent += time.process_time() - began
    row["looks"].append({"step": 0, **look(model, names[0], size, show)})
    history = post_train(model, side("train").vocabulary, [arm.task(name) for name in names], arm.method, steps=steps,
                         prompts=prompts * PRICE["grpo"] // PRICE[arm.method], optim=replace(POLICY_OPTIM, lr=rate),
                         run=Run(seed=seed, progress=False, log_every=5), after_step=after, **({"kl": arm.kl} if arm.kl else {}))
    row["curve"] = curve_of(finished(history))
    return model, row | {"cpu_minutes": round((time.process_time() - start - spent) / 60, 3)}


def curve_of(history: History) -> list[dict]:
    """What a table keeps of a practice: how its batches went."""
    keys = ("step", "reward", "entropy", "kl", "contrast", "distinct")
    return [{key: round(entry[key], 4) for key in keys} for entry in history.rows]


def coin(asked: Sequence[Question], given: Sequence[Segment]) -> list[float]:
    """A reward that knows nothing: heads or tails, by the answer and where it stands."""
    return [float(hash((i, answer.ids)) % 2) for i, answer in enumerate(given)]


def brightness(asked: Sequence[Question], given: Sequence[Segment]) -> list[float]:
    """How bright a picture is, 0 to 1, whatever it shows."""
    return practice.pictures(given).mean((1, 2, 3)).tolist()


def right_and_bright(asked: Sequence[Question], given: Sequence[Segment]) -> list[float]:
    """The cure: brightness counts only if the picture is right."""
    return [right * bright for right, bright in zip(REWARD["draw"](asked, given), brightness(asked, given))]


def only_chat_is_new(result: dict, head: dict) -> bool:
    """Whether a result was made with another `chat` than is shipped, and with nothing else that differs."""
    made, now = result.get("made with", {}), head["made with"]
    return made != now and {**made, "chat": now["chat"]} == now


assert set(PRICE) == set(METHODS)
