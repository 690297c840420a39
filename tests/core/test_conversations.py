"""Conversations as tokens: what is given comes back from them, old turns are left out whole, and a model can learn from them."""
from collections import Counter

import numpy as np
import pytest
import torch

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
from mmcourse.vocabulary import CLOSE, OPEN, Segment, Vocabulary
from mmcourse.world import speech
from mmcourse.world.dialogues import UNKNOWN, Part
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
    return Talks(bpe, Vocabulary(bpe.vocab_size), talks=60, rows=6)


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
    assert len(data.heard.tokens) == len(data.said.tokens) == len(set(data.said.words))


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


def test_rows_count_the_kind_and_the_words_of_answers_and_nothing_else(talks):
    """Of a text each token counts, of an answer that is drawn or spoken what opens it, the words, and what closes these."""
    kinds = Counter()
    for i, talk in enumerate(talks.talks):
        ids, weights = talks.row(i)
        segments, wanted = iter(talks.vocabulary.unpack(ids)), []
        for turn in talk:
            for part in turn.given:
                for stands in talks.part(part):
                    assert next(segments) == stands
                    wanted += [0.0] * (len(stands.ids) + 2)
            kind = modality(turn.answer)
            if kind != "text":
                assert next(segments) == Segment(kind, ())
                wanted += [1.0, 0.0, 0.0]                               # <image> </image> <text>
            words = next(segments)
            assert talks.bpe.decode(words.ids) == " " + told(turn.answer)
            wanted += [1.0] * (len(words.ids) + (2 if kind == "text" else 1))
            kinds[kind] += 1
        assert weights == wanted and next(segments, None) is None
    assert min(kinds[kind] for kind in OPEN) > 5
    counted = {token for i in range(60) for token, weight in zip(*talks.row(i)) if weight}
    assert set(OPEN.values()) | {CLOSE["text"]} < counted and not {CLOSE["image"], CLOSE["audio"]} & counted


def test_of_a_long_conversation_a_row_has_the_newest_turns_whole(talks, monkeypatch):
    whole, longest = [talks.row(i) for i in range(60)], max(len(talks.row(i)[0]) for i in range(60))
    assert longest <= talks.context
    monkeypatch.setattr(talks, "context", longest // 2)
    for i, (ids, weights) in enumerate(whole):
        lengths = [len(talks.vocabulary.pack([segment for part in talks.turn(turn) for segment in part])) for turn in talks.talks[i]]
        kept = max(sum(lengths[first:]) for first in range(len(lengths)) if sum(lengths[first:]) <= longest // 2)
        assert talks.row(i) == (ids[-kept:], weights[-kept:])
    assert any(len(talks.row(i)[0]) < len(ids) for i, (ids, _) in enumerate(whole))


def test_conversations_of_a_split_are_the_same_however_many(talks):
    other = Talks(talks.bpe, talks.vocabulary, talks=10)
    assert other.talks == talks.talks[:10]
    assert Talks(talks.bpe, talks.vocabulary, "validation", 10).talks != other.talks


def test_a_model_learns_from_whole_conversations(talks):
    batch = talks.batch(rng())
    assert Counter(x.dtype for x in batch) == {torch.long: len(batch) // 2, torch.float: len(batch) // 2}
    assert sum(len(x) for x in batch[::2]) == talks.rows and all(a.shape == b.shape for a, b in zip(batch[::2], batch[1::2]))
    assert all(torch.equal(a, b) for a, b in zip(batch, talks.batch(rng()))) and len(batch[0]) < talks.rows
    torch.manual_seed(0)
    model = Transformer(talks.vocabulary.size, width=16, layers=1, heads=2, context=talks.context, segment_starts=tuple(OPEN.values()))
    before = mixture_loss(model, *batch)["loss"].item()
    train(model, lambda dice: batch, mixture_loss, steps=8, optim=Optim(lr=1e-2, warmup=1), run=Run(progress=False))
    assert mixture_loss(model, *batch)["loss"].item() < before - 0.5
