"""The mixture: its parts, the registry of directions, how a sequence is weighted, batches and their loss."""
import numpy as np
import pytest
import torch
from helpers import Letters, wild_model

from mmcourse import dataset
from mmcourse.dataset import (
    DIRECTIONS,
    GIVEN_WEIGHT,
    Clips,
    Mixture,
    confuse_codes,
    direction,
    fresh_edit,
    mixture_loss,
    near_codes,
    pad,
    partial_caption,
    stretch,
)
from mmcourse.transformer import next_token_loss
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, Vocabulary
from mmcourse.world.edits import sample_edit
from mmcourse.world.scene import caption, sample_scene


@pytest.fixture
def mixture():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, "train") for _ in range(4)]
    words = [s.groups[0].noun for s in scenes]
    clips = Clips([np.arange(6) + i for i in range(4)], words)
    people = Clips([np.full(4, 30 + i) for i in range(2)], ["one", "two"])
    heard = Clips([np.arange(8) + 10 * i for i in range(4)], words)
    return Mixture(Vocabulary(100, 64, 64, 2), Letters(), scenes, np.zeros((4, 64), np.int16), clips,
                   {"audio->text->image": 2, "text->audio": 1}, 4.0, heard, people)


def test_a_confused_code_is_one_that_sounds_like_it():
    books = [torch.arange(8.0)[:, None] * scale for scale in (1.0, -2.0)]
    near = near_codes(books, k=2)
    assert near.shape == (2, 8, 2) and set(near[0, 3]) == {2, 4} and set(near[1, 0]) == {1, 2}
    tokens = np.array([3, 0] * 2000)
    heard = confuse_codes(tokens, near, np.random.default_rng(0), rate=0.25)
    assert set(heard[::2]) == {2, 3, 4} and set(heard[1::2]) == {0, 1, 2}
    assert (heard != tokens).mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(confuse_codes(tokens, near, np.random.default_rng(0), rate=0.0), tokens)


def test_edits_come_in_the_shares_that_were_asked_for(mixture):
    rng = np.random.default_rng(1)
    edits = [sample_edit(rng, "train") for _ in range(300)]
    asked = Mixture(mixture.vocabulary, mixture.bpe, mixture.scenes, mixture.images, mixture.clips, {},
                    edits=(edits, np.zeros((300, 2, 64), np.int16)), kinds={"sign": 2, "long sign": 1, "remove": 1})
    drawn = [asked.draw_edit(rng)[0] for _ in range(400)]
    kinds = [edit.kind for edit in drawn]
    assert set(kinds) == {"sign", "remove"} and kinds.count("sign") == pytest.approx(300, abs=40)
    assert {len(edit.after.sign) for edit in drawn} >= {0, 3, 4, 5}
    asked.kinds = {"long sign": 1}
    assert all(len(asked.draw_edit(rng)[0].after.sign) > 3 for _ in range(50))
    assert all(len(fresh_edit(rng, "long sign").after.sign) > 3 for _ in range(50))
    one_of_two = [fresh_edit(rng, "noun of two") for _ in range(50)]
    assert {(e.kind, len(e.before.groups), len(e.after.groups)) for e in one_of_two} == {("noun", 2, 2)}
    seen = {asked.sequence("text+text->text", rng)[1].ids for _ in range(50)}
    assert len(seen) > 40, "captions are edited anew each time"


def test_stretch_keeps_whole_frames_in_order():
    tokens = np.arange(40)
    for seed in range(20):
        frames = stretch(tokens, 2, np.random.default_rng(seed)).reshape(-1, 2)
        assert (frames[:, 1] == frames[:, 0] + 1).all() and (np.diff(frames[:, 0]) >= 0).all() and len(frames)
    assert len({len(stretch(tokens, 2, np.random.default_rng(s))) for s in range(20)}) > 1
    assert np.array_equal(stretch(tokens, 2, np.random.default_rng(0), rate=0.0), tokens)


def test_clips_pick_by_word():
    clips = Clips([np.array([1]), np.array([2]), np.array([3])], ["a", "b", "a"])
    rng = np.random.default_rng(0)
    assert {int(clips.pick(rng, "a")[0][0]) for _ in range(30)} == {1, 3}
    assert {clips.pick(rng)[1] for _ in range(30)} == {"a", "b"}
    with pytest.raises(KeyError):
        clips.pick(rng, "c")


def test_a_chain_has_its_segments_in_order_and_one_meaning(mixture):
    for seed in range(10):
        audio, text, image = mixture.sequence("audio->text->image", np.random.default_rng(seed))
        assert [s.modality for s in (audio, text, image)] == ["audio", "text", "image"]
        assert text.ids in {tuple(Letters().encode(" " + s.groups[0].noun)) for s in mixture.scenes}


def test_a_picture_is_described_before_it_is_named_aloud(mixture):
    _, text, _ = mixture.sequence("image->text->audio", np.random.default_rng(1))
    assert text in mixture.captions, "the same text as in image->text, or the two would compete"


def test_the_model_learns_to_say_clean_speech_alone(mixture):
    clean = {tuple(t.tolist()) for t in mixture.clips.tokens}
    said = {mixture.sequence("text->audio", np.random.default_rng(s))[1].ids for s in range(40)}
    assert said <= clean


def test_people_are_heard_in_transcription_only(mixture):
    def spoken_by_a_person(segment):
        return set(segment.ids) <= {30, 31}
    heard = [mixture.sequence("audio->text", np.random.default_rng(s))[0] for s in range(200)]
    assert 10 < sum(map(spoken_by_a_person, heard)) < 60
    assert not any(spoken_by_a_person(mixture.sequence("audio->image", np.random.default_rng(s))[0]) for s in range(60))


def test_weights_count_answers_and_leave_the_choice_to_open_to_the_asker(mixture):
    segments = mixture.sequence("audio->text->image", np.random.default_rng(0))
    ids, weights = mixture.weighted(segments)
    assert ids == mixture.vocabulary.pack(segments) and len(ids) == len(weights)
    given, given_weight = len(segments[0].ids) + 2, GIVEN_WEIGHT["audio"]
    assert set(weights[:given + 1]) == {given_weight} and ids[given] == OPEN["text"]
    text_end = ids.index(CLOSE["text"])
    assert set(weights[given + 1:text_end + 1]) == {4.0}
    assert weights[text_end + 1] == given_weight and set(weights[text_end + 2:]) == {1.0}


def test_a_batch_is_padded_and_the_same_for_the_same_generator(mixture):
    first, second = mixture.batch(np.random.default_rng(5)), mixture.batch(np.random.default_rng(5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert [len(x) for x in first] == [1] * 6 and first[0].shape == first[1].shape
    assert [x.shape[1] for x in first] == sorted(x.shape[1] for x in first), "short ones apart from long ones"
    assert pad([[1], [1, 2]]).tolist() == [[1, 0], [1, 2]]


# ---------------------------------------------------------------- directions

@pytest.fixture
def edited(mixture):
    """The mixture with one edit: pictures of zeros before, of ones after."""
    edits = [sample_edit(np.random.default_rng(1))]
    pictures = np.stack([np.zeros(64, np.int16), np.ones(64, np.int16)])[None]         # (1, 2, 64): before, after
    return Mixture(mixture.vocabulary, Letters(), mixture.scenes, mixture.images, mixture.clips, {}, 4.0, edits=(edits, pictures))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_direction_gives_the_segments_of_its_name_and_knows_which_are_given(edited, name):
    """Those joined by a plus sign are the question; the arrow after them opens what is answered."""
    segments = edited.sequence(name, np.random.default_rng(0))
    expected = tuple(part for step in name.split("->") for part in step.split("+"))
    assert tuple(segment.modality for segment in segments) == expected == DIRECTIONS[name].modalities
    assert DIRECTIONS[name].given == len(name.split("->")[0].split("+")) and DIRECTIONS[name].make.__doc__
    assert edited.vocabulary.unpack(edited.vocabulary.pack(segments)) == segments


def test_every_modality_leads_to_every_other():
    pairs = {(a, b) for a in MODALITIES for b in MODALITIES if a != b}
    assert pairs <= {(d.modalities[0], d.modalities[-1]) for d in DIRECTIONS.values()}


def test_a_direction_can_be_added(mixture, monkeypatch):
    monkeypatch.setattr("mmcourse.dataset.DIRECTIONS", dict(DIRECTIONS))
    from mmcourse.dataset import DIRECTIONS as registry

    @direction("text+text->audio")
    def twice(m, rng):
        audio, word = m.spoken(rng)
        return [m.text(word), m.text(word), audio]

    assert registry["text+text->audio"].given == 2 and registry["text+text->audio"].make is twice
    mixture.rows = {"text+text->audio": 3}
    ids = [part for part in mixture.batch(np.random.default_rng(0))[::2]]
    assert sum(map(len, ids)) == 3 and all((part == OPEN["text"]).sum(1).tolist() == [2] * len(part) for part in ids)
    with pytest.raises(KeyError, match="text->smell"):
        mixture.row("text->smell", np.random.default_rng(0))


@pytest.mark.parametrize("name", ["image+text->image", "image+text->text->image", "image+text->text", "text+text->text"])
def test_edits_are_given_a_picture_or_its_caption_and_an_instruction(edited, name):
    (edit,), pictures = edited.edits, edited.edit_images
    said = {key: edited.text(text) for key, text in (("before", caption(edit.before)), ("after", caption(edit.after)),
                                                     ("change", edit.instruction))}
    first, change, *answers = edited.sequence(name, np.random.default_rng(0))
    assert first == (said["before"] if name.startswith("text") else edited.image(pictures[0, 0])) and change == said["change"]
    assert answers == [said["after"] if step == "text" else edited.image(pictures[0, 1]) for step in name.split("->")[1:]]
    ids, weights = edited.row(name, np.random.default_rng(0))
    start = len(edited.vocabulary.pack([first, change]))
    assert max(weights[:start]) <= max(GIVEN_WEIGHT.values()) and weights[-1] == (4.0 if name.endswith("text") else 1.0)
    edited.rows = {name: 1}
    assert all(part.shape == (1, len(ids)) for part in edited.batch(np.random.default_rng(0)))


def test_a_caption_at_times_says_only_a_part(mixture):
    rng = np.random.default_rng(0)
    scene = next(s for s in (sample_scene(rng, "train") for _ in range(1000)) if s.sign and len(s.groups) == 2)
    parts = {partial_caption(scene, rng) for _ in range(100)}
    assert len(parts) == 4 and all(part != caption(scene) for part in parts) and not any("sign" in part for part in parts)
    assert all(word in caption(scene) for part in parts for word in part.replace(",", "").split())
    said = [mixture.sequence("text->image", np.random.default_rng(s))[0] in mixture.captions for s in range(300)]
    assert np.mean(said) == pytest.approx(0.85, abs=0.06)


# ---------------------------------------------------------------- the loss

def test_the_loss_of_a_batch_in_parts_is_that_of_all_its_tokens_together():
    model, rng = wild_model(scale=1.0), np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(7, 20, (6, 12)))
    weights = torch.from_numpy(rng.random((6, 12), dtype=np.float32))
    parts = (ids[:1], weights[:1], ids[1:4], weights[1:4], ids[4:], weights[4:])
    whole = next_token_loss(model, ids, weights)
    assert mixture_loss(model, *parts)["loss"].item() == pytest.approx(whole.item(), rel=1e-5)


# ---------------------------------------------------------------- the cache of tokens

def test_tokens_are_made_once_kept_and_made_anew_where_the_file_is_damaged(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(1)
        return np.arange(3)
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    for _ in range(2):
        assert dataset.kept("x", {"a": 1}, make).tolist() == [0, 1, 2] and len(made) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"no array")
    with pytest.warns(UserWarning, match="x-.*npy is damaged .* made anew"):
        assert dataset.kept("x", {"a": 1}, make).tolist() == [0, 1, 2] and len(made) == 2
    assert np.load(path).tolist() == [0, 1, 2]


def test_tokens_that_cannot_be_kept_are_used_all_the_same(tmp_path, monkeypatch):
    def full(file, array):
        raise OSError(28, "No space left on device")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset.np, "save", full)
    with pytest.warns(UserWarning, match="made anew next time: .*MMCOURSE_CACHE names another folder"):
        assert dataset.kept("x", {}, lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert not list(tmp_path.iterdir())
