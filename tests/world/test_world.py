"""The world: scenes, captions, splits and pictures. The same on every machine, and nothing trains on what is held out."""
import dataclasses
import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.world import grammar, pictures, rules, scene
from mmcourse.world.edits import sample_edit
from mmcourse.world.pictures import draw, draw_batch
from mmcourse.world.rules import SignRule, SplitRule, strictest
from mmcourse.world.scene import (
    BACKGROUNDS,
    COUNTS,
    DIGITS,
    LETTERS,
    NOUNS,
    PICTOGRAMS,
    SPLITS,
    WORDS,
    WORLD,
    Group,
    Scene,
    World,
    background_colour,
    caption,
    held_out_pair,
    held_out_sign,
    held_out_voice,
    is_held_out,
    nearest_background,
    parse_caption,
    plural,
    sample_scene,
    split_of,
)


def sample(n: int, split: str = "train", seed: int = 0, **more) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, split, **more) for _ in range(n)]


@st.composite
def any_scene(draw):
    """Every scene that the rules allow."""
    noun, sign = st.sampled_from(NOUNS), st.text(LETTERS, min_size=3, max_size=5)
    if draw(st.booleans()):
        groups = tuple(Group(draw(noun), draw(st.integers(1, 2)), place) for place in ("left", "right"))
    else:
        count = draw(st.integers(1, 4))
        groups = (Group(draw(noun), count, draw(st.sampled_from(("left", "right"))) if count < 3 else ""),)
    return Scene(groups, draw(st.sampled_from(list(BACKGROUNDS))), draw(st.one_of(st.just(""), sign)))


PIECES = ("a", "an", "two", "four", "cat", "cats", "ant", "on the left", ",", "red", "ground", "sign", "K", " ")


# ---- words

def test_the_world_has_what_the_course_says_it_has():
    assert len(NOUNS) == len(set(NOUNS)) == 64 and len(BACKGROUNDS) == 8 and len(COUNTS) == 4 and len(DIGITS) == 10
    assert len({plural(n) for n in NOUNS} | set(NOUNS)) == 128         # no plural is another noun
    assert list(WORDS) == sorted(set(WORDS)) and {*NOUNS, *BACKGROUNDS, *DIGITS, "left", "right"} == set(WORDS)
    assert not set(NOUNS) & set(BACKGROUNDS)


def test_the_documented_examples_hold():
    import doctest
    assert sum(doctest.testmod(module).attempted for module in (scene, grammar)) >= 2
    assert sum(doctest.testmod(module).failed for module in (scene, grammar, rules)) == 0


# ---- captions

@settings(max_examples=100, deadline=None)
@given(any_scene())
def test_parse_caption_is_the_inverse_of_caption(one):
    text = caption(one)
    assert parse_caption(text) == one and caption(parse_caption(text)) == text


@settings(max_examples=100, deadline=None)
@given(any_scene(), any_scene())
def test_different_scenes_have_different_captions(a, b):
    assert (caption(a) == caption(b)) == (a == b)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join)))
def test_what_is_no_caption_is_refused_with_a_value_error(text):
    try:
        one = parse_caption(text)
    except ValueError:
        return
    assert caption(one) == text.strip()


@pytest.mark.parametrize("text", [
    "", "   ", "cat", "a cat", "red ground", "a cat on the left", "a cat, red ground", "a cat on the top, red ground",
    "an cat on the left, red ground", "a ant on the left, red ground", "two cat on the left, red ground",
    "five cats, red ground", "four cats on the left, red ground", "a dragon on the left, red ground",
    "a cat on the left, pink ground", "a cat on the left, red ground, sign KITE", "a cat on the left, red ground, sign K I",
    "a cat on the left, red ground, sign K I T E S X", "a cat on the left, red ground, sign k i t e", "sign K I T E",
    "a cat on the right, a dog on the left, red ground", "a cat on the left, a dog on the left, red ground",
    "a cat on the left,red ground", "A cat on the left, red ground", "one cat on the left, red ground",
])
def test_near_misses_are_no_captions(text):
    with pytest.raises(ValueError):
        parse_caption(text)


CAT = Group("cat", 1, "left")


@pytest.mark.parametrize("make", [
    lambda: Group("cat", 5), lambda: Group("cat", 0, "left"), lambda: Group("cat", 1), lambda: Group("cat", 3, "left"),
    lambda: Group("cat", 1, "top"), lambda: Group("cat", 1.5, "left"), lambda: Scene(()), lambda: Scene((CAT,) * 3),
    lambda: Scene((Group("cat", 1, "right"), Group("dog", 1, "left"))), lambda: Scene((Group("cat", 4), Group("dog", 4))),
    lambda: Scene((CAT,), "red", "abc"), lambda: Scene((CAT,), "red", "A-B"), lambda: Scene((CAT,), "red", "ÄRA"),
])
def test_what_no_scene_can_be_is_a_value_error(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("strange, says", [
    (Scene((Group("dragon", 1, "left"),)), "unknown noun 'dragon'; the world has: ant, apple, .*, whale$"),
    (Scene((CAT,), "pink"), "unknown background 'pink'; the world has: white, grey, .* and colours as '#rrggbb'"),
    (Scene((CAT,), "red", "AB"), "a sign of this world has 3, 4 or 5 letters A-Z, got 'AB'"),
    (Scene((CAT,), "red", "ABCDEF"), "3, 4 or 5 letters"),
    (Scene((), "red", "ABC"), "a scene of this world has 1 or 2 kinds of object, got 0"),
])
def test_what_this_world_does_not_have_is_named(strange, says):
    for ask in (WORLD.check, caption, draw, split_of, is_held_out, lambda one: draw_batch([one])):
        with pytest.raises(ValueError, match=says):
            ask(strange)


def test_what_a_caption_says_of_another_world_is_named():
    with pytest.raises(ValueError, match="unknown noun 'dragon'; the world has"):
        parse_caption("a dragon on the left, red ground")
    with pytest.raises(ValueError, match="unknown background 'pink'"):
        parse_caption("a cat on the left, pink ground")
    with pytest.raises(ValueError, match="no ground"):
        parse_caption("a cat on the left")
    for split, kinds, says in (("exam", None, "split is one of train, validation, test, held-out, any"), ("train", 3, "kinds=3")):
        with pytest.raises(ValueError, match=says):
            sample_scene(np.random.default_rng(0), split, kinds=kinds)


# ---- a world is a value

def test_a_world_is_what_it_is_made_of():
    same = World(dict(PICTOGRAMS), dict(BACKGROUNDS), spoken=WORLD.spoken)
    assert same == WORLD and hash(same) == hash(WORLD) and same is not WORLD
    for change in ({"size": 128}, {"pictograms": dict(reversed(PICTOGRAMS.items()))}, {"split": SplitRule(salt="2")},
                   {"signs": SignRule(share=0.4)}, {"kinds": (2,)}, {"spoken": ()}):
        other = dataclasses.replace(WORLD, **change)
        assert other != WORLD and other == dataclasses.replace(WORLD, **change)
    with pytest.raises(dataclasses.FrozenInstanceError):
        WORLD.size = 32


@pytest.mark.parametrize("change, says", [
    ({"backgrounds": {}}, "one background at least"), ({"backgrounds": {"red": (1, 2, 256)}}, "0 to 255"),
    ({"kinds": ()}, "`kinds` are 0, 1 or 2"), ({"kinds": (3,)}, "`kinds`"), ({"pictograms": {"cat": "🐱"}}, "got .* and 1 nouns"),
    ({"pictograms": {"cat": "🐱", "cats": "🐶"}}, "^cats: a noun, a plural"), ({"pictograms": {"red": "🐱", "dog": "🐶"}}, "^red: "),
    ({"counts": (0.5, 0.4)}, "sum to 1"), ({"counts": (0.2,) * 5}, "one to four"), ({"counts": (1.0,)}, "has `doubles=0`"),
    ({"size": 48}, "32, 64, 96"), ({"size": 0}, "32, 64, 96"), ({"size": 32, "signs": SignRule(letter=7)}, "whole pixels"),
    ({"signs": SignRule(top=40)}, "signs stand under the objects"),
    ({"kinds": (0,), "signs": SignRule((1,), letter=32, top=0)}, "nothing of its background"),
])
def test_what_can_be_no_world_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(WORLD, **change)


@pytest.mark.parametrize("make, says", [
    (lambda: SignRule(words=("KITE", "Moon")), "letters A-Z only, got 'Moon'"), (lambda: SignRule((8,)), "8 letters 8 units wide"),
    (lambda: SignRule(top=52), "52 units from the top, do not fit"), (lambda: SignRule((3,), letter=20), "make letters narrower"),
])
def test_signs_that_do_not_fit_the_picture_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_signs_stand_where_the_shipped_models_saw_them():
    assert {n: WORLD.signs.left(n) for n in (3, 4, 5)} == {3: 24, 4: 16, 5: 16}
    assert SignRule((7,)).left(7) == 5 and SignRule(words=("AB", "KITE")).lengths == (2, 4)


# ---- splits

def test_the_sequences_of_scenes_and_edits_never_move():
    """Cached tokens and recorded results belong to the scenes that a seed made: the same seed must make them for ever."""
    found = {}
    for split in ("train", "held-out", "any"):
        rng = np.random.default_rng(5)
        scenes = [sample_scene(rng, split, jitter=2, unnamed=0.2) for _ in range(200)]
        edits = [sample_edit(rng, split) for _ in range(60)] if split != "any" else []
        said = [(caption(s), s.background, s.shift, round(s.scale, 9)) for s in scenes]
        said += [(caption(e.before), e.instruction, caption(e.after)) for e in edits]
        found[split] = hashlib.sha256(repr(said).encode()).hexdigest()[:12]
    assert found == {"train": "9f9708df5a5e", "held-out": "63b143dd23e6", "any": "d5365f1d387b"}


def test_the_pictures_of_scenes_never_move():
    """Seen through random weights, so that a shifted or repainted pixel shows, whatever the last bit of a font's edge is."""
    rng, weights = np.random.default_rng(5), np.random.default_rng(0).normal(size=(64, 64, 3))
    seen = [(draw(sample_scene(rng, "any", jitter=2)) * weights).mean() for _ in range(8)]
    assert seen == pytest.approx([1.046, 0.751, 0.106, 1.005, 1.067, 0.54, 0.828, 0.583], abs=0.02)


def test_the_rule_of_the_split_never_moves():
    """Checkpoints were trained under this rule: if it changes, they have seen what is called held out."""
    pairs = "".join(str(int(held_out_pair(n, g))) for n in NOUNS for g in BACKGROUNDS)
    words = [a + b + c for a in LETTERS for b in LETTERS for c in LETTERS[:5]]
    signs = "".join(str(int(held_out_sign(w))) for w in words)
    found = [hashlib.sha256(bits.encode()).hexdigest()[:16] for bits in (pairs, signs)]
    assert found == ["f23ec5cf53727f0d", "7a6028eb7d45635a"]


def test_about_one_in_ten_is_held_out_and_everything_is_seen_somewhere():
    held = np.array([[held_out_pair(n, g) for g in BACKGROUNDS] for n in NOUNS])
    assert 0.07 < held.mean() < 0.14
    assert (held.sum(1) <= 6).all() and (held.sum(0) <= 20).all()      # each noun and each ground is in training
    rng = np.random.default_rng(0)
    signs = ["".join(LETTERS[i] for i in rng.integers(26, size=4)) for _ in range(4000)]
    assert 0.08 < np.mean([held_out_sign(s) for s in signs]) < 0.12 and not held_out_sign("")
    assert sum(held_out_voice(i) for i in range(48)) == 8


def test_training_scenes_never_hold_anything_held_out():
    for jitter in (0, 2):
        for one in sample(5_000, "train", seed=jitter, jitter=jitter):
            assert not is_held_out(one)
            assert not held_out_sign(one.sign) and not any(held_out_pair(g.noun, one.background) for g in one.groups)


def test_held_out_scenes_hold_a_held_out_pair_and_sign():
    for one in sample(2_000, "held-out"):
        assert is_held_out(one) and any(held_out_pair(g.noun, one.background) for g in one.groups)
        assert not one.sign or held_out_sign(one.sign)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_scene_of_a_split_is_of_it_in_pair_and_sign(split):
    for one in sample(500, split, unnamed=0.2):
        pairs = [WORLD.pair_split(g.noun, nearest_background(one.background)) for g in one.groups]
        assert split_of(one) == strictest(pairs) == split
        assert not one.sign or WORLD.sign_split(one.sign) == split


def test_held_out_is_validation_or_test_and_both_come():
    held_out = sample(1_000, "held-out")
    assert {split_of(s) for s in held_out} == {"validation", "test"} == SPLITS["held-out"]
    pairs = [WORLD.pair_split(n, g) for n in NOUNS for g in BACKGROUNDS]
    assert 20 < pairs.count("validation") < 40 and 20 < pairs.count("test") < 40
    rng = np.random.default_rng(0)
    signs = [WORLD.sign_split(WORLD.signs.sample(rng)) for _ in range(4_000)]
    assert signs.count("validation") == pytest.approx(200, abs=50) and signs.count("test") == pytest.approx(200, abs=50)
    assert all((WORLD.pair_split(n, g) != "train") == held_out_pair(n, g) for n in NOUNS for g in BACKGROUNDS)


def test_the_second_rule_of_the_split_never_moves_either():
    parts = "".join(WORLD.pair_split(n, g)[1] for n in NOUNS for g in BACKGROUNDS)
    words = "".join(WORLD.sign_split(a + b + "N")[1] for a in LETTERS for b in LETTERS)
    assert [hashlib.sha256(p.encode()).hexdigest()[:16] for p in (parts, words)] == ["aa9a73c73920bf1c", "de30cc424658fa0b"]


def test_another_salt_holds_out_other_things_and_shares_are_as_asked():
    salted = dataclasses.replace(WORLD, split=SplitRule(0.4, 0.25, "mine"))
    pairs = [salted.pair_split(n, g) for n in NOUNS for g in BACKGROUNDS]
    assert np.mean([p != "train" for p in pairs]) == pytest.approx(0.4, abs=0.08)
    assert pairs.count("test") / (len(pairs) - pairs.count("train")) == pytest.approx(0.25, abs=0.1)
    assert len({salted.pair_split(n, "red") == WORLD.pair_split(n, "red") for n in NOUNS}) == 2


def test_a_world_without_anything_held_out_says_so_instead_of_searching_for_ever():
    none = dataclasses.replace(WORLD, split=SplitRule(held_out=0.0))
    assert none.split_of(none.sample(np.random.default_rng(0), "train")) == "train"
    with pytest.raises(ValueError, match="no pair in 'test': choose another `salt`"):
        none.sample(np.random.default_rng(0), "test")
    with pytest.raises(ValueError, match="no edit of the kind None in the split 'held-out'"):
        sample_edit(np.random.default_rng(0), "held-out", world=none)


def test_no_caption_is_in_two_splits():
    train, validation, test = ({caption(s) for s in sample(2_000, split)} for split in ("train", "validation", "test"))
    assert not train & validation and not train & test and not validation & test


def test_the_recipes_train_on_the_training_split_only(monkeypatch):
    from mmcourse import dataset as data
    from mmcourse.recipes import vqvae
    seen = []
    monkeypatch.setattr(vqvae, "draw_batch", lambda scenes: seen.extend(scenes))
    for step in range(20):
        vqvae.batch(np.random.default_rng((0, step)))
    seen += data.training_scenes(1_000)
    assert len(seen) == 20 * vqvae.BATCH + 1_000 and not any(map(is_held_out, seen))


def test_scenes_are_as_the_course_describes_them():
    some = sample(4_000, "any", jitter=2)
    assert {g.noun for s in some for g in s.groups} == set(NOUNS) and {s.background for s in some} == set(BACKGROUNDS)
    assert {g.count for s in some for g in s.groups} == {1, 2, 3, 4} and {len(s.sign) for s in some} == {0, 3, 4, 5}
    assert 0.45 < np.mean([bool(s.sign) for s in some]) < 0.55
    assert {s.shift[0] for s in some} == {s.shift[1] for s in some} == {-2, -1, 0, 1, 2}
    assert all(0.92 <= s.scale <= 1.08 for s in some)
    assert all(s.shift == (0, 0) and s.scale == 1 for s in sample(100))
    assert {len(s.groups) for s in sample(50, kinds=2)} == {2} and {len(s.groups) for s in sample(50, kinds=1)} == {1}


# ---- determinism

PROGRAM = """
import hashlib, numpy as np
from mmcourse.world.scene import sample_scene, caption
from mmcourse.world.pictures import draw
rng = np.random.default_rng(7)
scenes = [sample_scene(rng, 'any', jitter=2) for _ in range(40)]
print(hashlib.sha256(''.join(map(caption, scenes)).encode() + b''.join(draw(s).tobytes() for s in scenes)).hexdigest())
import sys
print('torch' in sys.modules)
"""


def test_a_fresh_process_makes_the_same_scenes_and_pictures_without_torch():
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    scenes = sample(40, "any", seed=7, jitter=2)
    content = "".join(map(caption, scenes)).encode() + b"".join(draw(s).tobytes() for s in scenes)
    assert out == [hashlib.sha256(content).hexdigest(), "False"]


def test_the_same_state_gives_the_same_scene_and_another_another():
    assert sample(50, jitter=2) == sample(50, jitter=2) != sample(50, jitter=2, seed=1)


# ---- pictures

def test_a_picture_has_its_background_its_object_and_its_sign():
    one = Scene((Group("cat", 1, "left"),), "blue", "KITE")
    image = draw(one)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert tuple(image[8, 60]) == BACKGROUNDS["blue"]                      # nothing stands there
    plain = (image == np.array(BACKGROUNDS["blue"], np.uint8)).all(-1)
    assert plain[:48, 32:].all() and plain[16:40, 4:28].mean() < 0.6   # the cat is on the left
    board = (image == np.array(pictures.BOARD, np.uint8)).all(-1)
    assert board[48:, 16:48].mean() > 0.3 and not board[:44].any() or plain[:44].any()


@pytest.mark.parametrize("group, boxes", [
    (Group("star", 1, "left"), [(4, 16)]), (Group("star", 1, "right"), [(36, 16)]),
    (Group("star", 2, "right"), [(36, 0), (36, 24)]), (Group("star", 3), [(20, 0), (4, 24), (36, 24)]),
    (Group("star", 4), [(4, 0), (36, 0), (4, 24), (36, 24)]),
])
def test_objects_stand_where_the_slots_say(group, boxes):
    one = Scene((group,), "blue")
    assert [(x, y) for _, x, y in pictures.slots(one)] == boxes
    drawn = (draw(one) != np.array(BACKGROUNDS["blue"], np.uint8)).any(-1)
    for x, y in boxes:
        assert drawn[y:y + 24, x:x + 24].mean() > 0.2
        drawn[y:y + 24, x:x + 24] = False
    assert not drawn.any()


def test_all_nouns_look_different():
    images = draw_batch([Scene((Group(n, 1, "left"),), "white") for n in NOUNS]).flatten(1)
    import torch
    distance = torch.cdist(images, images) + 1e3 * torch.eye(64)
    assert distance.min() > 4, "two pictograms are almost the same picture"


def test_shift_moves_the_drawing_and_scale_resizes_it():
    still = Scene((Group("dog", 1, "left"),), "red")
    moved = Scene((Group("dog", 1, "left"),), "red", shift=(2, -1))
    assert np.array_equal(draw(still)[16:40, 4:28], draw(moved)[15:39, 6:30])
    area = [(draw(Scene((Group("dog", 1, "left"),), "red", scale=s)) != np.array(BACKGROUNDS["red"], np.uint8)).any(-1).sum()
            for s in (0.92, 1.0, 1.08)]
    assert area[0] < area[1] < area[2]
    assert caption(still) == caption(moved)                            # the drawing moves, not the meaning


@settings(max_examples=50, deadline=None)
@given(any_scene(), st.tuples(st.integers(-70, 70), st.integers(-70, 70)), st.floats(0.8, 1.3))
def test_nothing_falls_off_the_edge(one, shift, scale):
    image = draw(Scene(one.groups, one.background, one.sign, shift, scale))
    assert image.shape == (64, 64, 3)
    if one.sign:
        board = (image == np.array(pictures.BOARD, np.uint8)).all(-1)
        rows, columns = np.flatnonzero(board.any(1)), np.flatnonzero(board.any(0))
        assert len(rows) >= 10 and len(columns) >= 8 * len(one.sign)


@pytest.mark.parametrize("jitter", [0, 2, 5])
def test_jittered_scenes_are_drawn_whole(jitter):
    for one in sample(100, "any", jitter=jitter):
        draw(one)


def test_larger_pictures_show_the_same_scene():
    one = sample(1, jitter=2)[0]
    small, large = draw(one).astype(float), draw(one, 128).astype(float)
    assert large.shape == (128, 128, 3)
    assert np.abs(large.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 12
    for size in (0, 16, 100, -64):
        with pytest.raises(ValueError, match="multiple of 32"):
            draw(one, size)


def test_half_a_picture_shows_the_same_scene():
    one = sample(1)[0]
    small, large = draw(one, 32).astype(float), draw(one).astype(float)
    assert small.shape == (32, 32, 3) and np.abs(large.reshape(32, 2, 32, 2, 3).mean((1, 3)) - small).mean() < 20


def test_a_batch_is_floats_channels_first():
    some = sample(3)
    batch = draw_batch(some)
    assert batch.shape == (3, 3, 64, 64) and str(batch.dtype) == "torch.float32"
    assert 0 <= batch.min() and batch.max() <= 1
    assert np.array_equal((batch[1].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), draw(some[1]))


def test_scenes_a_second():
    draw_batch(sample(200, jitter=2))                                  # the pictograms are drawn once, at first use
    start = time.process_time()
    draw_batch(sample(500, seed=1, jitter=2))
    seconds = time.process_time() - start
    print(f"{500 / seconds:,.0f} scenes a second on one core, sampled, drawn and batched")


# ---- backgrounds without a name

def test_a_background_without_a_name_is_drawn_but_not_told():
    scene = Scene((Group("cat", 1, "left"),), "#4060a0", "KITE")
    assert caption(scene) == "a cat on the left, sign K I T E"
    assert draw(scene)[0, 0].tolist() == [0x40, 0x60, 0xa0]
    for bad in ("pink", "#4060A0", "#406", "4060a0", ""):
        with pytest.raises(ValueError, match="unknown background .*the world has: white"):
            caption(Scene((CAT,), bad))


def test_what_is_held_out_on_blue_is_held_out_on_nearly_blue():
    r, g, b = BACKGROUNDS["blue"]
    almost = f"#{r - 9:02x}{g + 5:02x}{b - 7:02x}"
    assert nearest_background(almost) == "blue" and all(nearest_background(name) == name for name in BACKGROUNDS)
    for noun in NOUNS:
        assert is_held_out(Scene((Group(noun, 1, "left"),), almost)) == held_out_pair(noun, "blue")


def test_unnamed_backgrounds_are_sampled_as_often_as_asked_and_never_look_named():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, unnamed=0.4) for _ in range(400)]
    unnamed = [s for s in scenes if s.background not in BACKGROUNDS]
    assert 120 < len(unnamed) < 200 and len({s.background for s in unnamed}) == len(unnamed)
    assert not any(is_held_out(s) for s in scenes)
    for s in unnamed:
        assert min(max(abs(a - b) for a, b in zip(background_colour(s.background), c)) for c in BACKGROUNDS.values()) > 24
    assert [sample_scene(np.random.default_rng(3)) for _ in range(3)] == [sample_scene(np.random.default_rng(3), unnamed=0.0)] * 3
