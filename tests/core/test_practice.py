"""What chapter 11 practises: the sides of its world have nothing in common, right answers are marked right and wrong ones
wrong by each judge, and everything can be practised.

Most is looked at with the speech of a few voices; the ceilings of all voices are slow.
"""
import numpy as np
import pytest
import torch

from mmcourse.experiments import practice
from mmcourse.experiments.practice import (
    NAMES,
    PRACTICE,
    PRACTISE,
    REPORT,
    REWARD,
    SPLITS,
    TASKS,
    make_small,
    pre_train,
    scene_split,
    scenes_of,
    side,
    task,
    texts,
    voice_split,
)
from mmcourse.judges.picture_net import halves
from mmcourse.posttraining import METHODS, Method, advantages, mark, post_train, roll_out
from mmcourse.training import Run
from mmcourse.world.scene import BACKGROUNDS
from mmcourse.world.speech import TAKES, VOICES, load_speech

FEW = {"train": (0, 20), "practice": (0, 20), "validation": (5, 29), "test": (11, 35)}
QUIET = Run(progress=False, log_every=1)
# The share of right answers that are marked right, at least: with a few voices and with all (96 questions, see -s).
FLOORS = {("draw", "reward"): 0.97, ("draw", "report"): 0.97, ("hear", "reward"): 1.0, ("hear", "report"): 1.0,
          ("say", "reward"): 0.8, ("say", "report"): 0.85}
every_task = pytest.mark.parametrize("name", TASKS)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def few_voices():
    """The practice world with the speech of six voices: seconds instead of minutes."""
    corpus, keep = load_speech(progress=False), {voice for voices in FEW.values() for voice in voices}
    rows = [i for i, voice in enumerate(corpus.voices) if voice in keep]
    corpus = type(corpus)(*([part[i] for i in rows] for part in (corpus.clips, corpus.words, corpus.voices)),
                          corpus.held_out[rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(practice, "load_speech", lambda progress: corpus)
        side.cache_clear()
        yield corpus
        side.cache_clear()                                              # others get all voices


# ---------------------------------------------------------------- the sides

def test_every_scene_is_on_one_side_and_no_pair_of_noun_and_ground_on_two():
    of = {split: scenes_of(split) for split in SPLITS}
    everything = [scene for scenes in of.values() for scene in scenes]
    assert len(everything) == len({*everything}) == len(NAMES) * len(BACKGROUNDS) * 6      # numbers and places
    pairs = {split: {(scene.groups[0].noun, scene.background) for scene in scenes} for split, scenes in of.items()}
    assert sum(map(len, pairs.values())) == len(set.union(*pairs.values())) == len(NAMES) * len(BACKGROUNDS)
    for split, scenes in of.items():
        assert len(scenes) >= 30 and len(scenes) == 6 * len(pairs[split]), "a pair goes with all its numbers and places"
        assert {scene_split(scene) for scene in scenes} == {split}
    names, grounds = ({pair[i] for pair in pairs["train"]} for i in (0, 1))
    assert names == set(NAMES) and grounds == set(BACKGROUNDS), "each part of a new pair was seen elsewhere"
    assert 0.15 < len(pairs["test"]) / len(NAMES) / len(BACKGROUNDS) < 0.3


def test_what_may_be_trained_on_is_the_training_split_of_the_world():
    assert all(PRACTICE.split_of(scene) == "train" for scene in scenes_of("train"))
    assert all(PRACTICE.split_of(scene) == "test" for scene in scenes_of("test"))
    assert {PRACTICE.split_of(scene) for scene in scenes_of("practice") + scenes_of("validation")} == {"validation"}


def test_every_voice_is_on_one_side():
    of = {split: [voice for voice in range(len(VOICES)) if voice_split(voice) == split] for split in SPLITS}
    assert sum(map(len, of.values())) == len(VOICES) and not of["practice"], "what is practised is said by the training voices"
    assert len(of["validation"]) >= 4 and len(of["test"]) >= 4 and len(of["train"]) > 20
    assert all(voice in of["train" if split == "practice" else split] for split, voices in FEW.items() for voice in voices)


@pytest.mark.parametrize("split", SPLITS)
def test_a_side_has_its_own_scenes_and_voices_alone(few_voices, split):
    here, mine = side(split), FEW[split]
    said = [(word, voice) for word, voice in zip(few_voices.words, few_voices.voices) if word in NAMES and voice in mine]
    assert here.mixture.clips.words == [word for word, _ in said] and len(said) == len(NAMES) * TAKES * 2
    assert len(here.heard.words) == practice.COPIES * len(said) and set(here.heard.words) == set(NAMES)
    assert here.mixture.scenes == scenes_of(split) and here.mixture.images.shape == (len(here.mixture.scenes), 64)
    assert side(split) is here, "tokenized once"


@every_task
def test_the_sides_share_no_question_of_what_is_new_in_them(few_voices, name):
    """Pictures and captions of a side are its own, sounds too; only `hear` and `say` of training are practised again."""
    asked = {split: {question.prompt for question in side(split).ask(name, rng(1), 150)} for split in SPLITS}
    for one in SPLITS:
        for other in SPLITS:
            shared_sounds = name == "hear" and {one, other} == {"train", "practice"}
            assert one == other or shared_sounds or not asked[one] & asked[other]


# ---------------------------------------------------------------- questions

@every_task
def test_questions_are_of_their_task_and_depend_on_the_dice_alone(few_voices, name):
    here, want = side("test"), {"draw": "image", "hear": "text", "say": "audio"}[name]
    asked = here.ask(name, rng(3), 40)
    assert asked == here.ask(name, rng(3), 40) != here.ask(name, rng(4), 40) and here.ask(name, rng(), 0) == []
    for question in asked:
        assert question.want == question.answer.modality == want and len(question.prompt) == 1
        ids = here.vocabulary.pack([*question.prompt, question.answer])
        assert len(ids) <= make_small().context
    assert {q.prompt[0].modality for q in asked} == {{"draw": "text", "hear": "audio", "say": "image"}[name]}
    nouns = {q.truth.groups[0].noun if name == "draw" else q.truth for q in asked}
    assert nouns <= set(NAMES) and len(nouns) > 5


def test_what_is_asked_is_what_is_true(few_voices):
    here = side("test")
    for question in here.ask("draw", rng(5), 30):
        assert texts(question.prompt) == [PRACTICE.caption(question.truth)] and scene_split(question.truth) == "test"
    for question in here.ask("hear", rng(5), 30):
        assert texts([question.answer]) == [question.truth]
    shown = {image: scene for scene, image in zip(here.mixture.scenes, map(here.mixture.image, here.mixture.images))}
    for question in here.ask("say", rng(5), 30):
        assert shown[question.prompt[0]].groups[0].noun == question.truth


# ---------------------------------------------------------------- who marks

def ceilings(split, n=96):
    """(task, judge) -> the share of right answers that are marked right, and of wrong ones."""
    out = {}
    for name in TASKS:
        asked = side(split).ask(name, rng(8), n)
        given = [question.answer for question in asked]
        moved = given[7:] + given[:7]                                   # each gets the answer to another question
        truth = [halves(q.truth) if name == "draw" else q.truth for q in asked]
        wrong = [a != b for a, b in zip(truth, truth[7:] + truth[:7])]
        for kind, judges in (("reward", REWARD), ("report", REPORT)):
            right = mark(task(name, split, judges), asked, given)
            other = mark(task(name, split, judges), asked, moved)
            assert {*right.tolist(), *other.tolist()} <= {0.0, 1.0} and sum(wrong) > n // 2
            out[name, kind] = right.mean().item(), other[torch.tensor(wrong)].mean().item()
    print(split, {" ".join(key): (round(a, 3), round(b, 3)) for key, (a, b) in out.items()})
    return out


def check_ceilings(split):
    for (name, kind), (right, wrong) in ceilings(split).items():
        assert right >= FLOORS[name, kind], f"{name}: the {kind} judge takes {right:.0%} of right answers"
        assert wrong <= 0.02, f"{name}: the {kind} judge takes {wrong:.0%} of wrong answers"


def test_right_answers_are_marked_right_and_wrong_ones_wrong(few_voices):
    check_ceilings("train")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_right_answers_are_marked_right_and_wrong_ones_wrong_with_all_voices(split):
    check_ceilings(split)


def test_the_report_judge_of_pictures_counts_and_the_reward_judge_does_not(few_voices):
    """Where the two part: two things where one was asked for. What is optimised does not see it."""
    here = side("train")
    scenes = {scene: here.mixture.image(image) for scene, image in zip(here.mixture.scenes, here.mixture.images)}
    asked, answers = [], []
    for question in here.ask("draw", rng(2), 60):
        group = question.truth.groups[0]
        other = [scene for scene in scenes if scene != question.truth and halves(scene) == halves(question.truth)]
        if group.count == 1 and other:
            asked.append(question)
            answers.append(scenes[other[0]])
    assert len(asked) > 5
    assert np.mean(REWARD["draw"](asked, answers)) > 0.9 and sum(REPORT["draw"](asked, answers)) == 0


def test_noise_earns_nothing(few_voices):
    """An untrained model's answers: no task is won by chance."""
    model, vocabulary = make_small(), side("train").vocabulary
    for name in TASKS:
        rollouts = roll_out(model, vocabulary, side("train").ask(name, rng(), 4), 4)
        for judges in (REWARD, REPORT):
            assert mark(task(name, judges=judges), rollouts.questions, rollouts.answers).mean() <= 0.25


def test_reward_and_report_are_judges_of_different_makes():
    assert REWARD["draw"] is not REPORT["draw"] and REWARD["say"] is not REPORT["say"]
    assert set(REWARD) == set(REPORT) == set(PRACTISE) == set(TASKS) and set(PRACTISE.values()) <= {"train", "practice"}


# ---------------------------------------------------------------- practising

@every_task
def test_every_task_can_be_practised(few_voices, name):
    model, asked = make_small(), []
    before = [p.clone() for p in model.parameters()]
    here, lots = task(name), iter(range(10**6))
    # an untrained model earns nothing, so for once any difference counts
    marked = type(here)(name, lambda rng, n: asked.append(n) or here.ask(rng, n),
                        lambda questions, answers: [here.reward(questions, answers)[i] + next(lots) % 2 for i in range(len(answers))])
    history = post_train(model, side("train").vocabulary, [marked], Method(2, advantages), steps=1, prompts=1, run=QUIET)
    assert asked == [1] and history.rows[0]["contrast"] == 1
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_the_right_answers_can_be_learned_from(few_voices):
    model = make_small()
    history = post_train(model, side("train").vocabulary, [task(name) for name in TASKS], METHODS["sft"], steps=12, run=QUIET)
    assert history.column("loss")[-1] < history.column("loss")[0]


def test_pre_training_is_the_same_for_the_same_seed(few_voices):
    (one, history), (other, again), (third, _) = pre_train(1, steps=2), pre_train(1, steps=2), pre_train(2, steps=2)
    assert history.rows == again.rows and not one.training
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters()))
    assert not torch.equal(one.head.weight, third.head.weight)
    assert sum(p.numel() for p in one.parameters()) < 1e6


def test_a_task_and_a_side_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="a task is one of draw, hear, say, got 'sing'"):
        task("sing")
    with pytest.raises(ValueError, match="a split is one of train, practice, validation, test, got 'exam'"):
        side("exam")
    with pytest.raises(ValueError, match="a split is one of train, practice, validation, test, got 'exam'"):
        task("draw", "exam").ask(rng(), 1)
