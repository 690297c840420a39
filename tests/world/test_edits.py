"""Edits: an instruction changes one thing, in words that say so, and nothing else."""
import numpy as np
import pytest

from mmcourse.world.edits import KINDS, make_edit, possible, sample_edit
from mmcourse.world.scene import BACKGROUNDS, WORLD, Group, Scene, is_held_out, split_of


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_its_own_part_alone(kind):
    for seed in range(40):
        edit = sample_edit(rng(seed), "train", kind)
        part = {"ground": "background", "sign": "sign"}.get(kind, "groups")
        for name in ("background", "sign", "groups", "shift", "scale"):
            same = getattr(edit.before, name) == getattr(edit.after, name)
            assert same == (name != part) or (name == part == "sign" and edit.instruction.endswith(" ".join(edit.before.sign)))
        assert edit.kind == kind and not is_held_out(edit.before) and not is_held_out(edit.after)


def test_instructions_say_what_happens():
    scene = Scene((Group("cat", 1, "left"), Group("sun", 2, "right")), "blue", "KITE")
    said = {kind: {make_edit(scene, kind, rng(s)).instruction for s in range(60)} for kind in possible(scene)}
    assert said["ground"] == {f"make the ground {g}" for g in BACKGROUNDS if g != "blue"}
    assert said["remove"] == {"remove the cat", "remove the suns"}
    assert "remove the sign" in said["sign"]
    assert all(t.startswith(("replace the cat with a", "replace the suns with ")) for t in said["noun"])
    alone = Scene((Group("owl", 1, "left"),), "red")
    assert make_edit(alone, "move", rng()).instruction == "move the owl to the right"
    added = make_edit(alone, "add", rng())
    assert added.instruction.startswith("add ") and added.after.groups[0] == alone.groups[0] and added.after.groups[1].place == "right"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit this scene; what does: ground, noun, sign"):
        make_edit(Scene((Group("cat", 4),)), "move", rng())
    with pytest.raises(ValueError, match="split is"):
        sample_edit(rng(), "any")
    with pytest.raises(ValueError, match="kind is one of"):
        sample_edit(rng(), kind="paint")


def test_held_out_edits_end_in_something_new():
    assert all(is_held_out(sample_edit(rng(s), "held-out").after) for s in range(30))


@pytest.mark.parametrize("split, before", [("validation", {"train", "validation"}), ("test", {"train", "validation", "test"})])
def test_an_edit_of_the_validation_split_shows_nothing_of_the_test_split(split, before):
    edits = [sample_edit(rng(s), split) for s in range(80)]
    assert {split_of(edit.after) for edit in edits} == {split}
    assert {split_of(edit.before) for edit in edits} == before
    assert all(WORLD.parse(WORLD.caption(edit.after)) == edit.after for edit in edits)
