"""Chapter 11's figures and widget: marks and contrast by hand, changes against the base of the same seed, answers along practice."""
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from mmcourse import checkpoints, show
from mmcourse.experiments import practice
from mmcourse.experiments.practice import TASKS
from mmcourse.judges.metrics import t_interval, wilson
from mmcourse.posttraining import METHODS, Question, has_contrast
from mmcourse.show import ch11
from mmcourse.show.diagrams import ch11 as drawing
from mmcourse.studies import _ch11, ch11_posttraining
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import Part, Turn
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene

STARS, BEE = Scene((Group("star", 2, "left"),), "blue"), Scene((Group("bee", 1, "right"),), "red")


@pytest.fixture(autouse=True)
def tidy():
    """No figure outlives its test."""
    yield
    plt.close("all")


class Small:
    """What the figures need of a side of the practice world: its tokenizers, and questions that are quickly made."""

    def __init__(self):
        self.bpe, self.vqvae, self.codec = (checkpoints.load(name) for name in ("bpe", "vqvae", "codec"))

    def text(self, words):
        return Segment("text", tuple(self.bpe.encode(f" {words}")))

    def picture(self, scene):
        (ids,) = self.vqvae.encode(draw_batch([scene], world=practice.PRACTICE))
        return Segment("image", tuple(ids.flatten().tolist()))

    def sound(self, seed, frames=6):
        return Segment("audio", tuple(np.random.default_rng(seed).integers(512, size=2 * frames).tolist()))

    def ask(self, task, rng, n):
        scenes = [(STARS, BEE)[int(i)] for i in rng.integers(2, size=n)]
        if task == "draw":
            said = {STARS: "two stars on the left on blue", BEE: "a bee on the right on red"}
            return [Question((self.text(said[scene]),), "image", scene) for scene in scenes]
        word = {STARS: "star", BEE: "bee"}
        if task == "hear":
            return [Question((self.sound(i),), "text", word[scene]) for i, scene in enumerate(scenes)]
        return [Question((self.picture(scene),), "audio", word[scene]) for scene in scenes]


@pytest.fixture(scope="module")
def small():
    return Small()


@pytest.fixture
def sides(small, monkeypatch):
    """The small side in place of all splits."""
    monkeypatch.setattr(practice, "side", lambda split: small)
    return small


def texts(fig):
    return [text.get_text() for axis in fig.axes for text in axis.texts]


# ---------------------------------------------------------------- drafts and their marks

def test_pictures_are_framed_by_their_marks(sides, drawn):
    asked = [question for question in sides.ask("draw", np.random.default_rng(0), 2) for _ in range(3)]
    ch11.marked(asked, [sides.picture(STARS)] * 6, torch.tensor([1, 0, 1, 0, 0, 0]), 3, "drafts")
    fig, caption = drawn[0]
    assert [axis.spines["left"].get_linestyle() for axis in fig.axes] == ["-", ":", "-", ":", ":", ":"]
    assert [axis.get_xlabel() for axis in fig.axes] == list("✓✗✓✗✗✗") and caption == "drafts"
    first, second = texts(fig)
    assert "2 of 3 right\ncontrast: yes" in first and "0 of 3 right\ncontrast: no" in second
    assert ch11.said(asked[0]) in first.replace("\n", " ")


def test_other_rewards_are_numbers_in_grey_frames(sides, drawn):
    asked = sides.ask("draw", np.random.default_rng(0), 1) * 2
    ch11.marked(asked, [sides.picture(STARS)] * 2, [0.5, 1.0], 2)
    fig = drawn[0][0]
    assert [axis.get_xlabel() for axis in fig.axes] == ["0.50", "1.00"] and "mean 0.75\ncontrast: yes" in texts(fig)[0]
    assert {axis.spines["left"].get_edgecolor()[:3] for axis in fig.axes} == {(0.5, 0.5, 0.5)}


def test_texts_are_a_table_of_words(sides, capsys):
    asked = [Question((sides.sound(0),), "text", "bee")] * 4
    given = [sides.text(word) for word in ("bee", "key", "a bee on the left", "")]
    ch11.marked(asked, [*given[:3], Segment("text", (sides.bpe.encode(" ")[0],))], [1, 0, 0, 0], 4, "words")
    head, line, caption = capsys.readouterr().out.splitlines()
    assert head.split() == ["asked", "1", "2", "3", "4", "right", "contrast"] and caption == "words"
    assert "bee ✓" in line and "key ✗" in line and "a bee on the left ✗" in line and "(empty) ✗" in line
    assert line.split()[-4:] == ["1", "of", "4", "yes"] and line.startswith("bee ")


def test_of_sounds_the_reward_listener_says_what_it_hears(sides, capsys):
    asked, given = [Question((sides.picture(BEE),), "audio", "bee")] * 2, [sides.sound(1), sides.sound(2, 9)]
    ch11.marked(asked, given, [0, 0], 2)
    words = ch11.heard(given, ch11.REWARD_EAR)
    line = capsys.readouterr().out.splitlines()[1]
    assert all(f"{ch11.short(word)} ✗" in line for word in words) and line.split()[-1] == "no"


@pytest.mark.parametrize(("listener", "judges"), [(ch11.REWARD_EAR, practice.REWARD), (ch11.REPORT_EAR, practice.REPORT)])
def test_what_is_heard_is_what_the_judge_marks(sides, listener, judges):
    given = [sides.sound(i) for i in range(3)]
    words = ch11.heard(given, listener)
    assert judges["say"]([Question((), "audio", word) for word in words], given) == [1, 1, 1]
    assert judges["say"]([Question((), "audio", "no such word")] * 3, given) == [0, 0, 0]


@pytest.mark.parametrize(("questions", "answers", "rewards", "group", "said"), [
    (0, [], [], 8, "0 questions"), (2, ["text", "text"], [1], 2, "1 rewards"), (3, ["text"] * 3, [1, 0, 1], 2, "whole groups"),
    (1, ["text"], [1], 0, "whole groups"), (2, ["text", "image"], [1, 0], 2, "of one modality, got image and text")])
def test_what_does_not_fit_together_is_refused(questions, answers, rewards, group, said):
    question = Question((Segment("text", (1,)),), "text", "bee")
    with pytest.raises(ValueError, match=said):
        ch11.marked([question] * questions, [Segment(kind, (1,)) for kind in answers], rewards, group)


@pytest.mark.parametrize("rewards", [[1, 1, 1], [0, 0, 0], [1, 0, 0], [0.2, 0.2, 0.3]])
def test_contrast_is_that_of_the_methods(rewards):
    found = has_contrast(torch.tensor([rewards], dtype=torch.float32))[0]
    assert ch11.summary(rewards, set(rewards) <= {0, 1})[1] == ("yes" if found else "no")


# ---------------------------------------------------------------- a run under two judges

def looks(reward, report, n=50, every=10):
    return [{"step": every * i, "n": n, "reward": one, "report": other} for i, (one, other) in enumerate(zip(reward, report))]


def test_both_judges_are_drawn_with_their_start_and_interval(drawn):
    ch11.judges_along({"draw": looks([10, 40], [10, 5]), "say": looks([20], [25])}, "two judges")
    fig, caption = drawn[0]
    assert [axis.get_title() for axis in fig.axes] == ["draw", "say"] and caption == "two judges"
    thick = [line for line in fig.axes[0].lines if line.get_linewidth() == 2]
    thin = [line.get_ydata()[0] for line in fig.axes[0].lines if line.get_linewidth() == 0.8]
    assert [list(line.get_ydata()) for line in thick] == [[20, 80], [20, 10]] and thin == [20, 20]
    assert [line.get_linestyle() for line in thick] == ["-", "--"]
    heights = fig.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    for bound in wilson(40, 50):
        assert np.isclose(heights, 100 * bound).any()


def test_one_run_needs_no_title(drawn):
    ch11.judges_along(looks([1, 2], [1, 2]))
    assert len(drawn[0][0].axes) == 1
    for nothing in ([], {}, {"a": []}):
        with pytest.raises(ValueError, match="one look at least"):
            ch11.judges_along(nothing)


# ---------------------------------------------------------------- a study that was made up

def counts(report, greedy=None, **more):
    """A task of a row's test: `report` of 100 sampled answers are right."""
    return {"sampled": {"n": 100, "reward": 99, "report": report}, "greedy": {"n": 50, "reward": 1, "report": greedy or 0},
            "distinct": 0.5, **more}


def made_up(seeds=(0, 1, 2), skip=()):
    """Rows as the study has them. Base: 50 + seed of 100 are right; an arm adds 4 x its place in `ARMS`, and 1 for seed 1; a
    task that is not practised loses 3."""
    voice = {"pitch_cents": 120.0, "seconds": 0.5, "seconds_sd": 0.1}
    rows = [{"arm": "base", "task": "", "seed": seed, "test": {on: counts(50 + seed, 30, **(voice if on == "say" else {}))
                                                               for on in TASKS}} for seed in seeds]
    wanted = [(arm, task) for task in TASKS for arm in ch11.ARMS] + [(arm, "draw") for arm in ch11.CHEATS] + [
        ("grpo", ch11.TOGETHER)]
    for arm, task in wanted:
        for seed in seeds if arm not in skip else ():
            gain = 4 * list({**ch11.ARMS, **ch11.CHEATS}).index(arm) + (seed == 1)
            test = {on: counts(50 + seed + (gain if task in (on, ch11.TOGETHER) else -3), 40, **(
                {key: value * 0.8 for key, value in voice.items()} if on == "say" else {})) for on in TASKS}
            rows.append({"arm": arm, "task": task, "seed": seed, "test": test, "looks": looks([10, 20 + seed], [10, 30 + seed]),
                         "curve": [{"step": 0, "reward": 0.5}, {"step": 5, "reward": 0.6 + 0.1 * seed}]})
    return rows


def test_the_made_up_study_has_the_real_ones_arms():
    jobs = ch11_posttraining.jobs(ch11_posttraining.Plan(), (0, 1, 2))
    assert {(job.key["arm"], job.key["task"], job.key["seed"]) for job in jobs if job.section == ("rows",)} == {
        (row["arm"], row["task"], row["seed"]) for row in made_up()}
    assert list(ch11.ARMS) == list(ch11_posttraining.ARMS) and list(ch11.CHEATS) == list(ch11_posttraining.CHEATS)
    assert ch11.TOGETHER == ch11_posttraining.TOGETHER


def test_a_change_is_against_the_base_of_the_same_seed():
    rows = made_up()
    assert ch11.changes(rows, "grpo", "say") == [16, 17, 16] == ch11.changes(rows[::-1], "grpo", "say")
    assert ch11.changes(rows, "grpo", "say", on="draw") == [-3] * 3
    assert ch11.changes(rows, "sft", "hear", how="greedy") == [20] * 3
    with pytest.raises(ValueError, match="no row of arm 'grpo', task 'sing'"):
        ch11.changes(rows, "grpo", "sing")
    with pytest.raises(ValueError, match="no row of arm 'base' for seed 2"):
        ch11.changes([row for row in rows if (row["arm"], row["seed"]) != ("base", 2)], "grpo", "say")


def test_arms_are_dots_with_their_seeds_and_interval(drawn):
    ch11.arms(made_up(skip=("dpo",)), "hear", "the arms")
    fig = drawn[0][0]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == [name for arm, name in ch11.ARMS.items() if arm != "dpo"] and drawn[0][1] == "the arms"
    sampled, greedy = fig.axes
    large = [float(line.get_xdata()[0]) for line in sampled.lines if line.get_markersize() == 8]
    assert large == pytest.approx([4 * list(ch11.ARMS).index(arm) + 1 / 3 for arm in ch11.ARMS if arm != "dpo"])
    bars = [line.get_xdata() for line in sampled.lines if line.get_linewidth() == 2.4]
    mean, half = t_interval([0, 1, 0])
    assert list(bars[0]) == pytest.approx([mean - half, mean + half]) and "51 % right" in sampled.get_title()
    assert "60 % right" in greedy.get_title() and {line.get_xdata()[0] for line in greedy.lines if line.get_markersize() == 8} == {20}
    with pytest.raises(ValueError, match="no arm that practised 'sing'"):
        ch11.arms(made_up(), "sing")


def test_one_seed_alone_has_no_interval(drawn):
    ch11.arms(made_up(seeds=(0,)), "draw")
    assert [list(line.get_xdata()) for line in drawn[0][0].axes[0].lines if line.get_linewidth() == 2.4][1] == [4, 4]


def test_what_is_carried_over_stands_cell_by_cell(drawn):
    ch11.carried(made_up(), "carried")
    axis = drawn[0][0].axes[0]
    said = {text.get_position(): text.get_text() for text in axis.texts}
    large = {(round(x), round(y)): text for (x, y), text in said.items() if y % 1 > 0.5}
    assert large[0, 0] == large[1, 1] == large[2, 3] == "+16.3" and large[1, 0] == large[0, 2] == "-3.0"
    assert [label.get_text() for label in axis.get_yticklabels()] == [*TASKS, "all three"]
    assert said[1, 0.25] == "-3 to -3" and len(axis.patches) == 6
    with pytest.raises(ValueError, match="no row of arm 'grpo'"):
        ch11.carried(made_up(skip=("grpo",)))


def test_reward_and_truth_part_where_a_reward_is_cheated(drawn):
    ch11.cheats(made_up(skip=("right and bright",)), "cheats")
    fig = drawn[0][0]
    left, right = fig.axes[:2], fig.axes[2:]
    assert [axis.get_title() for axis in left] == list(ch11.CHEATS.values())[:2] and len(right) == 2
    (share,), (reward,) = ([line for line in axis.lines if line.get_linewidth() == 2.4] for axis in (left[0], right[0]))
    assert list(share.get_ydata()) == pytest.approx([20, 62]) and list(reward.get_ydata()) == pytest.approx([0.5, 0.7])
    assert share.get_linestyle() == "-" and reward.get_linestyle() == "--" and len(left[0].lines) == 4
    with pytest.raises(ValueError, match="no row of an arm of brightness"):
        ch11.cheats(made_up(skip=ch11.CHEATS))


def test_what_nobody_rewards_is_a_table(capsys):
    ch11.unrewarded(made_up(), "unrewarded")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + 3 + 1 and lines[-1] == "unrewarded"
    assert lines[1].split()[:1] == ["draw"] and "50      50     +0" in lines[1]
    pitch = next(line for line in lines if "pitches" in line)
    assert pitch.split()[-6:] == ["120", "96", "-24", "-24", "to", "-24"]


# ---------------------------------------------------------------- answers along practice

def run_of(task, arm, *shown):
    return {"arm": arm, "task": task, "seed": 0, "looks": [{"step": 10 * i, "n": 6, "reward": 0, "report": 0, "shown": answers}
                                                            for i, answers in enumerate(shown)]}


@pytest.mark.parametrize("task", TASKS)
def test_the_questions_are_the_studys(sides, monkeypatch, task):
    asked = []
    monkeypatch.setattr(sides, "ask", lambda *given: asked.append((given[0], given[1].integers(2**40), given[2])), raising=False)
    monkeypatch.setattr(_ch11, "side", lambda split: asked.append(split) or sides)
    monkeypatch.setattr(practice, "side", lambda split: asked.append(split) or sides)
    ch11.shown_questions(task)
    _ch11.questions(task, "validation", _ch11.SHOWN)
    assert asked[:2] == asked[2:] and asked[0] == "validation"


def test_pictures_along_practice_are_marked_by_the_report_judge(sides, drawn):
    right = [list(sides.picture(question.truth).ids) for question in ch11.shown_questions("draw")]
    wrong = [list(sides.picture(STARS if question.truth == BEE else BEE).ids) for question in ch11.shown_questions("draw")]
    for task in ("draw", ch11.TOGETHER):
        row = run_of(task, "grpo", wrong, right[:2] + wrong[2:])
        ch11.scrubbed(row, 0)
        ch11.scrubbed(row, 10, "Look.")
    marks = [[axis.get_xlabel() for axis in fig.axes] for fig, _ in drawn]
    assert marks == [["✗"] * 6, ["✓"] * 2 + ["✗"] * 4] * 2
    assert "step 0: the report judge finds 0 of 6" in drawn[0][1] and drawn[1][1].startswith("Look. draw: GRPO, step 10")
    assert "2 of 6" in drawn[1][1] and "two stars" in "".join(axis.get_title() for axis in drawn[0][0].axes)


def test_texts_along_practice_stand_beside_their_words(sides, capsys):
    words = [question.truth for question in ch11.shown_questions("hear")]
    ch11.scrubbed(run_of("hear", "grpo", [list(sides.text(word).ids) for word in [*words[:5], "key"]]), 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in lines[1:6]] == [[word, "✓"] for word in words[:5]]
    assert lines[6].split()[-2:] == ["key", "✗"] and "5 of 6" in lines[7] and "0.24 s" in lines[1]


def test_sounds_along_practice_are_heard_by_the_report_judge(sides, capsys):
    given = [sides.sound(i) for i in range(6)]
    ch11.scrubbed(run_of("say", "grpo", [list(answer.ids) for answer in given]), 0)
    lines = capsys.readouterr().out.splitlines()
    assert all(word in line for word, line in zip(ch11.heard(given, "second_listener"), lines[1:7], strict=True))


def test_a_step_without_answers_is_said(sides):
    row = run_of("draw", "grpo", None, [[0] * 64] * 6)
    with pytest.raises(ValueError, match="no answers were kept at step 0 of 'draw: GRPO': there are steps 10"):
        ch11.scrubbed(row, 0)


def test_a_page_has_players(sides, monkeypatch):
    sent = []
    monkeypatch.setattr(show, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: sent.append(getattr(data, "data", data)))
    for task in ("hear", "say"):
        answers = [[1, 2]] * 6
        ch11.scrubbed(run_of(task, "grpo", answers), 0)
    assert sent[0].count("<audio") == sent[2].count("<audio") == 6 and "<th>written</th>" in sent[0]


def test_the_widget_offers_the_runs_that_kept_answers(sides, monkeypatch):
    kept, shown = {}, []
    monkeypatch.setattr(ch11, "scrubbed", lambda row, step: shown.append((row["task"], step)))
    monkeypatch.setattr(show, "controlled", lambda draw, controls, *says: kept.update(controls, draw=draw))
    rows = [*made_up(), run_of("draw", "grpo", [1], [1]), run_of("hear", "grpo", [1], [1], [1]), run_of("draw", "brightness", [1])]
    ch11.scrub(rows)
    assert kept["run"].options == ("draw: GRPO", "hear: GRPO", "draw: paid for brightness") and kept["step"].value == 10
    kept["run"].value = "hear: GRPO"
    assert tuple(kept["step"].options) == (0, 10, 20) and kept["step"].value == 20
    kept["draw"](kept["run"].value, 10)
    assert shown == [("hear", 10)]
    with pytest.raises(ValueError, match="no run of the study kept its answers"):
        ch11.scrub(made_up())


def test_without_a_kernel_the_end_of_the_first_run_stands(sides, drawn):
    answers = [list(sides.picture(STARS).ids)] * 6
    ch11.scrub([run_of("draw", "grpo", answers, answers)])
    assert len(drawn) == 1 and "draw: GRPO, step 10" in drawn[0][1]


# ---------------------------------------------------------------- the drawing

@pytest.mark.parametrize("method", drawing.COUNTS.values())
def test_the_counts_are_the_methods(monkeypatch, capsys, method):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    show.diagrams.ch11.stack()
    written = [text.get_text() for axis in kept[0].axes for text in axis.texts]
    for _, _, _, marks, _ in drawing.KINDS:
        counts = METHODS[method].count(torch.tensor([marks], dtype=torch.float32), np.random.default_rng(0))[0]
        assert sorted(drawing.counted(method, marks)) == sorted(counts.tolist())
        assert {f"{count:+.3g}".replace("-", "−") if count else "0" for count in counts.tolist()} <= set(written)
    assert "GRPO counts the mark less the mean" in capsys.readouterr().out and written.count("1 ✓") == 3 + 8 + 1
    monkeypatch.undo()


def test_every_answer_has_its_mark_and_its_tokens():
    assert all(len(lengths) == len(marks) == 8 for _, _, lengths, marks, _ in drawing.KINDS)
    assert drawing.counted("grpo", drawing.KINDS[1][3]) == [0.0] * 8, "where all are right, nothing is learned"


# ---------------------------------------------------------------- the verdict

def judged(base, arms, seeds=(0, 1, 2), best=60):
    """A study in which an arm has the same counts of 100 in every pupil, but for one answer more in each that follows."""
    def row(arm, task, seed, right):
        counts = {name: {"sampled": {"n": 100, "report": right.get(name, base) + seed}, "distinct": 0.5 - 0.1 * (arm == "grpo"),
                         "pitch_cents": 300 - 20 * (arm == "grpo"),
                         "greedy": {"n": 100, "report": right.get(name, base) + seed}} for name in TASKS}
        return {"arm": arm, "task": task, "seed": seed, "test": counts}
    rows = [row("base", "", seed, {}) | {"drafts": {name: {"n": 100, "best": best} for name in TASKS}} for seed in seeds]
    return rows + [row(arm, task, seed, right) for (arm, task), right in arms.items() for seed in seeds]


def everything(grpo, **others):
    arms = {("grpo", task): {task: grpo} for task in TASKS} | {("sft", task): {task: 50} for task in TASKS}
    return arms | {("rejection", "draw"): {"draw": 60}, ("random selection", "draw"): {"draw": 40},
                   ("random reward", "draw"): {"draw": 39}, ("brightness", "draw"): {"draw": 2},
                   ("right and bright", "draw"): {"draw": 60}} | others


def test_a_verdict_holds_where_the_study_says_so():
    found = ch11.verdicts(judged(40, everything(60)))
    assert len(found) == 25 and all(says.startswith("holds") for says in found.values()), found


def test_a_verdict_fails_where_the_study_says_otherwise():
    found = ch11.verdicts(judged(40, everything(30), best=90))
    failed = {name.split(",")[0] for name, says in found.items() if says.startswith("FAILS")}
    assert failed == {"H1", "H2", "H3", "H8"}


def test_shares_are_those_of_an_arms_pupils():
    rows = judged(40, everything(60))
    assert ch11.shares(rows, "base", "draw", "greedy") == [0.40, 0.41, 0.42]
    assert ch11.shares(rows, "grpo", "draw", "sampled") == [0.60, 0.61, 0.62]


def test_the_shipped_models_verdicts_are_paired_by_caption():
    def row(sampled, greedy=None, best=None, things=50, sign=20):
        ways = {"sampled": sampled, "greedy": greedy, "best of eight": best}
        return {way: {"n": 100, "hits": "1" * k + "0" * (100 - k), "things": things, "signs": 40, "sign": sign}
                for way, k in ways.items() if k is not None}
    rows = {"before": row(60, 70, 90), "practised": row(80, 89), "practised, the sign alone": row(20, things=10, sign=30)}
    found = ch11.shipped_verdicts(rows)
    assert [says.split()[0] for says in found.values()] == ["holds"] * 5
    assert "-1.0 points" in found["S3, one greedy try for the best of eight"]
    longer = ch11.shipped_verdicts(rows | {"practised longer": row(90, 60)})
    assert longer["S3, after five times as much practice"].startswith("FAILS")


# ---------------------------------------------------------------- the model that converses

def test_a_conversation_is_written_as_it_was_said(capsys):
    turns = (Turn((Part("image", BEE), Part("spoken", "what is it?")), Part("text", "bee"), "name"),
             Turn((Part("outside", "noise"),), Part("text", "I do not know"), "refuse", "noise"))
    ch11.script(turns)
    assert capsys.readouterr().out.split("\n") == [
        "user   image    a bee on the right, red ground", "user   spoken   “what is it?”", "model  text     “bee”",
        "user   foreign  noise", "model  text     “I do not know”", "", ""]


def test_the_tables_of_a_conversation_say_what_was_measured(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "table", lambda lines, caption="": shown.append(lines))
    rows = {"draw": {"n": 50, "right": 45, "kind": 50, "refused": 0}, "outside: noise": {"n": 10, "right": 9, "kind": 10, "refused": 9}}
    heard = {"n": 4, "right": 3, "wrong": 1, "words": 8}
    chat = {"turns": {"rows": rows, "spoken": {"answers": 4, "answer": heard, "truth": {**heard, "wrong": 0, "right": 4}}},
            "phrases": {"all": {**heard, "wrong": 2}, "caption": {"n": 9, "right": 9, "wrong": 3, "words": 30}}}
    before = {"turns": {"rows": {"draw": {"n": 20, "right": 1, "kind": 2, "refused": 0}}},
              "phrases": {"caption": {"n": 9, "right": 0, "wrong": 15, "words": 30}}}
    found = {"chat": chat, "before": before, "listener": {"heard": {"as they are": heard, "after the codec": {**heard, "wrong": 4}}}}
    ch11.talked(found)
    ch11.ears(found)
    turns, phrases, voices = shown
    assert [(line[""], line["right"], line["before"]) for line in turns] == [
        ("draws what is asked for", "90.0%", "5.0%"), ("– a noise", "90.0%", "–")]
    assert (phrases[0]["words wrong"], phrases[0]["before"]) == ("10.0 %", "50.0 %")
    assert [line["words wrong"] for line in phrases[1:]] == ["25.0 %", "12.5 %", "50.0 %"]
    assert [(line["words wrong"], line["all right"]) for line in voices] == [("12.5 %", "75.0%"), ("0.0 %", "100.0%")]
    once = {"n": 10, "right": 9, "hits": "1111111110"}
    ch11.tries({"rows": {"text->image": {way: {"exact": once, "cpu": 0.25} for way in ("a", "b", "c")}}})
    assert [line[""] for line in shown[-1]] == ["draws a caption: all of it", "CPU seconds a picture"]
    assert shown[-1][0]["c"] == "90.0%" and shown[-1][1]["a"] == "0.25 s"
