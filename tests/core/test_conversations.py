"""Conversations as tokens: what is given comes back from them, each turn stands after the true picture of now, and a model can
learn from them."""
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import pictures_of_now

from mmcourse.bpe import BPETokenizer
from mmcourse.chat import in_words
from mmcourse.dataset import mixture_loss
from mmcourse.experiments import conversations as module
from mmcourse.experiments.conversations import Conversations, Talks, modality, speech_jobs, told
from mmcourse.generate import content_limit
from mmcourse.optim import Optim
from mmcourse.paths import CHECKPOINTS
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, OPEN, PAD, Segment, Vocabulary
from mmcourse.world import speech
from mmcourse.world.dialogues import KINDS, UNKNOWN, Part
from mmcourse.world.outside import PICTURES, SOUNDS
from mmcourse.world.scene import WORLD, held_out_voice


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
    return Conversations("train", 24, 3, progress=False)


@pytest.fixture(scope="module")
def talks():
    bpe = BPETokenizer.load(CHECKPOINTS / "bpe.json")
    return Talks(bpe, Vocabulary(bpe.vocab_size), talks=200, rows=6)


# ---------------------------------------------------------------- pictures and sounds

def test_what_is_given_comes_as_it_was_said_shown_and_played(data):
    kinds = set()
    for turn in (turn for talk in data.talks for turn in talk):
        for part, segment in zip(turn.given, data.given(turn, rng()), strict=True):
            assert segment.modality == modality(part)
            kinds.add(part.kind)
            if part.kind == "text":
                assert data.bpe.decode(segment.ids) == " " + part.value
            elif part.kind == "image":
                assert segment.ids == tuple(data.pictures[part.value].tolist())
            else:
                pool = data.outside[part.value] if part.kind == "outside" else [data.heard.tokens[i] for i in data.heard.with_word[part.value]]
                assert segment.ids in {tuple(tokens.tolist()) for tokens in pool}
        assert len(data.segment(turn.answer, rng(), answer=True).ids) <= content_limit(data.vocabulary, modality(turn.answer))
    assert kinds == {"text", "image", "spoken", "outside"}
    assert set(data.outside) == {*PICTURES, *SOUNDS} and all(len(pool) == 3 for pool in data.outside.values())


def test_the_vocabulary_is_the_shipped_models(data):
    from mmcourse import checkpoints
    assert data.vocabulary.config == checkpoints.manifest()["transformer"]["vocabulary"]


def test_a_picture_is_encoded_as_the_tokenizer_does(data):
    from mmcourse.world.pictures import draw_batch
    for scene, tokens in list(data.pictures.items())[::9]:
        assert data.vqvae.encode(draw_batch([scene])).flatten().tolist() == tokens.tolist()


def test_answers_are_clean_and_in_training_all_is_also_heard_through_another_throat(data):
    word = next(turn.answer.value for talk in data.talks for turn in talk if turn.answer.kind == "spoken")
    clean = {tuple(data.said.tokens[i].tolist()) for i in data.said.with_word[word]}
    said, heard = ({data.segment(Part("spoken", word), rng(seed), answer).ids for seed in range(60)} for answer in (True, False))
    assert said == clean and len(clean) == module.TAKES["train"]
    assert len(heard) == 2 * len(clean) and clean < heard and len(data.heard.tokens) == 2 * len(data.said.tokens)


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
    turns = [turn for talk in data.talks for turn in talk]
    assert [again.given(turn, rng(1)) for turn in turns] == [data.given(turn, rng(1)) for turn in turns] and again.talks == data.talks


def test_the_other_splits_are_heard_as_they_are(folder):
    data = Conversations("validation", 6, 2, progress=False)
    assert len(data.heard.tokens) == len(data.said.tokens) == module.TAKES["validation"] * len(set(data.said.words))


def test_a_voice_that_takes_too_long_is_named(data, monkeypatch):
    monkeypatch.setattr(module, "content_limit", lambda vocabulary, want: 4)
    with pytest.raises(ValueError, match="a voice takes too long for '.*: lower LONGEST_REQUEST or LONGEST_ANSWER"):
        Conversations("train", 24, 3, progress=False)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="conversations have the splits train, validation, test, got 'any'"):
        Conversations("any")


# ---------------------------------------------------------------- in words

def test_parts_stand_in_what_is_learned_as_they_stand_in_a_conversation(data, talks):
    for part in (part for talk in data.talks for turn in talk for part in (*turn.given, turn.answer)):
        words = Segment("text", tuple(data.bpe.encode(" " + told(part))))
        assert talks.part(part) == in_words(data.segment(part, rng()), None if part.kind == "text" else words)


def test_what_is_told_of_a_part(data):
    scene = next(iter(data.pictures))
    assert [told(Part(*part)) for part in (("text", "a cat"), ("spoken", "a cat"), ("image", scene))] == ["a cat", "a cat", WORLD.caption(scene)]
    assert {told(Part("outside", name)) for name in (*PICTURES, *SOUNDS)} == {UNKNOWN}
    assert [modality(Part("outside", name)) for name in (PICTURES[0], SOUNDS[0])] == ["image", "audio"]


def by_hand(talks, part) -> list[int]:
    """The ids of a part as it stands in a conversation: a picture or a sound is empty, and its words follow."""
    words = [OPEN["text"], *(7 + i for i in talks.bpe.encode(" " + told(part))), CLOSE["text"]]
    kind = modality(part)
    return words if kind == "text" else [OPEN[kind], CLOSE[kind], *words]


def test_each_turn_is_a_row_of_the_true_picture_of_now_what_is_given_and_the_answer(talks):
    """Of a text each token counts, of an answer that is drawn or spoken what opens it, the words, and what closes these."""
    after, answers = Counter(), Counter()
    for talk in talks.talks:
        found = [talks.row(*turn) for turn in talks.turns(talk)]
        for turn, now, (ids, weights) in zip(talk, pictures_of_now(talk), found, strict=True):
            shown = any(modality(part) == "image" for part in turn.given)
            before = [] if shown or now is None else by_hand(talks, now)
            given, answer = sum((by_hand(talks, part) for part in turn.given), before), by_hand(talks, turn.answer)
            assert ids == given + answer
            opened = 0 if modality(turn.answer) == "text" else 3        # <image> </image> <text>
            assert weights == [0.0] * len(given) + [1.0, 0.0, 0.0][:opened] + [1.0] * (len(answer) - opened)
            after["none" if now is None else now.kind, turn.kind, shown] += 1
            answers[modality(turn.answer)] += 1
    assert min(answers[kind] for kind in OPEN) > 5
    assert {kind for now, kind, shown in after if now == "image" and not shown} == set(KINDS), "every kind of turn, and the picture stays"
    assert {kind for now, kind, shown in after if now == "image" and shown} == {"change", "ask", "describe", "name", "refuse"}
    assert {now for now, *_ in after} == {"none", "image", "outside"}


def test_what_a_turn_is_about_is_the_picture_of_now(talks):
    """As the conversation itself counts: the number of the turn that showed or drew it."""
    checked = Counter()
    for talk in talks.talks:
        for turn, (given, _) in zip(talk, talks.turns(talk), strict=True):
            if turn.about is not None:
                then = talk[turn.about]
                there = then.given if then is turn else (*then.given, then.answer)
                picture = [part for part in there if part.kind == "image"][-1]
                assert talks.vocabulary.pack([segment for segment in given if segment.modality == "image"]) == [OPEN["image"], CLOSE["image"]]
                at = given.index(Segment("image", ()))
                assert talks.vocabulary.pack(given[at:at + 2]) == by_hand(talks, picture)
                checked[then is turn] += 1
    assert min(checked[True], checked[False]) > 20


def test_a_weight_is_that_of_all_that_counts(talks):
    heavy = Talks(talks.bpe, talks.vocabulary, talks=4, weight=4.0)
    for turn in (turn for talk in heavy.talks for turn in heavy.turns(talk)):
        (ids, weights), (same, ones) = heavy.row(*turn), talks.row(*turn)
        assert ids == same and weights == [4.0 * one for one in ones]


def test_a_short_answer_counts_for_so_many_tokens_at_least(talks):
    fair = Talks(talks.bpe, talks.vocabulary, talks=4, least=8)
    for turn in (turn for talk in talks.talks for turn in talks.turns(talk)):
        (_, weights), (_, ones) = fair.row(*turn), talks.row(*turn)
        words = len(turn[1][-1].ids)
        assert weights == [one * max(1, 8 / words) for one in ones]


def test_turns_that_are_no_questions_may_be_left_out(talks):
    only = Talks(talks.bpe, talks.vocabulary, talks=12, rows=40, others=0.0)
    asked = {tuple(only.row(*pair)[0]) for talk in only.talks for turn, pair in zip(talk, only.turns(talk)) if turn.kind == "ask"}
    rows = [tuple(row[row != 0].tolist()) for ids in only.batch(rng(1))[::2] for row in ids]
    assert len(rows) == 40 and set(rows) <= asked and len(asked) > 5


def test_conversations_of_a_split_are_the_same_however_many(talks):
    other = Talks(talks.bpe, talks.vocabulary, talks=10)
    assert other.talks == talks.talks[:10]
    assert Talks(talks.bpe, talks.vocabulary, "validation", 10).talks != other.talks


@pytest.mark.parametrize("rows, sizes", [(1, [1]), (6, [2, 2, 2]), (7, [2, 2, 2, 1]), (96, [24] * 4)])
def test_a_batch_has_as_many_turns_as_rows_in_parts_of_similar_length(talks, monkeypatch, rows, sizes):
    monkeypatch.setattr(talks, "rows", rows)
    batch, dice, wanted = talks.batch(rng(3)), rng(3), []
    while len(wanted) < rows:
        wanted += [talks.row(*turn) for turn in talks.turns(talks.talks[dice.integers(200)])]
    found = []
    for ids, weights in zip(batch[::2], batch[1::2], strict=True):
        assert ids.shape == weights.shape and ids.dtype == torch.long and weights.dtype == torch.float
        lengths = (ids != PAD).sum(1).tolist()
        assert max(lengths) == ids.shape[1] and lengths == sorted(lengths)
        assert not any(weights[i, n:].any() for i, n in enumerate(lengths)), "padding counts nothing"
        found += [(row[:n].tolist(), weight[:n].tolist()) for row, weight, n in zip(ids, weights, lengths)]
    assert [len(ids) for ids in batch[::2]] == sizes and sorted(found) == sorted(wanted[:rows])
    assert [len(ids) for ids, _ in found] == sorted(len(ids) for ids, _ in found)


def test_a_model_learns_from_turns(talks):
    batch = talks.batch(rng())
    assert all(torch.equal(a, b) for a, b in zip(batch, talks.batch(rng()), strict=True))
    torch.manual_seed(0)
    model = Transformer(talks.vocabulary.size, width=16, layers=1, heads=2, context=256, segment_starts=tuple(OPEN.values()))
    before = mixture_loss(model, *batch)["loss"].item()
    train(model, lambda dice: batch, mixture_loss, steps=8, optim=Optim(lr=1e-2, warmup=1), run=Run(progress=False))
    assert mixture_loss(model, *batch)["loss"].item() < before - 0.5
