"""The model that converses: batches of conversations and rehearsal, words and phrases in their shares, more room, two runs."""
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SMALL, Letters, wild_model

from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.dataset import DIRECTIONS, GIVEN_WEIGHT, Clips, mixture_loss, pad, training_edits
from mmcourse.generate import content_limit, generate
from mmcourse.posttraining import Question, Task
from mmcourse.recipes import chat as recipe
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world import edits, speech
from mmcourse.world.dialogues import UNKNOWN, Part, Turn
from mmcourse.world.outside import PICTURES, SOUNDS
from mmcourse.world.phrases import LONGEST
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import WORLD, sample_scene

PHRASE = "say cat"
VOCABULARY = Vocabulary(100, 64, 64, 2)
ROWS = recipe.STAGES[0].rows            # all directions that a stage has


OUTSIDE = {name: [np.full(64, 60)] for name in PICTURES} | {name: [np.full(24, 60)] for name in SOUNDS}


@pytest.fixture
def mixture():
    """The recipe's own kind of mixture, of random tokens: words of three frames, phrases of nine, noise of twelve."""
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(4)]
    nouns = sorted({scene.groups[0].noun for scene in scenes})
    words, phrases = Clips([np.arange(6) for _ in nouns], nouns), Clips([np.arange(18)], [PHRASE])
    return recipe.Rehearsal(
        VOCABULARY, Letters(), scenes, rng.integers(60, size=(4, 64)), words, ROWS, recipe.TEXT_WEIGHT,
        edits=(training_edits(60), rng.integers(60, size=(60, 2, 64))), kinds=recipe.KINDS, people=words,
        people_share=recipe.SOUND.people, phrases=phrases, heard_phrases=phrases, requests=[PHRASE], outside=OUTSIDE)


def test_the_tables_ask_for_what_there_is():
    for stage in recipe.STAGES:
        assert 0 < stage.phrases < 1 and stage.schedule in (0, *range(stage.steps + 1, 10 * stage.steps))
        assert set(stage.rows) <= set(ROWS) <= set(DIRECTIONS) and all(n > 0 for n in stage.rows.values())
    assert set(recipe.KINDS) == {*edits.KINDS, "long sign", "noun of two"}
    assert set(recipe.OUTSIDE) < set(ROWS) and all(0 < share < 1 for share in recipe.OUTSIDE.values())


def segments_of(mixture, name: str, n: int) -> list[list[Segment]]:
    """`n` rows of a direction, as the model sees them."""
    rng = np.random.default_rng(1)
    return [mixture.vocabulary.unpack(mixture.row(name, rng)[0]) for _ in range(n)]


def test_phrases_are_said_and_written_down_in_their_share_and_only_where_no_word_is_asked_for(mixture):
    text, unknown = mixture.text(PHRASE), mixture.text(UNKNOWN)
    both = {"audio->text", "text->audio"}
    for name in both:
        for mixture.phrase_share in (0.6, 0.2):
            rows = segments_of(mixture, name, 600)
            assert np.mean([text in row for row in rows if unknown not in row]) == pytest.approx(mixture.phrase_share, abs=0.06)
    said = segments_of(mixture, "text->audio", 60)
    assert {(len(audio.ids), word == text) for word, audio in said} == {(6, False), (18, True)}, "clean clips are said"
    for name in set(ROWS) - both:
        assert not any(text in row for row in segments_of(mixture, name, 40))


def test_what_is_not_of_the_world_is_refused_in_its_share(mixture):
    unknown = mixture.text(UNKNOWN)
    for name in ROWS:
        rows = segments_of(mixture, name, 600 if name in recipe.OUTSIDE else 40)
        assert np.mean([unknown in row for row in rows]) == pytest.approx(recipe.OUTSIDE.get(name, 0.0), abs=0.05)
        for row in rows:
            assert (set(row[0].ids) == {60}) == (unknown in row) and (unknown not in row or len(row) == 2), "refused, and nothing else is"


def test_what_is_heard_is_stretched_and_confused_be_it_a_phrase_or_noise(mixture):
    mixture.near = np.full((2, 64, 4), 63)
    rows = segments_of(mixture, "audio->text", 300)
    for text in (PHRASE, UNKNOWN):
        heard = [audio.ids for audio, said in rows if said == mixture.text(text)]
        assert len({len(ids) for ids in heard}) > 2 and any(63 in ids for ids in heard)


def test_rehearsal_teaches_answers_but_not_of_which_kind_they_are(mixture):
    rng = np.random.default_rng(0)
    for name in [*sorted(set(ROWS) - {"text+text->text"})] * 6:
        ids, weights = mixture.row(name, rng)
        segments, wanted = mixture.vocabulary.unpack(ids), []
        for number, segment in enumerate(segments):
            answered = recipe.TEXT_WEIGHT if segment.modality == "text" else 1.0
            inside, opens = answered, 0.0
            if number < DIRECTIONS[name].given:
                inside = GIVEN_WEIGHT[segment.modality]
                opens = min(inside, GIVEN_WEIGHT[segments[0].modality])
            wanted += [opens] + [inside] * (len(segment.ids) + 1)
        assert weights == wanted


def test_a_caption_is_changed_as_in_a_conversation(mixture):
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids, weights = mixture.row("text+text->text", rng)
        shown, before, instruction, drawn, after = mixture.vocabulary.unpack(ids)
        assert shown == drawn == Segment("image", ()) and before.modality == instruction.modality == after.modality == "text"
        given = len(mixture.vocabulary.pack([shown, before, instruction]))
        assert weights == [0.0] * given + [1.0, 0.0, 0.0] + [recipe.TEXT_WEIGHT] * (len(after.ids) + 1)
        assert ids[given] == OPEN["image"], "that a picture answers is learned here too"


def test_the_longest_phrase_fits():
    """Three seconds, played at .82 of their speed with 120 ms around (`augment`), every frame of them said twice at worst."""
    frames = np.ceil((LONGEST / 0.82 + 0.12) * 25)
    assert 2 * frames + 2 + 60 < recipe.CONTEXT
    assert LONGEST > speech.LONGEST


# ---------------------------------------------------------------- more room

def test_a_longer_model_says_the_same_of_whatever_fitted_before():
    model = wild_model(context=40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    new, rng = recipe.longer(model, 64), np.random.default_rng(0)
    assert new.config == {**model.config, "context": 64} and model.context == 40 and recipe.longer(model).context == recipe.CONTEXT
    with torch.no_grad():
        for length in (1, 2, 17, 39, 40):
            ids = torch.from_numpy(rng.integers(1, SMALL.size, (8, length)))        # boundary tokens anywhere, and plain runs
            assert torch.equal(new(ids), model(ids))
    said = [Segment("text", (1, 2, 3))]
    assert generate(new, SMALL, [said], "text", temperature=0.0, limit=20) == generate(model, SMALL, [said], "text", temperature=0.0, limit=20)
    ids = torch.from_numpy(rng.integers(7, SMALL.size, (2, 64)))
    assert new(ids).isfinite().all() and torch.equal(recipe.longer(model, 64)(ids), new(ids)), "new positions are the same each time"
    with pytest.raises(ValueError, match="41 tokens do not fit the context of 40"):
        model(ids[:, :41])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_positions_are_those_of_a_segment_so_a_long_conversation_has_no_new_ones():
    model = wild_model(context=40)
    new, other = recipe.longer(model, 200), recipe.longer(model, 200)
    torch.nn.init.normal_(other.position_embed.weight[40:].detach(), std=9.0)
    ids = torch.tensor([SMALL.pack([Segment("image", (1, 2, 3, 4, 5))] * 20)])
    assert ids.shape[1] == 140 and torch.equal(new(ids), other(ids)) and not torch.equal(new(ids[:, 1:6].repeat(1, 9)), other(ids[:, 1:6].repeat(1, 9)))


# ---------------------------------------------------------------- what it learns from, and what is practised

def test_it_says_the_phrases_for_which_an_answer_has_room_and_hears_all(monkeypatch):
    room = content_limit(VOCABULARY, "audio")
    corpus = SimpleNamespace(clips=[None] * 2, texts=["short", "long"], voices=[0, 1], __len__=lambda: 2)
    heard = Clips([np.zeros(room, int), np.zeros(room + 2, int), np.ones(room, int), np.ones(4, int)], ["short", "long"] * 2)
    monkeypatch.setattr(recipe, "load_phrases", lambda split, progress: corpus)
    monkeypatch.setattr(recipe, "heard_clips", lambda *args, **more: heard)
    turns = [Turn((Part("spoken", "how many?"), Part("text", "now")), Part("text", "two"), "ask")] * 2
    talks = SimpleNamespace(vocabulary=VOCABULARY, said=Clips([np.full(room + 2, 2), np.full(6, 2)], ["longer", "cat"]),
                            heard=Clips([np.full(6, 2), np.full(6, 3)], ["cat", "cat"]), talks=[turns, turns[:1]])
    found = recipe.phrase_tokens(talks)
    assert found["phrases"].words == ["short", "cat"] and [len(ids) for ids in found["phrases"].tokens] == [room, 6]
    assert not any(ids[0] == 1 for ids in found["phrases"].tokens), "clean clips are said, no copies"
    assert found["heard_phrases"].words == [*heard.words, "cat", "cat"] and len(found["heard_phrases"].tokens) == 6
    assert found["requests"] == ["how many?"] * 3, "as often as they are made"


def test_captions_of_the_validation_split_are_drawn_and_the_whole_scene_must_be_right():
    bpe, vqvae = checkpoints.load("bpe"), checkpoints.load("vqvae")
    task = recipe.drawing(bpe, vqvae)
    asked = task.ask(np.random.default_rng(0), 6)
    for question in asked:
        (caption,) = question.prompt
        assert question.want == "image" and WORLD.parse(bpe.decode(caption.ids).strip()) == question.truth
        assert WORLD.split_of(question.truth) == "validation"
    drawn = [Segment("image", tuple(ids.flatten().tolist())) for ids in vqvae.encode(draw_batch([question.truth for question in asked]))]
    assert task.reward(asked, drawn) == [1.0] * 6 and task.reward(asked, drawn[1:] + drawn[:1]) == [0.0] * 6


# ---------------------------------------------------------------- the two runs

class InOne:
    """The loss in one process."""

    cpu_seconds = 0.0
    __call__ = staticmethod(mixture_loss)


class OneTalk:
    """Conversations that say one thing, as many to a batch as `rows`."""

    rows, weight = 0, 0.0

    def __init__(self, bpe, vocabulary: Vocabulary, talks: int):
        assert vocabulary.config == checkpoints.manifest()["transformer"]["vocabulary"]
        self.talks = talks

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        ids = VOCABULARY.pack([Segment("text", (9, 9, 9)), Segment("text", (8, 8))])
        return pad([ids] * self.rows), pad([[self.weight] * len(ids)] * self.rows, torch.float)


@pytest.fixture
def small(mixture, monkeypatch, tmp_path):
    """The recipe of a tiny model at two steps and two; returns what it trained on."""
    seen, real = [], recipe.train

    def note(model, batch, loss, **more):
        seen.append(batch(np.random.default_rng(0)))
        return real(model, batch, loss, **more)

    def tiny(model: Transformer) -> Transformer:
        assert model.config == checkpoints.manifest()["transformer"]["config"], "it begins with the shipped transformer"
        torch.manual_seed(0)
        return Transformer(Vocabulary(**checkpoints.manifest()["transformer"]["vocabulary"]).size, width=16, layers=1, heads=2, context=recipe.CONTEXT, segment_starts=tuple(OPEN.values()))

    def ask(rng, n):
        return [Question((Segment("text", (int(i),)),), "text") for i in rng.integers(50, size=n)]
    task = Task("short", ask, lambda asked, answers: [-len(answer.ids) for answer in answers])
    stages = (recipe.Stage(1, 3, 1.0, ROWS), recipe.Stage(1, 2, 4.0, {"text->image": 1, "audio->text": 3}, phrases=0.1, schedule=3))
    for name, value in {"STAGES": stages, "STEPS": 2, "PRACTICE_STEPS": 2, "train": note, "longer": tiny, "Talks": OneTalk,
                        "rehearsal": lambda bpe, vocabulary: mixture, "drawing": lambda bpe, vqvae: task,
                        "load_human_digits": lambda: None, "measure": lambda model: {"ask": "1 of 2"},
                        "in_two_processes": lambda model: nullcontext(InOne())}.items():
        monkeypatch.setattr(recipe, name, value)
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    return seen


def test_a_batch_holds_conversations_and_rehearsal(small, mixture):
    recipe.main(["--steps", "2"])
    said = VOCABULARY.pack([Segment("text", (9, 9, 9)), Segment("text", (8, 8))])
    for (ids, weights, *others), stage in zip(small, recipe.STAGES, strict=True):
        assert ids.tolist() == [said] * stage.talks and (weights == stage.talk_weight).all()
        mixture.rows, mixture.phrase_share = stage.rows, stage.phrases
        again = mixture.batch(np.random.default_rng(0))
        assert len(again) == len(others) and all(torch.equal(a, b) for a, b in zip(again, others))
        assert sum(map(len, others[::2])) == sum(stage.rows.values())


def test_the_runs_go_on_and_end_where_they_are_told(small, monkeypatch, tmp_path, capsys):
    def folders() -> list[str]:
        return sorted(path.name for path in (tmp_path / "runs").iterdir())

    def files() -> list[str]:
        return sorted(path.name for folder in folders() for path in (tmp_path / "runs" / folder).glob("*.pt"))
    recipe.main(["--steps", "1"])
    assert files() == ["run.pt"]
    history = recipe.main(["--steps", "3", "--out", str(tmp_path / "out")])
    assert [row["step"] for row in history.rows] == [0] and "from here on" not in capsys.readouterr().out, "one schedule a stage"
    assert len(files()) == 3 and files()[0].startswith("practice-") and len(folders()) == 2
    entry = checkpoints.manifest(tmp_path / "out")["chat"]
    assert entry["steps"] == 3 and entry["config"]["context"] == recipe.CONTEXT and entry["human_digits"] is False
    assert entry["transformer"] == checkpoints.identity("transformer") and set(entry["tokenizers"]) == {"bpe", "vqvae", "codec"}
    assert entry["vocabulary"] == checkpoints.manifest()["transformer"]["vocabulary"]
    assert entry["metrics"] == {"ask": "1 of 2"} and history.column("reward"), "the history is that of the second run"
    monkeypatch.setattr(recipe, "PRACTICE_RATE", 1e-4)
    recipe.main(["--steps", "3"])
    assert len(files()) == 4 and len(folders()) == 2, "other practice after the same first run"
    monkeypatch.setattr(recipe, "TEXT_WEIGHT", 1.0)
    recipe.main(["--steps", "1"])
    assert len(folders()) == 3, "other batches, another run"


def test_the_second_run_begins_where_the_first_ended(small, monkeypatch):
    weights, real = {}, recipe.post_train

    def note(model, *args, **more):
        weights["before"] = {name: value.clone() for name, value in model.state_dict().items()}
        history = real(model, *args, **more)
        weights["after"] = {name: value.clone() for name, value in model.state_dict().items()}
        return history
    monkeypatch.setattr(recipe, "post_train", note)
    recipe.main(["--steps", "4"])
    first = recipe.longer(checkpoints.load("transformer"))
    args = recipe.options("chat", ["--steps", "2"], 4)
    recipe.learn_to_converse(first, args)
    assert all(torch.equal(value, weights["before"][name]) for name, value in first.state_dict().items())
    assert any(not torch.equal(value, weights["before"][name]) for name, value in weights["after"].items())
