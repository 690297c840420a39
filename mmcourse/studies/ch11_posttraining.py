"""Does one post-training stack serve text, picture and sound? About 75 CPU minutes.

A small model (a third of a million weights beside its embeddings) is pre-trained on the practice world until it masters
none of its three tasks (`mmcourse.experiments.practice`), and then practises one of them. All arms of a seed begin from the
same weights and cost the same operations. Written down before the study ran, after pilots of one seed:

- H1 (one stack): GRPO raises the share of right sampled answers by the report judge, in each task.
- H2 (more than sharpening): it raises greedy answers too. A temperature of 0 costs nothing and needs no training: it is the
  control.
- H3 (marks or answers): GRPO gains more than as much further supervised training. Expected for drawing, where marks can be
  had for pairs that have no picture; not for the other two.
- H4 (choosing helps, drawing): rejection sampling gains more than its twin, which learns a random answer of the same groups.
- H5 (random rewards, drawing): a coin as reward raises nothing.
- H6 (nothing is forgotten): the two tasks that are not practised lose less than five points each, sampled.
- H7 (what nobody rewards): the answers to one question become more alike, and the voices too (pitch).
- H8 (one try for eight): after GRPO one greedy answer is right as often as the best of eight before, within five points.
- H9 (cheating): with brightness as reward the reward rises and the report judge's share falls below half of what it was; if
  only right pictures are paid for being bright, it does not fall.

What decides: means over the seeds with a t interval, on test questions asked once. "Holds" needs the interval on the right
side, "fails" on the other, else it is undecided.

Rows: `arm`, `task`, `seed`; `curve` (each fifth batch: mean reward, entropy in nats, distance from the start in nats a
token, share of groups with contrast, share of answers that differ), `looks` (validation, sampled), `test` (each task,
sampled and greedy: of `n` answers how many the reward judge and the report judge find right, `hits` says which; `distinct`,
`pitch_cents`, `seconds`: `_ch11.spread`)."""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

from mmcourse import checkpoints
from mmcourse.experiments.practice import ROWS, SIZE, TASKS
from mmcourse.studies import Job, Study
from mmcourse.studies._ch11 import (
    GREEDY,
    SAMPLED,
    Arm,
    Size,
    base,
    best_of_drafts,
    brightness,
    coin,
    marked,
    practised,
    right_and_bright,
    test,
)

ARMS = {"sft": Arm("sft"), "rejection": Arm("rejection"), "random selection": Arm("random selection"), "dpo": Arm("dpo"),
        "grpo": Arm("grpo"), "grpo, differing": Arm("grpo, differing"), "random reward": Arm("grpo", coin)}
MAIN = ("sft", "grpo")                  # what hearing and saying have: the other arms are run for drawing
CHEATS = {"brightness": Arm("grpo", brightness), "brightness, held back": Arm("grpo", brightness, kl=0.1),
          "right and bright": Arm("grpo", right_and_bright)}
TOGETHER = "all three"
# tried for each method, on the validation of one task and of a seed of its own, with half of the steps
RATES = {"sft": (3e-4, 1e-3, 3e-3), "rejection": (1e-4, 3e-4), "dpo": (1e-4, 3e-4), "grpo": (1e-4, 3e-4, 1e-3)}
RATE_SEED = 100
CHOSEN = {"sft": 1e-3, "rejection": 3e-4, "dpo": 3e-4, "grpo": 3e-4}                     # what was best there
OF = {"random selection": "rejection", "grpo, differing": "grpo", "random reward": "grpo", **dict.fromkeys(CHEATS, "grpo")}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    base_steps: int = 600
    steps: dict = field(default_factory=lambda: {"draw": 60, "hear": 100, "say": 50})
    prompts: dict = field(default_factory=lambda: {"draw": 8, "hear": 16, "say": 8})         # of GRPO; of others by their price
    looks: int = 10
    size: Size = Size()


def base_row(plan: Plan, seed: int) -> dict:
    """The model before any practice, and the best of its drafts."""
    model = base(seed, plan.base_steps)
    return {"arm": "base", "task": "", "seed": seed, "test": test(model, plan.size),
            "drafts": {name: best_of_drafts(model, name, plan.size.asked // 2) for name in TASKS}}


def row(plan: Plan, arm: str, task: str, seed: int) -> dict:
    """One arm."""
    made, first = {**ARMS, **CHEATS}[arm], TASKS if task == TOGETHER else (task,)
    steps = sum(plan.steps.values()) if task == TOGETHER else plan.steps[task]
    model, told = practised(made, first, base(seed, plan.base_steps), seed, steps, plan.prompts[first[0]],
                            CHOSEN[OF.get(arm, arm)], plan.looks, plan.size, show=seed == 0 and (arm == "grpo" or arm in CHEATS))
    return {"arm": arm, "task": task, "seed": seed, "steps": steps, "rate": CHOSEN[OF.get(arm, arm)], **told,
            "test": test(model, plan.size)}


def rate_row(plan: Plan, arm: str, rate: float) -> dict:
    """A method at a rate: the drawing of validation in the end, greedy and sampled."""
    model, told = practised(ARMS[arm], ("draw",), base(RATE_SEED, plan.base_steps), RATE_SEED,
                            -(-plan.steps["draw"] // 2), plan.prompts["draw"], rate, plan.steps["draw"] + 1, plan.size)
    return {"arm": arm, "rate": rate, "cpu_minutes": told["cpu_minutes"],
            **{way: {key: value for key, value in marked(model, "draw", "validation", plan.size.asked, temperature).items()
                     if key != "hits"} for way, temperature in (("sampled", SAMPLED), ("greedy", GREEDY))}}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """The rates, the base of each seed, each arm for each task, the cheats, and all tasks in one run."""
    out = [Job(f"rate {rate:g}: {arm}", partial(rate_row, plan, arm, rate), section=("rates",), key={"arm": arm, "rate": rate})
           for arm in CHOSEN for rate in RATES[arm]]
    out += [Job("base", partial(base_row, plan, seed), key={"arm": "base", "task": "", "seed": seed}, seed=seed)
            for seed in seeds]
    wanted = [(arm, task) for task in TASKS for arm in ARMS] + [(arm, "draw") for arm in CHEATS] + [("grpo", TOGETHER)]
    return out + [Job(f"{arm}: {task}", partial(row, plan, arm, task, seed), key={"arm": arm, "task": task, "seed": seed},
                      seed=seed, optional=arm == "grpo, differing" or task in ("hear", "say") and arm not in MAIN
                      or seed > 0 and (arm, task) in wanted[-4:])
                  for arm, task in wanted for seed in seeds]


def head(plan: Plan) -> dict:
    """The plan, the small model and what it rests on."""
    return {"plan": {**asdict(plan), "model": SIZE, "rows": ROWS},
            "made with": {name: checkpoints.identity(name)[:8] for name in
                          ("bpe", "vqvae", "codec", "picture_judge", "word_judge", "second_listener")}}


TOY = Plan(base_steps=1, steps=dict.fromkeys(TASKS, 1), prompts=dict.fromkeys(TASKS, 1), looks=1, size=Size(2, 2, 1))
STUDY = Study("ch11_posttraining", Plan(), TOY, jobs, head, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
