"""Edits: an instruction changes one thing, in words that say so, and nothing else."""
import numpy as np
import pytest

from mmcourse.evaluate import edit_done
from mmcourse.world.edits import KINDS, Edit, make_edit, possible, sample_edit
from mmcourse.world.scene import BACKGROUNDS, Group, Scene, is_held_out


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_its_own_part_alone(kind):
    for seed in range(40):
        edit = sample_edit(rng(seed), "train", kind)
        part = {"ground": "ground", "sign": "sign"}.get(kind, "groups")
        for name in ("ground", "sign", "groups", "shift", "scale"):
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
        sample_edit(rng(), "test")
    with pytest.raises(ValueError, match="kind is one of"):
        sample_edit(rng(), kind="paint")


def test_held_out_edits_end_in_something_new():
    assert all(is_held_out(sample_edit(rng(s), "held-out").after) for s in range(30))


def test_edit_done_tells_change_from_rest():
    before, after = Scene((Group("cat", 1, "left"),), "blue", "KITE"), Scene((Group("cat", 1, "left"),), "red", "KITE")
    edit = Edit("ground", before, "make the ground red", after)
    assert edit_done(after, edit) == {"change": True, "kept": True, "both": True}
    assert edit_done(before, edit) == {"change": False, "kept": True, "both": False}
    assert edit_done(Scene((Group("dog", 1, "left"),), "red", "KITE"), edit) == {"change": True, "kept": False, "both": False}
    assert not any(edit_done(None, edit).values())
