"""Chapter 11's figures and widget: marked drafts, two judges along a run, what each method gains, and answers along practice.

Rows come as what `data/results/ch11_posttraining.json` holds: the chapter loads it (`mmcourse.files.results`) and hands in
its `rows`. Nothing here trains.
"""
from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colors, patches
from matplotlib import pyplot as plt

from mmcourse import checkpoints, show
from mmcourse.experiments import practice
from mmcourse.experiments.conversations import told
from mmcourse.experiments.practice import REPORT, TASKS
from mmcourse.judges.hearing import stack
from mmcourse.judges.metrics import decide, newcombe, paired_bootstrap, t_interval, wilson
from mmcourse.posttraining import Question
from mmcourse.show.ch10 import mean_of_seeds
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import Turn
from mmcourse.world.speech import SAMPLE_RATE

REWARD_EAR, REPORT_EAR = "word_judge", "second_listener"        # who hears what is said: for the reward, for the report
ARMS = {"sft": "more supervised", "rejection": "best of eight learned", "random selection": "a random one learned",
        "dpo": "DPO", "grpo": "GRPO", "grpo, differing": "GRPO, differing tokens", "random reward": "GRPO, coin as reward"}
CHEATS = {"brightness": "paid for brightness", "brightness, held back": "paid for brightness,\nheld near the start",
          "right and bright": "paid for brightness\nif it is right"}
TOGETHER = "all three"
SHOWN = 6                                               # validation questions whose answers the study keeps
SEED = 3                                                # of the validation questions, as the study asks them
LETTERS = 18                                            # of an answer in a table: what goes on is cut


# ---------------------------------------------------------------- drafts and their marks

def marked(questions: Sequence[Question], answers: Sequence[Segment], rewards: Sequence[float], group: int,
           caption: str = "") -> None:
    """Groups of sampled answers to a few questions of one task, and each answer's reward: pictures as rows, texts and what
    the reward listener hears in sounds as a table. Beside each group: how many are right (of 0 and 1; else the mean), and
    whether the rewards differ at all (contrast).

    Args: questions, answers, rewards (a number each): one for each answer, those of a question next to each other, as
    `Rollouts` has them. group: answers to a question. ValueError for what does not fit together.
    """
    rewards = [float(reward) for reward in rewards]
    if not answers or not len(questions) == len(answers) == len(rewards) or group < 1 or len(answers) % group:
        raise ValueError(f"{len(questions)} questions, {len(answers)} answers, {len(rewards)} rewards in groups of {group}: "
                         "give one question and one reward for each answer, and whole groups")
    if len(wants := {answer.modality for answer in answers}) > 1:
        raise ValueError(f"answers of one task are of one modality, got {' and '.join(sorted(wants))}")
    binary, want = set(rewards) <= {0.0, 1.0}, answers[0].modality
    starts = range(0, len(answers), group)
    sums = [summary(rewards[i:i + group], binary) for i in starts]
    if want == "image":
        labels = [f"{wrapped(said(questions[i]))}\n\n{right}\ncontrast: {contrast}"
                  for i, (right, contrast) in zip(starts, sums, strict=True)]
        _drafts(practice.pictures(answers), rewards, binary, labels, group, caption)
        return
    words = practice.texts(answers) if want == "text" else heard(answers, REWARD_EAR)
    cells = [f"{short(word)} {tick(reward, binary)}" for word, reward in zip(words, rewards, strict=True)]
    show.table([{"asked": said(questions[i]), **{str(j + 1): cells[i + j] for j in range(group)}, "right" if binary else "reward":
                 right.removesuffix(" right"), "contrast": contrast} for i, (right, contrast) in zip(starts, sums, strict=True)],
               caption)


def summary(rewards: Sequence[float], binary: bool) -> tuple[str, str]:
    """How good a group is, and whether it has contrast: ("3 of 8 right", "yes")."""
    right = f"{int(sum(rewards))} of {len(rewards)} right" if binary else f"mean {np.mean(rewards):.2f}"
    return right, "yes" if max(rewards) > min(rewards) else "no"


def said(question: Question) -> str:
    """A question in words: the caption that is to be drawn, or else the word that is to be written or spoken."""
    first = question.prompt[0]
    return practice.texts([first])[0] if first.modality == "text" else str(question.truth)


def heard(answers: Sequence[Segment], listener: str) -> list[str]:
    """What a listener, by the name of its checkpoint, hears in each of the sounds."""
    return checkpoints.load(listener).hear(stack(practice.sounds(answers)))


def short(text: str) -> str:
    """A text for a cell of a table: cut after `LETTERS`; a text of no letters is said to be empty."""
    return "(empty)" if not text.strip() else text if len(text) <= LETTERS else f"{text[:LETTERS - 1]}…"


def wrapped(caption: str) -> str:
    """A caption in lines of at most 25 letters; what stands after a comma begins one."""
    return "\n".join(textwrap.fill(part, 25) for part in caption.replace(", ", ",\n").split("\n"))


def tick(reward: float, binary: bool = True) -> str:
    """✓ or ✗ for 1 or 0, any other reward as a number."""
    return ("✗", "✓")[int(reward)] if binary else f"{reward:.2f}"


def _framed(axis, picture, reward: float, binary: bool) -> None:
    """A picture in a solid frame if it is right, in a dotted one if it is wrong, in a grey one if it has a mere number; the
    mark stands below."""
    axis.imshow(show.pixels(picture), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    line, colour = {1.0: ("-", show.COLOURS[2]), 0.0: (":", show.COLOURS[1])}[reward] if binary else ("-", "0.5")
    for side in axis.spines.values():
        side.set(visible=True, linewidth=2.4, color=colour, linestyle=line)
    axis.set_xlabel(tick(reward, binary), fontsize=9, labelpad=2)


def _drafts(pictures, rewards: Sequence[float], binary: bool, labels: Sequence[str], group: int, caption: str) -> None:
    """A row of framed pictures for each group, its label at the left."""
    wide = min(0.95, 7.6 / group)
    fig, axes = plt.subplots(len(labels), group, figsize=(1.75 + wide * group, max(1.05, wide + 0.22) * len(labels)),
                             squeeze=False, layout="constrained")
    for axis, picture, reward in zip(axes.flat, pictures, rewards, strict=True):
        _framed(axis, picture, reward, binary)
    for line, label in zip(axes, labels, strict=True):
        line[0].text(-0.12, 0.5, label, ha="right", va="center", fontsize=9, linespacing=1.15, transform=line[0].transAxes)
    show.figure(fig, caption, colours=128)


# ---------------------------------------------------------------- two judges along a run

JUDGES = {"reward": ("reward judge", "-", show.COLOURS[1]), "report": ("report judge", "--", show.COLOURS[0])}


def judges_along(looks: Sequence[Mapping] | Mapping[str, Sequence[Mapping]], caption: str = "") -> None:
    """What the reward judge and the report judge count as right along a run, with the 95 % interval of each look (Wilson); the
    thin lines are where the run began.

    `looks`: `{"step", "n", "reward", "report"}` each, the judges' counts of `n`; or {title: looks} for several small panels.
    """
    panels = looks if isinstance(looks, Mapping) else {"": looks}
    if not panels or not all(panels.values()):
        raise ValueError("nothing to draw: a run has one look at least")
    fig, axes = plt.subplots(1, len(panels), figsize=(min(9.4, 2.8 * len(panels) + 2.6), 2.9), sharey=True, squeeze=False,
                             layout="constrained")
    for axis, (title, run) in zip(axes[0], panels.items(), strict=True):
        steps = [look["step"] for look in run]
        for judge, (name, line, colour) in JUDGES.items():
            shares = [100 * look[judge] / look["n"] for look in run]
            low, high = zip(*(wilson(look[judge], look["n"]) for look in run))
            axis.fill_between(steps, 100 * np.array(low), 100 * np.array(high), color=colour, alpha=0.15, linewidth=0)
            axis.plot(steps, shares, line, color=colour, marker="o" if judge == "reward" else "s", markersize=4, linewidth=2,
                      label=name)
            axis.axhline(shares[0], color=colour, linewidth=0.8, linestyle=line)
        axis.set(xlabel="step", ylim=(-3, 104))
        axis.set_title(title, fontsize=10)
    axes[0][0].set_ylabel("right, %")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=9, handlelength=3)
    show.figure(fig, caption, colours=64)


# ---------------------------------------------------------------- what the arms gain

def changes(rows: Sequence[Mapping], arm: str, task: str, on: str | None = None, how: str = "sampled") -> list[float]:
    """By how many points practice changed the share that the report judge finds right, for each seed: the arm less the base
    of the same seed, on the test side.

    Args: task: what was practised. on: what was measured, else the same. how: `sampled` or `greedy`. ValueError if a row is
    missing.
    """
    def share(row: Mapping) -> float:
        counts = row["test"][on or task][how]
        return 100 * counts["report"] / counts["n"]
    return [share(row) - share(before) for before, row in pairs(rows, arm, task)]


def pairs(rows: Sequence[Mapping], arm: str, task: str) -> list[tuple[Mapping, Mapping]]:
    """(base, arm) of each seed. ValueError if there is no such arm, or no base of one of its seeds."""
    bases = {row["seed"]: row for row in rows if row["arm"] == "base"}
    found = sorted((row for row in rows if (row["arm"], row["task"]) == (arm, task)), key=lambda row: row["seed"])
    if not found:
        raise ValueError(f"the study has no row of arm {arm!r}, task {task!r} (yet)")
    if missing := [row["seed"] for row in found if row["seed"] not in bases]:
        raise ValueError(f"nothing to compare {arm!r} with: the study has no row of arm 'base' for seed {missing[0]}")
    return [(bases[row["seed"]], row) for row in found]


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the seeds and its 95 % interval (t); of one seed alone the interval is the value itself."""
    mean, half = t_interval(values) if len(values) > 1 else (values[0], 0.0)
    return mean, mean - half, mean + half


def arms(rows: Sequence[Mapping], task: str, caption: str = "") -> None:
    """What each way to practise a task changes, in points, by the report judge: sampled answers at the left, greedy ones at
    the right. Large dots are means of the seeds, small ones the seeds, the bars 95 % intervals (t)."""
    order = [arm for arm in ARMS if any((row["arm"], row["task"]) == (arm, task) for row in rows)]
    if not order:
        raise ValueError(f"the study has no arm that practised {task!r} (yet)")
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 0.36 * len(order) + 1.15), sharey=True, sharex=True, layout="constrained")
    for axis, how in zip(axes, ("sampled", "greedy")):
        for k, arm in enumerate(order):
            values, colour = changes(rows, arm, task, how=how), show.COLOURS[list(ARMS).index(arm) % len(show.COLOURS)]
            mean, low, high = middle(values)
            axis.plot([low, high], [k, k], color=colour, linewidth=2.4, solid_capstyle="butt")
            axis.plot(values, [k + 0.22] * len(values), "o", color="0.45", markersize=3)
            axis.plot(mean, k, "o", color=colour, markersize=8)
            axis.annotate(f"{mean:+.1f}", (1.01, k), xycoords=("axes fraction", "data"), ha="left", va="center", fontsize=8.5)
        axis.axvline(0, color="black", linewidth=1.1)
        before = [base["test"][task][how] for base, _ in pairs(rows, order[0], task)]
        axis.set_title(f"{how}: {100 * np.mean([row['report'] / row['n'] for row in before]):.0f} % right before practice",
                       fontsize=10)
        axis.set_xlabel("change, points")
        axis.grid(axis="y", visible=False)
    axes[0].set(yticks=range(len(order)), yticklabels=[ARMS[arm] for arm in order], ylim=(len(order) - 0.5, -0.5))
    show.figure(fig, caption, colours=64)


FALL_AND_RISE = colors.LinearSegmentedColormap.from_list("fall and rise", (show.COLOURS[1], "#FFFFFF", show.COLOURS[0]))


def carried(rows: Sequence[Mapping], caption: str = "") -> None:
    """What practising one task by GRPO does to the others: lines are what was practised, columns what was measured. In each
    cell the mean change in points of sampled answers by the report judge, below it the 95 % interval (t)."""
    practised = [task for task in (*TASKS, TOGETHER) if any((row["arm"], row["task"]) == ("grpo", task) for row in rows)]
    if not practised:
        raise ValueError("the study has no row of arm 'grpo' (yet)")
    cells = np.array([[middle(changes(rows, "grpo", task, on)) for on in TASKS] for task in practised])
    largest = max(1.0, np.abs(cells[..., 0]).max())                      # (practised, measured, 3): mean, low, high
    fig, axis = plt.subplots(figsize=(5.6, 0.62 * len(practised) + 0.95), layout="constrained")
    axis.imshow(cells[..., 0], vmin=-largest, vmax=largest, cmap=FALL_AND_RISE, aspect="auto")
    for (i, j), mean in np.ndenumerate(cells[..., 0]):
        ink = "white" if abs(mean) > 0.85 * largest else "black"
        axis.text(j, i - 0.13, f"{mean:+.1f}", ha="center", va="center", color=ink, fontsize=11)
        if len(pairs(rows, "grpo", practised[i])) > 1:                   # one pupil alone has no interval
            axis.text(j, i + 0.25, f"{cells[i, j, 1]:+.0f} to {cells[i, j, 2]:+.0f}", ha="center", va="center", color=ink,
                      fontsize=8)
        if practised[i] in (TASKS[j], TOGETHER):
            axis.add_patch(patches.Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, facecolor="none", edgecolor="black",
                                             linewidth=1.4))
    axis.set(xticks=range(len(TASKS)), xticklabels=TASKS, yticks=range(len(practised)), yticklabels=practised,
             xlabel="measured: change, points", ylabel="practised")
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    show.figure(fig, caption, colours=128)


# ---------------------------------------------------------------- rewards that can be cheated, and what no reward asks for

def cheats(rows: Sequence[Mapping], caption: str = "") -> None:
    """A panel for each reward with brightness in it: the share that the report judge finds right (left scale) and the mean
    reward of the batches (right scale), along the steps. Thin lines are the seeds, the bold one is their mean."""
    found = {arm: [row for row in rows if row["arm"] == arm] for arm in CHEATS}
    found = {arm: runs for arm, runs in found.items() if runs}
    if not found:
        raise ValueError(f"the study has no row of an arm of {', '.join(CHEATS)} (yet)")
    fig, axes = plt.subplots(1, len(found), figsize=(2.75 * len(found) + 1.1, 3.3), sharey=True, squeeze=False,
                             layout="constrained")
    for axis, (arm, runs) in zip(axes[0], found.items(), strict=True):
        right = axis.twinx()
        _seeds(axis, {row["seed"]: {look["step"]: 100 * look["report"] / look["n"] for look in row["looks"]} for row in runs},
               "-", show.COLOURS[0], "right, by the report judge")
        _seeds(right, {row["seed"]: {entry["step"]: entry["reward"] for entry in row["curve"]} for row in runs}, "--",
               show.COLOURS[1], "mean reward")
        axis.set(xlabel="step", ylim=(-3, 103))
        axis.set_title(CHEATS[arm], fontsize=10)
        right.set_ylim(-0.03, 1.03)
        right.spines["right"].set_visible(True)
        right.grid(False)
        if axis is axes[0][-1]:
            right.set_ylabel("mean reward", color=show.COLOURS[1])
        else:
            right.set_yticklabels([])
    axes[0][0].set_ylabel("right, %", color=show.COLOURS[0])
    handles = [drawn.get_legend_handles_labels() for drawn in (axes[0][-1], right)]
    fig.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="outside lower center", ncols=2, fontsize=9,
               handlelength=3)
    show.figure(fig, caption, colours=64)


def _seeds(axis, seeds: Mapping[int, Mapping[int, float]], line: str, colour: str, label: str) -> None:
    """Each seed thin, their mean bold."""
    for points in seeds.values():
        axis.plot(sorted(points), [points[step] for step in sorted(points)], color=colour, linewidth=0.8, alpha=0.5)
    steps, mean = mean_of_seeds(seeds)
    axis.plot(steps, mean, line, color=colour, linewidth=2.4, label=label)


UNREWARDED = {"distinct": ("answers to a question that differ, %", 100, 0),
              "pitch_cents": ("how far their pitches lie apart, cents", 1, 0), "seconds": ("length, s", 1, 2),
              "seconds_sd": ("spread of the length, s", 1, 3)}


def unrewarded(rows: Sequence[Mapping], caption: str = "") -> None:
    """A table of what nobody rewards, before and after practising a task by GRPO: means of the seeds, and the change with its
    95 % interval (t). Measured on drafts to test questions (the study's `spread`)."""
    lines = []
    for task in TASKS:
        both = [(base["test"][task], row["test"][task]) for base, row in pairs(rows, "grpo", task)]
        for key, (what, unit, digits) in UNREWARDED.items():
            if key not in both[0][0]:
                continue
            before, after = (unit * np.array([counts[key] for counts in side], float) for side in zip(*both))
            mean, low, high = middle(list(after - before))
            lines.append({"practised": task, "measured": what, "before": f"{before.mean():.{digits}f}",
                          "after": f"{after.mean():.{digits}f}", "change": f"{mean:+.{digits}f}",
                          "95 %": f"{low:+.{digits}f} to {high:+.{digits}f}"})
    show.table(lines, caption)


# ---------------------------------------------------------------- answers along practice

def shown_questions(task: str) -> list[Question]:
    """The validation questions of a task whose answers the study keeps at each look (`mmcourse.studies._ch11.questions`)."""
    return practice.side("validation").ask(task, np.random.default_rng((SEED, TASKS.index(task))), SHOWN)


def run_name(row: Mapping) -> str:
    """An arm and its task in plain words."""
    return f"{row['task']}: {({**ARMS, **CHEATS}[row['arm']]).replace(chr(10), ' ')}"


def scrubbed(row: Mapping, step: int, caption: str = "") -> None:
    """The greedy answers of a run to its validation questions at a step, with the report judge's marks: pictures, or a table
    with players. ValueError if the run kept no answers at this step."""
    kept = {look["step"]: look["shown"] for look in row["looks"] if look.get("shown")}
    if step not in kept:
        raise ValueError(f"no answers were kept at step {step} of {run_name(row)!r}: there are steps "
                         f"{', '.join(map(str, kept)) or 'none'}")
    task = TASKS[0] if row["task"] == TOGETHER else row["task"]
    asked = shown_questions(task)
    answers = [Segment(asked[0].want, tuple(ids)) for ids in kept[step]]
    marks = REPORT[task](asked, answers)
    text = (f"{caption} " if caption else "") + (
        f"{run_name(row)}, step {step}: the report judge finds {int(sum(marks))} of {len(marks)} greedy answers right.")
    if asked[0].want == "image":
        fig, axes = plt.subplots(1, len(asked), figsize=(9.0, 2.1), layout="constrained")
        for axis, picture, question, reward in zip(axes, practice.pictures(answers), asked, marks, strict=True):
            _framed(axis, picture, reward, True)
            axis.set_title(wrapped(said(question)), fontsize=8, pad=4)
        show.figure(fig, text, colours=128)
    elif asked[0].want == "text":
        words = practice.texts(answers)
        _playable([{"a noisy sound": sound, "its word": str(question.truth), "written": f"{short(word)} {tick(reward)}"}
                   for sound, question, word, reward in zip(practice.sounds([question.prompt[0] for question in asked]), asked,
                                                            words, marks, strict=True)], text)
    else:
        _playable([{"a picture of": str(question.truth), "said": sound, "heard by the report judge": f"{word} {tick(reward)}"}
                   for question, sound, word, reward in zip(asked, practice.sounds(answers), heard(answers, REPORT_EAR), marks,
                                                            strict=True)], text)


def _playable(lines: Sequence[Mapping], caption: str) -> None:
    """A table whose cells are words or sounds (samples,): these get players; outside a notebook their seconds."""
    if not show._in_notebook():
        show.table([{name: f"{len(cell) / SAMPLE_RATE:.2f} s" if isinstance(cell, np.ndarray) else cell for name, cell in
                     line.items()} for line in lines], caption)
        return
    from IPython.display import HTML, display
    head = "".join(f"<th>{html.escape(name)}</th>" for name in lines[0])
    body = "".join("<tr>" + "".join(f"<td>{show.player(cell, SAMPLE_RATE) if isinstance(cell, np.ndarray) else html.escape(cell)}"
                                    "</td>" for cell in line.values()) + "</tr>" for line in lines)
    display(HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"))
    show.caption(caption)


def scrub(rows: Sequence[Mapping]) -> None:
    """`scrubbed` with controls: a choice among the runs that kept their answers, and a slider through their steps. A page
    without a kernel keeps the end of the first run. ValueError if no run kept any."""
    import ipywidgets as widgets

    runs = {run_name(row): row for row in rows if any(look.get("shown") for look in row.get("looks", ()))}
    if not runs:
        raise ValueError("no run of the study kept its answers along the way (yet)")

    def steps(name: str) -> list[int]:
        return [look["step"] for look in runs[name]["looks"] if look.get("shown")]
    first = next(iter(runs))
    run = widgets.Dropdown(options=list(runs), value=first, description="practised")
    step = widgets.SelectionSlider(options=steps(first), value=steps(first)[-1], description="step", continuous_update=False)

    def begin(change: dict) -> None:                    # another run may have other steps: to its end
        step.options = steps(change["new"])
        step.value = step.options[-1]
    run.observe(begin, "value")
    show.controlled(lambda run, step: scrubbed(runs[run], step), {"run": run, "step": step},
                    "[A choice of runs and a slider ({names}); without a kernel, what they show at first.]",
                    "Choose what was practised and move through its steps: {names}. Without a kernel the answers stand still.")


# ---------------------------------------------------------------- the verdict

BOUND = 5.0             # points: what the study calls no loss, and as good as


def shares(rows: Sequence[Mapping], arm: str, task: str, how: str) -> list[float]:
    """The share of test answers that the report judge finds right, for each seed of an arm (`base`: of no practice)."""
    own = [row for row in rows if row["arm"] == arm and row["task"] in ("", task)]
    counts = [row["test"][task][how] for row in sorted(own, key=lambda row: row["seed"])]
    return [count["report"] / count["n"] for count in counts]


def verdicts(rows: Sequence[Mapping]) -> dict[str, str]:
    """What was expected (the study's docstring has it in full) against what came: by t intervals over the seeds; where one pupil
    alone was asked, by Wilson's interval."""
    out = {}

    def add(name: str, values: Sequence[float], unit: str = "points", **bounds: float) -> None:
        mean, low, high = middle(values)
        out[name] = f"{decide(low, high, **bounds):9} {mean:+6.1f} {unit} ({low:+.1f} to {high:+.1f})"
    for how, title in (("sampled", "H1, GRPO raises sampled answers"), ("greedy", "H2, and greedy ones")):
        for task in TASKS:
            add(f"{title}: {task}", changes(rows, "grpo", task, how=how), above=0.0)
    for task in TASKS:
        more = zip(changes(rows, "grpo", task), changes(rows, "sft", task), strict=True)
        add(f"H3, more than supervised for the same: {task}", [a - b for a, b in more], above=0.0)
    chosen = zip(changes(rows, "rejection", "draw"), changes(rows, "random selection", "draw"), strict=True)
    add("H4, the best one teaches more than a random one: draw", [a - b for a, b in chosen], above=0.0)
    add("H5, a coin raises nothing: draw", changes(rows, "random reward", "draw"), below=BOUND)
    for task in TASKS:
        for other in TASKS:
            if other != task:
                add(f"H6, {task} practised, {other} is not forgotten", changes(rows, "grpo", task, other), above=-BOUND)
    for task in ("draw", "hear"):
        add(f"H7, answers become more alike: {task}", [100 * (row["test"][task]["distinct"] - base["test"][task]["distinct"])
                                                        for base, row in pairs(rows, "grpo", task)], below=0.0)
    add("H7, voices come nearer to each other: say", [row["test"]["say"]["pitch_cents"] - base["test"]["say"]["pitch_cents"]
                                                      for base, row in pairs(rows, "grpo", "say")], "cents", below=0.0)
    for task in TASKS:
        best = [base["drafts"][task]["best"] / base["drafts"][task]["n"] for base, _ in pairs(rows, "grpo", task)]
        add(f"H8, one greedy try for the best of eight: {task}",
            [100 * (a - b) for a, b in zip(shares(rows, "grpo", task, "greedy"), best, strict=True)], above=-BOUND)
    for arm, title in (("brightness", "H9, paid for brightness, half of the drawing is lost"),
                       ("right and bright", "H9, paid for right and bright, nothing is")):
        base, row = pairs(rows, arm, "draw")[0]
        before, after = (side["test"]["draw"]["sampled"] for side in (base, row))
        was = before["report"] / before["n"]
        low, high = wilson(after["report"], after["n"])
        bounds = {"below": was / 2} if arm == "brightness" else {"above": was - BOUND / 100}
        out[title] = f"{decide(low, high, **bounds):9} {was:.0%} -> {after['report'] / after['n']:.0%} ({low:.0%} to {high:.0%})"
    return out


def shipped_verdicts(rows: Mapping[str, Mapping]) -> dict[str, str]:
    """What was expected of the shipped model (`ch11_shipped`) against what came: by bootstrap over the captions, which are the
    same for all; where only counts are kept, by Newcombe's interval."""
    def against(one: tuple[str, str], other: tuple[str, str], **bounds: float) -> str:
        a, b = ([100.0 * int(hit) for hit in rows[name][way]["hits"]] for name, way in (one, other))
        low, high = paired_bootstrap(a, b, np.random.default_rng(0))
        return f"{decide(low, high, **bounds):9} {np.mean(a) - np.mean(b):+6.1f} points ({low:+.1f} to {high:+.1f})"

    def counted(key: str, of: str, **bounds: float) -> str:
        a, b = (rows[name]["sampled"] for name in ("practised, the sign alone", "before"))
        low, high = (100 * x for x in newcombe(a[key], a[of], b[key], b[of]))
        change = 100 * (a[key] / a[of] - b[key] / b[of])
        return f"{decide(low, high, **bounds):9} {change:+6.1f} points ({low:+.1f} to {high:+.1f})"
    best = ("before", "best of eight")
    out = {"S1, practice raises sampled answers": against(("practised", "sampled"), ("before", "sampled"), above=0.0),
           "S2, and greedy ones": against(("practised", "greedy"), ("before", "greedy"), above=0.0),
           "S3, one greedy try for the best of eight": against(("practised", "greedy"), best, above=-3.0)}
    if "practised longer" in rows:
        out["S3, after five times as much practice"] = against(("practised longer", "greedy"), best, above=-3.0)
    return out | {"S4, paid for signs alone, signs do not fall": counted("sign", "signs", above=-5.0),
                  "S4, but things and ground do": counted("things", "n", below=0.0)}


# ---------------------------------------------------------------- the model that converses

def script(turns: Sequence[Turn]) -> None:
    """Print a conversation as it is written: who, how, what."""
    for turn in turns:
        for part in (*turn.given, turn.answer):
            what = told(part) if part.kind == "image" else part.value if part.kind == "outside" else f"“{part.value}”"
            print(f"{'model' if part is turn.answer else 'user':7}{part.kind.replace('outside', 'foreign'):9}{what}")
    print()


TALKED = {                              # rows of `ch11_chat`: what a reader wants to know, in words
    "draw": "draws what is asked for", "change": "changes a picture, and keeps the rest", "ask": "answers a question",
    "ask: typed": "– typed", "ask: spoken": "– spoken", "ask: typed, answered aloud": "– typed, answered by voice",
    "ask: spoken, answered aloud": "– spoken, answered by voice", "describe": "describes a picture",
    "name": "names the only thing", "write": "writes down what is said", "say": "says what it is told to",
    "outside": "what is not of its world, refused",
}
WHY = {"photograph": "a photograph", "noise picture": "a picture of noise", "plain picture": "an empty picture",
       "silence": "silence", "noise": "a noise", "unknown word": "an unknown word", "no picture": "no picture yet",
       "unanswerable": "what nobody can know"}


def share(row: Mapping | None, key: str = "right") -> str:
    """The share of right ones (or of another `key`), in percent; a dash if nothing was asked."""
    return "–" if not row else f"{row[key] / row['n']:.1%}"


def talked(found: Mapping) -> None:
    """What the model makes of conversations (`ch11_chat`): right answers by kind of turn, the model before it beside."""
    rows, before = found["chat"]["turns"]["rows"], found["before"]["turns"]["rows"]
    names = {**TALKED, **{f"outside: {why}": f"– {name}" for why, name in WHY.items()}}
    lines = []
    for key, name in names.items():
        if row := rows.get(key):
            low, high = wilson(row["right"], row["n"])
            lines.append({"": name, "right": share(row), "95 %": f"{low:.1%} to {high:.1%}", "the right kind": share(row, "kind"),
                          "before": share(before.get(key)), "n": str(row["n"])})
    show.table(lines, "Turns of test conversations, each about the true picture of now: one try, and the model chooses whether "
               "it answers in text, picture or sound. Before: the pre-trained model, asked the same.")


def error(row: Mapping) -> float:
    """Words wrong, in percent of those that were said."""
    return 100 * row["wrong"] / row["words"]


def ears(found: Mapping) -> None:
    """Phrases written down, and answers spoken (`ch11_chat`): words wrong, of the model, of the one before it, and of a listener
    that hears the same clips with and without the trip through the model's tokens."""
    phrases, listener = found["chat"]["phrases"], found["listener"]["heard"]
    lines = [{"": f"{sort}s", "words wrong": f"{error(phrases[sort]):.1f} %", "all right": share(phrases[sort]),
              "before": f"{error(found['before']['phrases'][sort]):.1f} %", "n": str(row["n"])}
             for sort, row in phrases.items() if sort != "all"]
    lines += [{"": name, "words wrong": f"{error(row):.1f} %", "all right": share(row), "before": "", "n": str(row["n"])}
              for name, row in (("all of them", phrases["all"]), ("the report listener, from the sound", listener["as they are"]),
                                ("and from what the model's tokens keep of it", listener["after the codec"]))]
    show.table(lines, "Phrases of up to three seconds by voices that nobody has heard in training, written down.")
    names = {"answer": "the model's", "truth": "a true voice, after the same trip through the tokens"}
    spoken = found["chat"]["turns"]["spoken"]
    show.table([{"": name, "words wrong": f"{error(spoken[key]):.1f} %", "all right": share(spoken[key]),
                 "n": str(spoken[key]["n"])} for key, name in names.items()],
               "Spoken answers, in the ears of the report listener.")


def chat_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of conversations (`ch11_chat`) against what came; intervals by Wilson, as if words were independent."""
    rows, spoken = found["chat"]["turns"]["rows"], found["chat"]["turns"]["spoken"]

    def judged(right: int, n: int, **bounds: float) -> str:
        low, high = (100 * x for x in wilson(right, n))
        return f"{decide(low, high, **bounds):9} {100 * right / n:5.1f} % ({low:.1f} to {high:.1f}), n = {n}"

    def together(keys: Sequence[str], what: str = "right") -> tuple[int, int]:
        kept = [rows[key] for key in keys if key in rows]
        return sum(row[what] for row in kept), sum(row["n"] for row in kept)
    phrases, voice, before = found["chat"]["phrases"]["all"], spoken["answer"], found["before"]["turns"]["rows"]["inside"]
    typed, said = (together([f"ask: {how}{end}" for end in ("", ", answered aloud")]) for how in ("typed", "spoken"))
    return {"C1, words wrong in phrases that it hears: at most 10 %": judged(phrases["wrong"], phrases["words"], below=10.0),
            "C2, typed questions right: at least 95 %": judged(*typed, above=95.0),
            "C2, spoken questions right: at least 85 %": judged(*said, above=85.0),
            "C3, refused of what is outside: at least 90 %": judged(*together(["outside"]), above=90.0),
            "C3, refused of what is inside: at most 3 %": judged(*together(["inside"], "refused"), below=3.0),
            "C4, words of its voice misheard: at most 10 %": judged(voice["wrong"], voice["words"], below=10.0),
            "C5, right before, of all that is inside: at most 10 %": judged(before["right"], before["n"], below=10.0)}


DIRECTION = {"text->image": "draws a caption", "image->text": "describes a picture", "text->speech": "says a word",
             "image->speech": "names a picture aloud", "speech->text": "writes down a word",
             "people's digits": "writes down a digit", "speech->image": "draws what it hears", "image+text->image": "edits"}
MEASURE = {"object": "the right things", "word": "the whole sign", "exact": "all of it", "judge": "first listener",
           "second listener": "second listener", "words": "unheard voices", "digits": "another person",
           "change": "what was to change", "both": "and the rest kept"}


def tries(found: Mapping) -> None:
    """Best of eight and one try before, one try after (`ch11_one_try`), in all directions."""
    lines = []
    for direction, ways in found["rows"].items():
        for measure in next(iter(ways.values())):
            if measure != "cpu":
                cells = {way: share(row[measure]) for way, row in ways.items()}
                lines.append({"": f"{DIRECTION[direction]}: {MEASURE[measure]}", **cells,
                              "n": str(next(iter(ways.values()))[measure]["n"])})
    costs = {way: f"{row['cpu']:.2f} s" for way, row in found["rows"]["text->image"].items()}
    lines.append({"": "CPU seconds a picture", **costs, "n": ""})
    show.table(lines, "Questions of the test split, the same for all.")


def tries_verdicts(found: Mapping) -> dict[str, str]:
    """One try after against one try before, and against the best of eight: by bootstrap over the questions."""
    out = {}
    for direction, ways in found["rows"].items():
        measures = [key for key in next(iter(ways.values())) if key != "cpu"]
        for measure in measures[-1:]:                       # of each direction the strictest, which stands last
            hits = [[100.0 * int(hit) for hit in row[measure]["hits"]] for row in ways.values()]
            for title, other, bounds in (("R1, against one try", hits[1], {"above": 0.0}),
                                         ("R3, against the best of eight", hits[0], {"above": -3.0})):
                low, high = paired_bootstrap(hits[2], other, np.random.default_rng(0))
                change = np.mean(hits[2]) - np.mean(other)
                out[f"{title}: {DIRECTION[direction]}"] = (f"{decide(low, high, **bounds):9} {change:+6.1f} points "
                                                           f"({low:+.1f} to {high:+.1f})")
    costs = [row["cpu"] for row in found["rows"]["text->image"].values()]
    return out | {"R2, a picture costs": f"{costs[2] / costs[0]:.2f} of the best of eight"}
