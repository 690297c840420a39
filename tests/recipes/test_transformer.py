"""The transformer's recipe: its parts add up, its stages ask for directions that exist, its model fits the shipped one."""
from mmcourse import checkpoints
from mmcourse.dataset import DIRECTIONS
from mmcourse.recipes import transformer as recipe
from mmcourse.vocabulary import Vocabulary
from mmcourse.world.edits import KINDS


def test_parts_and_stages_add_up():
    assert recipe.STEPS == sum(part.steps for part in recipe.PARTS) == checkpoints.manifest()["transformer"]["steps"]
    for part in recipe.PARTS:
        ends = [stage.until for stage in part.stages]
        assert ends == sorted(set(ends)) and ends[-1] == part.steps <= (part.schedule or part.steps)
        for stage in part.stages:
            assert set(stage.rows) <= set(DIRECTIONS) and all(n > 0 for n in stage.rows.values())
            assert set(stage.kinds or {}) <= {*KINDS, "long sign", "noun of two"}


def test_what_is_shipped_has_the_recipes_shape():
    entry = checkpoints.manifest()["transformer"]
    model = recipe.make_model(Vocabulary(**entry["vocabulary"]))
    assert model.config == entry["config"]
    assert set(entry["tokenizers"]) == {"bpe", "vqvae", "codec"}
