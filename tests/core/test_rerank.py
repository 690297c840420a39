"""Answers with care: likelihoods by hand, each strategy rebuilt from its parts, the table of presets, what is refused."""
import pytest
import torch
from helpers import SMALL, wild_model

from mmcourse import rerank
from mmcourse.generate import generate
from mmcourse.rerank import (
    PRESETS,
    answer,
    answer_directly,
    answer_edit,
    answer_heard,
    answer_retold,
    augmented_consensus,
    backward_log_likelihood,
    best_of_n,
    caption_first,
    log_likelihood,
    preset,
    retold_log_likelihood,
    verbalize,
)
from mmcourse.vocabulary import Segment

CAT, OTHER_CAT = Segment("image", (1, 2, 3, 4, 5)), Segment("image", (5, 4, 3, 2, 1))
BELL, WORDS = Segment("audio", (1, 2, 0, 3)), Segment("text", (1, 2))


def by_hand(model, prompt, target) -> float:
    """The log-probability of a segment after a prompt, token by token; its opening token is given."""
    given, asked = SMALL.pack(prompt), SMALL.pack([target])
    with torch.no_grad():
        log_p = model(torch.tensor([given + asked[:-1]])).log_softmax(-1)[0]
    return sum(log_p[len(given) + i, asked[i + 1]].item() for i in range(len(asked) - 1))


def best(tries, scores):
    return tries[int(torch.as_tensor(scores).argmax())]


# ---------------------------------------------------------------- how likely is an answer?

def test_a_likelihood_is_the_sum_over_the_tokens_of_the_answer():
    """In one padded batch with prompts and answers of other lengths, each as if it were alone."""
    model = wild_model(3)
    prompts = [[CAT, Segment("text", (1,))], [CAT], [], [BELL]]
    answers = [Segment("text", (2, 0, 1)), BELL, CAT, Segment("text", ())]
    found = log_likelihood(model, SMALL, prompts, answers)
    assert found.shape == (4,) and not found.requires_grad
    for value, prompt, target in zip(found, prompts, answers, strict=True):
        assert value.item() == pytest.approx(by_hand(model, prompt, target), rel=1e-4)
    with pytest.raises(ValueError, match="got 4 prompts and 3 answers"):
        log_likelihood(model, SMALL, prompts, answers[:3])


def test_equal_questions_are_weighed_once_and_many_in_several_batches(monkeypatch):
    model, asked, real = wild_model(3), [], rerank.sum_log_probs
    monkeypatch.setattr(rerank, "LIKELIHOOD_BATCH", 4)
    monkeypatch.setattr(rerank, "sum_log_probs", lambda m, v, pairs: asked.append(len(pairs)) or real(m, v, pairs))
    prompts = [[CAT, Segment("text", (i % 6,) * (i % 3 + 1))] for i in range(12)]
    answers = [Segment("text", (8 - i % 6,)) for i in range(12)]
    found = log_likelihood(model, SMALL, prompts, answers)
    assert asked == [4, 2], "six different questions"
    assert found.tolist() == pytest.approx([by_hand(model, p, a) for p, a in zip(prompts, answers)], rel=1e-4)
    assert log_likelihood(model, SMALL, [], []).shape == (0,)


def test_the_backward_likelihood_asks_what_the_answer_tells_of_the_target():
    model = wild_model(scale=1.0)
    found = backward_log_likelihood(model, SMALL, [BELL, CAT], [WORDS, BELL])
    assert found.tolist() == pytest.approx([by_hand(model, [BELL], WORDS), by_hand(model, [CAT], BELL)], rel=1e-4)


def test_the_retold_likelihood_puts_what_is_said_between():
    model = wild_model(6)
    (captioned,) = caption_first(model, SMALL, [[CAT]])
    assert len(captioned) == 2
    found = retold_log_likelihood(model, SMALL, [CAT], [BELL]).item()
    assert found == pytest.approx(by_hand(model, captioned, BELL), rel=1e-4)
    assert found != pytest.approx(by_hand(model, [CAT], BELL), rel=1e-2)


# ---------------------------------------------------------------- drafts and words

@pytest.mark.parametrize("score", [backward_log_likelihood, retold_log_likelihood])
def test_the_best_of_n_drafts_tells_the_target_best(score):
    model, prompts, targets = wild_model(scale=1.0), [[WORDS], [Segment("text", (3,))]], [WORDS, BELL]
    found = best_of_n(model, SMALL, prompts, "image", 6, targets, score, temperature=1.5, seed=3)
    every = generate(model, SMALL, prompts * 6, "image", temperature=1.5, seed=3)
    scores = score(model, SMALL, every, targets * 6)
    assert found == [best(every[i::2], scores[i::2]) for i in (0, 1)]
    assert len(set(scores.tolist())) > 6, "the drafts differ, so something was chosen"


def test_the_best_text_is_likely_both_ways():
    model, prompts = wild_model(8), [[CAT], [OTHER_CAT]]
    every = generate(model, SMALL, prompts * 5, "text", temperature=1.5, seed=2)
    scores = [by_hand(model, [text], prompt[0]) + by_hand(model, prompt, text) for prompt, text in zip(prompts * 5, every)]
    found = best_of_n(model, SMALL, prompts, "text", 5, [CAT, OTHER_CAT], temperature=1.5, seed=2)
    assert found == [best(every[i::2], scores[i::2]) for i in (0, 1)]


def test_one_draft_is_the_plain_answer_and_none_is_refused():
    model, prompts = wild_model(scale=1.0), [[WORDS], [CAT]]
    assert best_of_n(model, SMALL, prompts, "image", 1, [WORDS, CAT], seed=3) == generate(model, SMALL, prompts, "image", seed=3)
    assert best_of_n(model, SMALL, [], "image", 3, []) == []
    for n in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="best_of is a whole number"):
            best_of_n(model, SMALL, prompts, "text", n, [WORDS, CAT])


def test_captions_come_behind_the_prompt_the_likeliest_unless_asked_otherwise():
    model, prompts = wild_model(4), [[CAT], [BELL]]
    said = caption_first(model, SMALL, prompts)
    assert [p[:1] for p in said] == prompts
    assert [p[1] for p in said] == generate(model, SMALL, prompts, "text", temperature=0.0)
    drawn = caption_first(model, SMALL, prompts, best_of=3, temperature=1.5, seed=1)
    assert [p[1] for p in drawn] == answer_directly(model, SMALL, prompts, "text", 3, temperature=1.5, seed=1)
    assert caption_first(model, SMALL, []) == []


def test_a_question_in_words_has_no_picture_and_no_sound():
    model = wild_model(9)
    (_, cat_said), (_, bell_said) = caption_first(model, SMALL, [[CAT], [BELL]])
    prompts = [[CAT, WORDS], [WORDS, WORDS], [BELL, WORDS, CAT]]
    assert verbalize(model, SMALL, prompts) == [[[CAT, WORDS], [cat_said, WORDS]], [[WORDS, WORDS], [WORDS, WORDS]],
                                                [[BELL, WORDS, CAT], [bell_said, WORDS, cat_said]]]
    assert verbalize(model, SMALL, []) == []


def test_of_the_texts_that_several_views_propose_the_one_that_is_likely_after_all_of_them():
    ways = [[BELL], [Segment("audio", (1, 2))], [Segment("audio", (3, 0, 0, 3, 1, 1))]]
    others = [[Segment("audio", (0, 0))], [Segment("audio", (2, 2, 3, 3))]]
    differ = 0
    for seed in range(8):
        model = wild_model(seed, scale=8.0)
        for views, text in zip([ways, others], augmented_consensus(model, SMALL, [ways, others]), strict=True):
            proposals = generate(model, SMALL, views, "text", temperature=0.0)
            scores = [[by_hand(model, view, p) for view in views] for p in proposals]
            assert text == best(proposals, [sum(row) / len(row) for row in scores])
            differ += text != best(proposals, [max(row) for row in scores])
    assert differ, "the mean over the views decides, not the best of them"
    assert augmented_consensus(model, SMALL, [[[BELL]]]) == generate(model, SMALL, [[BELL]], "text", temperature=0.0)
    assert augmented_consensus(model, SMALL, []) == []


# ---------------------------------------------------------------- the strategies

def test_a_direct_answer_is_judged_by_the_last_segment_of_its_prompt():
    model, prompts = wild_model(5, scale=2.0), [[CAT, WORDS], [OTHER_CAT, WORDS]]
    first, last = (best_of_n(model, SMALL, prompts, "image", 12, [p[k] for p in prompts], seed=1) for k in (0, -1))
    assert answer_directly(model, SMALL, prompts, "image", 12, seed=1) == last != first


def test_a_sound_is_written_down_as_its_views_agree_or_else_directly():
    model, views = wild_model(9), [[[BELL], [Segment("audio", (1, 2))]]]
    assert answer_heard(model, SMALL, [[BELL]], "text", 3, views) == augmented_consensus(model, SMALL, views)
    assert answer_heard(model, SMALL, [[BELL]], "text", 3, seed=2) == answer_directly(model, SMALL, [[BELL]], "text", 3, seed=2)


def test_a_retold_answer_goes_on_from_words_and_is_judged_by_what_they_tell_of_the_question():
    differ = 0
    for seed in range(6):
        model = wild_model(seed, scale=4.0)
        said = caption_first(model, SMALL, [[BELL]], seed=3, **{**PRESETS["image", "text"].sampling, "best_of": 6})
        tries = generate(model, SMALL, said * 6, "image", seed=3)
        found = answer_retold(model, SMALL, [[BELL]], "image", 6, seed=3)
        assert found == [best(tries, retold_log_likelihood(model, SMALL, tries, [BELL] * 6))]
        differ += found != [best(tries, backward_log_likelihood(model, SMALL, tries, [BELL] * 6))]
    assert differ, "its own answer is put into words before it is judged"


def test_a_single_retold_answer_goes_on_from_the_likeliest_words_or_from_those_of_all_views():
    model = wild_model(5)
    likeliest = caption_first(model, SMALL, [[BELL]])
    assert answer_retold(model, SMALL, [[BELL]], "image", 1, seed=3) == generate(model, SMALL, likeliest, "image", seed=3)
    views = [[[BELL], [Segment("audio", (2, 2, 3, 3))]]]
    heard = [[BELL, augmented_consensus(model, SMALL, views)[0]]]
    assert answer_retold(model, SMALL, [[BELL]], "image", 1, views, seed=4) == generate(model, SMALL, heard, "image", seed=4)


def test_an_edit_says_what_it_means_to_draw_and_keeps_the_draft_that_shows_it():
    prompt, differ = [CAT, WORDS], 0
    for seed in range(6):
        model = wild_model(seed, scale=6.0, context=192)

        def expected(views, n=6, model=model):
            (said,) = augmented_consensus(model, SMALL, [views])
            tries = generate(model, SMALL, [[*prompt, said]] * n, "image", seed=3)
            return [best(tries, [by_hand(model, [picture], said) for picture in tries])]
        both = verbalize(model, SMALL, [prompt])[0]
        assert answer_edit(model, SMALL, [prompt], "image", 6, seed=3) == expected(both)
        assert answer_edit(model, SMALL, [prompt], "image", 6, views=[], seed=3) == expected([prompt])
        assert answer_edit(model, SMALL, [prompt], "image", 6, views=[both[1:]], seed=3) == expected(both[1:])
        differ += expected(both) != expected([prompt])
    assert differ, "by default the question in words alone is heard too; with views=[] it is not"


# ---------------------------------------------------------------- the table

def test_every_kind_of_prompt_has_a_preset():
    assert preset([WORDS], "image") is PRESETS["text", "image"] and preset([CAT, WORDS], "image").strategy is answer_edit
    assert preset([CAT, WORDS], "text").sampling == {"best_of": 1, "temperature": 0.0, "guidance": 1.0}
    assert preset([WORDS, WORDS], "image") is PRESETS["text", "image"], "what the table lacks goes by what is wanted"
    assert preset([CAT, CAT, CAT], "audio") is PRESETS["text", "audio"]
    said = {key for key, value in PRESETS.items() if value.says_first}
    assert said == {("audio", "image"), ("image", "audio"), ("image", "text", "image")}


@pytest.fixture
def asked(monkeypatch):
    """How each strategy was called: name, prompts, settings. Nothing is generated."""
    calls = []
    for name in ("answer_directly", "answer_heard", "answer_retold", "answer_edit"):
        def strategy(model, vocabulary, prompts, want, name=name, **settings):
            calls.append((name, settings))
            return [Segment(want, ())] * len(prompts)
        for key, value in PRESETS.items():
            if value.strategy is getattr(rerank, name):
                monkeypatch.setitem(PRESETS, key, rerank.Preset(strategy, value.best_of, value.temperature, value.guidance))
        monkeypatch.setattr(rerank, name, strategy)
    return calls


@pytest.mark.parametrize(("prompt", "want", "say_first", "strategy"), [
    ([BELL], "image", None, "answer_retold"), ([BELL], "image", True, "answer_retold"), ([BELL], "image", False, "answer_directly"),
    ([CAT], "audio", False, "answer_directly"), ([CAT, WORDS], "image", None, "answer_edit"),
    ([CAT, WORDS], "image", False, "answer_directly"), ([CAT], "image", None, "answer_directly"),
    ([CAT], "image", True, "answer_retold"), ([BELL, WORDS], "image", True, "answer_edit"),
    ([BELL], "text", None, "answer_heard"), ([BELL], "text", False, "answer_heard"), ([WORDS], "image", None, "answer_directly"),
])
def test_the_direction_and_the_wish_to_say_first_choose_the_strategy(asked, prompt, want, say_first, strategy):
    answer(None, SMALL, [prompt, prompt], want, say_first=say_first, seed=3)
    (name, settings), = asked
    assert name == strategy and settings == {**rerank.preset(prompt, want).sampling, "seed": 3}


def test_what_is_asked_for_wins_over_the_preset_and_views_go_where_words_are(asked):
    views = [[[BELL]]]
    answer(None, SMALL, [[BELL]], "image", best_of=2, temperature=0.1, top_p=0.5, views=views)
    answer(None, SMALL, [[BELL]], "image", say_first=False, views=views)
    answer(None, SMALL, [[CAT, WORDS]], "image", views=[])
    assert asked[0] == ("answer_retold", {"best_of": 2, "temperature": 0.1, "guidance": 1.5, "top_p": 0.5, "views": views})
    assert "views" not in asked[1][1] and asked[2][1]["views"] == []


def test_a_batch_is_answered_as_its_strategy_does():
    model, prompts = wild_model(scale=1.0), [[WORDS], [Segment("text", (3,))]]
    sampling = {"best_of": 8, "temperature": 1.0, "guidance": 1.5}
    assert answer(model, SMALL, prompts, "image", seed=5) == answer_directly(model, SMALL, prompts, "image", seed=5, **sampling)
    assert answer(model, SMALL, [], "image") == []


@pytest.mark.parametrize("prompts", [[[BELL], [CAT]], [[CAT, WORDS], [CAT]], [[CAT, WORDS], [WORDS, CAT]], [[], [WORDS]]])
def test_a_mixed_batch_is_refused(prompts):
    with pytest.raises(ValueError, match="same modalities in the same order"):
        answer(wild_model(), SMALL, prompts, "image")
