"""Conversations as tokens: what was given comes back from them, old turns are left out whole, and a model can learn from them."""
from collections import Counter

import numpy as np
import pytest
import torch

from mmcourse.chat import room_for_prompt
from mmcourse.experiments import conversations as module
from mmcourse.experiments.conversations import Conversations, converse, in_words, speech_jobs
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


def test_a_question_holds_all_that_was_said_and_a_right_answer(data, monkeypatch):
    monkeypatch.setattr(data, "context", 4096)                          # nothing is left out
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

def test_a_question_about_a_picture_that_was_left_out_is_not_asked(data, monkeypatch):
    scene = next(iter(data.pictures))
    first = Turn((Part("image", scene), Part("text", "what is it?")), Part("text", "cat"), "name", about=0)
    monkeypatch.setattr(data, "talks", [(first, Turn((Part("text", "describe it"),), Part("text", "a cat"), "describe", about=0),
                                         Turn((Part("text", "a cat on the left"),), Part("image", scene), "draw"))])
    whole = data.question(0, 2, rng())
    assert [s.modality for s in whole.prompt] == ["image", "text", "text", "text", "text", "text"]
    answer = -room_for_prompt(data.vocabulary, 0)                       # tokens that are kept free for it
    last = sum(len(s.ids) + 2 for s in whole.prompt[2:])
    monkeypatch.setattr(data, "context", last + answer)
    assert data.question(0, 2, rng()).prompt == whole.prompt[3:], "a turn goes as a whole, or its picture would be lost unseen"
    asked = sum(len(s.ids) + 2 for s in whole.prompt[:4])
    monkeypatch.setattr(data, "context", asked + answer)
    assert data.question(0, 1, rng()).prompt == whole.prompt[:4]
    monkeypatch.setattr(data, "context", asked + answer - 1)
    assert data.question(0, 1, rng()) is None


@pytest.mark.parametrize("thinks", [0.0, 1.0])
def test_an_answer_about_a_picture_that_was_left_out_counts_nothing(data, monkeypatch, thinks):
    scene = next(iter(data.pictures))
    shown = Turn((Part("image", scene), Part("text", "what is it?")), Part("text", "cat"), "name", about=0)
    described = Turn((Part("text", "describe it"),), Part("text", "a cat"), "describe", about=0)
    changed = Turn((Part("text", "make the ground red"),), Part("image", scene), "change", about=0)
    drawn = Turn((Part("text", "a cat on the left"),), Part("image", scene), "draw")
    monkeypatch.setattr(data, "talks", [(shown, described, changed, drawn)])
    monkeypatch.setattr(module, "THINKS", thinks)
    whole, counted = data.row(0, rng())
    assert len(whole) <= data.context
    monkeypatch.setattr(data, "context", len(whole) - 1)
    ids, weights = data.row(0, rng())
    assert ids == whole[-len(ids):] and len(data.vocabulary.unpack(ids)) == 6 + 2 * thinks, "one turn less"
    last = len(data.vocabulary.pack(data.turn(drawn, rng(), words=bool(thinks))))
    given = [module.GIVEN_WEIGHT["text"]] * sum(len(data.bpe.encode(f" {turn.given[0].value}")) + 2 for turn in (described, changed))
    assert [weight for weight in weights[:-last] if weight] == given and weights[-last:] == counted[-last:]
    assert counted[len(whole) - len(ids):-last].count(0.0) == thinks, "but for the opener of words all of it counted before"


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


def test_rows_fit_and_are_the_newest_turns(data, monkeypatch):
    rows = [data.row(i, rng(i)) for i in range(len(data.talks))]
    assert all(len(ids) == len(weights) <= data.context for ids, weights in rows)
    context = data.context
    monkeypatch.setattr(data, "context", 4096)
    whole = [data.row(i, rng(i))[0] for i in range(len(data.talks))]
    assert all(long[-len(ids):] == ids and (ids == long or len(long) > context) for (ids, _), long in zip(rows, whole))


def test_rows_count_answers_with_the_token_that_opens_them(data, monkeypatch):
    """What opens an answer counts 1, whatever it opens; what opens the words before one counts nothing."""
    monkeypatch.setattr(data, "context", 4096)                          # nothing is left out
    for i, talk in enumerate(data.talks):
        ids, weights = data.row(i, rng(i))
        segments, wanted = iter(data.vocabulary.unpack(ids)), []
        for turn in talk:
            for part in turn.given:
                wanted += [module.GIVEN_WEIGHT[modality(part)]] * (len(next(segments).ids) + 2)
            segment = next(segments)
            if modality(turn.answer) != "text" == segment.modality:
                wanted += [0.0] + [module.TEXT_WEIGHT] * (len(segment.ids) + 1)
                segment = next(segments)
            assert segment.modality == modality(turn.answer)
            wanted += [1.0] + [module.TEXT_WEIGHT if segment.modality == "text" else 1.0] * (len(segment.ids) + 1)
        assert weights == wanted and next(segments, None) is None


def words_before(data, seeds: range) -> list[bool]:
    """For each answer that is no text, in each of the rows: whether words come before it. All else is as it was given."""
    found = []
    for i, seed in ((i, seed) for i in range(len(data.talks)) for seed in seeds):
        segments = data.vocabulary.unpack(data.row(i, rng(seed))[0])
        for turn in data.talks[i]:
            del segments[:len(turn.given)]
            if modality(turn.answer) != "text":
                found.append(segments[0].modality == "text")
                if found[-1]:
                    assert data.bpe.decode(segments.pop(0).ids) == " " + in_words(turn.answer)
            assert segments.pop(0).modality == modality(turn.answer)
        assert not segments, "no words come before a text"
    return found


def test_words_come_before_about_half_of_the_pictures_and_voices(data, monkeypatch):
    monkeypatch.setattr(data, "context", 4096)
    found = words_before(data, range(12))
    assert len(found) > 250 and np.mean(found) == pytest.approx(module.THINKS, abs=4 * (0.25 / len(found)) ** 0.5)
    for thinks in (0.0, 1.0):
        monkeypatch.setattr(module, "THINKS", thinks)
        assert set(words_before(data, range(1))) == {bool(thinks)}
    scene = next(iter(data.pictures))
    assert in_words(Part("image", scene)) == module.WORLD.caption(scene) and in_words(Part("spoken", "cat")) == "cat"


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
