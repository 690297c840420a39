"""Conversations as tokens: what was given comes back from them, old turns are left out whole, and a model can learn from them."""
from collections import Counter

import numpy as np
import pytest
import torch

from mmcourse.experiments import conversations as module
from mmcourse.experiments.conversations import Conversations, converse, first_that_fits, speech_jobs
from mmcourse.generate import content_limit
from mmcourse.optim import Optim
from mmcourse.posttraining import mark, post_train
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment
from mmcourse.world import speech
from mmcourse.world.dialogues import Part, Turn
from mmcourse.world.outside import PICTURES
from mmcourse.world.scene import held_out_voice

MODALITY = {"text": "text", "image": "image", "spoken": "audio"}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCOURSE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def data(folder):
    return Conversations("train", 24, 3, rows=6, progress=False)


def modality(part: Part) -> str:
    return MODALITY.get(part.kind) or ("image" if part.value in PICTURES else "audio")


def small(data) -> Transformer:
    torch.manual_seed(0)
    return Transformer(data.vocabulary.size, width=16, layers=1, heads=2, context=data.context, segment_starts=tuple(OPEN.values()))


def test_a_question_holds_all_that_was_said_and_a_right_answer(data):
    asked = [(i, j, data.question(i, j, rng(i))) for i, j in data.turns]
    assert len(asked) == sum(map(len, data.talks)) and {question.want for *_, question in asked} == {"text", "image", "audio"}
    for i, j, question in asked:
        talk = data.talks[i][:j + 1]
        parts = [part for turn in talk[:-1] for part in (*turn.given, turn.answer)] + [*talk[-1].given]
        assert [segment.modality for segment in question.prompt] == [modality(part) for part in parts]
        assert question.truth is talk[-1] and question.want == question.answer.modality == modality(talk[-1].answer)
        for part, segment in zip([*parts, talk[-1].answer], [*question.prompt, question.answer], strict=True):
            if part.kind == "text":
                assert data.bpe.decode(segment.ids) == " " + part.value
            elif part.kind == "image":
                assert segment.ids == tuple(data.pictures[part.value].tolist())
        assert len(question.answer.ids) <= content_limit(data.vocabulary, question.want)


def test_the_vocabulary_is_the_shipped_models(data):
    from mmcourse import checkpoints
    assert data.vocabulary.config == checkpoints.manifest()["transformer"]["vocabulary"]


def test_a_picture_is_encoded_as_the_tokenizer_does(data):
    from mmcourse.world.pictures import draw_batch
    for scene, tokens in list(data.pictures.items())[::9]:
        assert data.vqvae.encode(draw_batch([scene])).flatten().tolist() == tokens.tolist()


def test_answers_are_clean_and_what_is_heard_in_training_never_the_same_twice(data):
    word = next(turn.answer.value for talk in data.talks for turn in talk if turn.answer.kind == "spoken")
    part = Part("spoken", word)
    clean = {tuple(data.said.tokens[i].tolist()) for i in data.said.with_word[word]}
    assert {data.segment(part, rng(seed), answer=True).ids for seed in range(30)} == clean and len(clean) == module.TAKES["train"]
    heard = {data.segment(part, rng(seed)).ids for seed in range(30)}
    assert len(heard) > 25 and not heard <= clean
    assert len(data.heard.tokens) == 2 * len(data.said.tokens)


def test_who_speaks():
    jobs, words = speech_jobs(["cat", "say cat", "make the sign A B A"], "train")
    assert words == ["cat"] * 3 + ["say cat"] * 3 + ["make the sign A B A"] * 3 and jobs[-1][0] == "make the sign eigh B eigh"
    assert not any(held_out_voice(voice) for _, voice, *_ in jobs) and all(len({job[1] for job in jobs[i:i + 3]}) == 3 for i in (0, 3, 6))
    assert all(held_out_voice(voice) for _, voice, *_ in speech_jobs(["cat", "dog"], "test")[0])
    assert speech_jobs(["cat"], "train")[0] == jobs[:3], "how a text is said depends on it alone"


def test_made_once(data, monkeypatch):
    monkeypatch.setattr(speech, "speak", None)                             # from here on nobody can speak
    monkeypatch.setattr("mmcourse.vqvae.VQVAE.encode", None)               # nor see
    monkeypatch.setattr("mmcourse.codec.AudioCodec.encode", None)          # nor hear
    again = Conversations("train", 24, 3, progress=False)
    assert [again.question(i, j, rng(1)) for i, j in again.turns] == [data.question(i, j, rng(1)) for i, j in data.turns]


def test_the_other_splits_are_heard_as_they_are(folder):
    data = Conversations("validation", 6, 2, progress=False)
    assert [data.question(i, j, rng(1)).answer for i, j in data.turns] == [data.question(i, j, rng(2)).answer for i, j in data.turns]
    assert len(data.heard.tokens) == len(data.said.tokens) == len(set(data.said.words))


# ---------------------------------------------------------------- what does not fit

def test_the_oldest_turns_are_left_out_whole():
    turns = [[Segment("text", (1,) * 8)], [Segment("text", (1,) * 18), Segment("text", (2,) * 8)], [Segment("text", (1,) * 3)]]
    assert [first_that_fits(turns, room) for room in (45, 44, 35, 34, 5)] == [0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="a turn has 5 tokens, and there is room for 4"):
        first_that_fits(turns, 4)


def test_a_question_about_a_picture_that_was_left_out_is_not_asked(data, monkeypatch):
    scene = next(iter(data.pictures))
    first = Turn((Part("image", scene), Part("text", "what is it?")), Part("text", "cat"), "name", about=0)
    monkeypatch.setattr(data, "talks", [(first, Turn((Part("text", "describe it"),), Part("text", "a cat"), "describe", about=0),
                                         Turn((Part("text", "a cat on the left"),), Part("image", scene), "draw"))])
    whole = data.question(0, 2, rng())
    assert [s.modality for s in whole.prompt] == ["image", "text", "text", "text", "text", "text"]
    last = sum(len(s.ids) + 2 for s in whole.prompt[2:])
    monkeypatch.setattr(data, "context", last + 64 + 2)
    assert data.question(0, 2, rng()).prompt == whole.prompt[3:], "a turn goes as a whole, or its picture would be lost unseen"
    monkeypatch.setattr(data, "context", 90)
    assert data.question(0, 1, rng()) is None
    ids, weights = data.row(0, rng())
    described = data.vocabulary.pack([Segment("text", tuple(data.bpe.encode(" a cat")))])
    start = next(i for i in range(len(ids)) if ids[i:i + len(described)] == described)
    assert weights[start:start + len(described)] == [0.0] * len(described) and weights[-66:] == [1.0] * 66


def test_a_voice_that_takes_too_long_is_named(data, monkeypatch):
    monkeypatch.setattr(module, "content_limit", lambda vocabulary, want: 4)
    with pytest.raises(ValueError, match="a voice takes too long for '.*: lower LONGEST_REQUEST or LONGEST_ANSWER"):
        Conversations("train", 24, 3, progress=False)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="conversations have the splits train, validation, test, got 'any'"):
        Conversations("any")


# ---------------------------------------------------------------- marks, and learning

def test_right_texts_and_pictures_are_rewarded_and_nothing_else(data):
    asked = [data.question(i, j, rng()) for i, j in data.turns]
    task = converse(data=data)
    assert task.name == "converse" and len(task.ask(rng(), 5)) == 5
    marks = mark(task, asked, [question.answer for question in asked]).tolist()
    assert marks == [float(question.want != "audio") for question in asked]
    texts = [question for question in asked if question.want == "text"]
    wrong = Segment("text", tuple(data.bpe.encode(" a zebra")))
    assert mark(task, texts, [wrong] * len(texts)).sum() == 0
    pictures = [question for question in asked if question.want == "image"]
    others = [question.answer for question in pictures[1:] + pictures[:1]]
    different = [a.truth.answer.value != b.truth.answer.value for a, b in zip(pictures, pictures[1:] + pictures[:1])]
    assert mark(task, pictures, others).tolist() == [float(not d) for d in different] and any(different)
    assert mark(task, pictures, [wrong] * len(pictures)).sum() == 0, "a text is no picture"
    assert mark(task, texts, [others[0]] * len(texts)).sum() == 0


def test_rows_count_answers_with_the_token_that_opens_them(data):
    for i in range(len(data.talks)):
        ids, weights = data.row(i, rng(i))
        assert len(ids) == len(weights) <= data.context
        segments = data.vocabulary.unpack(ids)
        wanted, at = [], 0
        for turn in data.talks[i]:
            for part in (*turn.given, turn.answer):
                weight = 1.0 if part is turn.answer and modality(part) != "text" else module.TEXT_WEIGHT
                wanted.append(weight if part is turn.answer else module.GIVEN_WEIGHT[modality(part)])
        for segment, weight in zip(segments, wanted, strict=True):
            length = len(segment.ids) + 2
            assert weights[at:at + length] == [weight] * length
            at += length


def test_a_model_learns_from_turns_and_from_whole_conversations(data):
    model = small(data)
    history = post_train(model, data.vocabulary, [converse(data=data)], "sft", steps=2, prompts=3, optim=Optim(lr=1e-3, warmup=1),
                         run=Run(progress=False))
    assert len(history.rows) and np.isfinite(history.rows[-1]["loss"])
    batch = data.batch(rng())
    assert Counter(x.dtype for x in batch) == {torch.long: len(batch) // 2, torch.float: len(batch) // 2}
    assert sum(len(x) for x in batch[::2]) == data.rows
    from mmcourse.dataset import mixture_loss
    before = mixture_loss(model, *batch)["loss"].item()
    train(model, lambda dice: batch, mixture_loss, steps=8, optim=Optim(lr=1e-2, warmup=1), run=Run(progress=False))
    assert mixture_loss(model, *batch)["loss"].item() < before - 0.5
