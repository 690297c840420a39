"""The sound decoder's recipe: two steps of the real thing are saved, and the same command again goes on from what is there."""
import torch

from mmcourse import checkpoints
from mmcourse.cli.train import recipes
from mmcourse.recipes import sound_decoder as recipe


def test_two_steps_are_shipped_and_found_again(tmp_path, monkeypatch):
    assert "sound_decoder" in recipes()
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    first = recipe.main(["--steps", "2", "--threads", "1"], tmp_path)
    again = recipe.main(["--steps", "2", "--threads", "1"], tmp_path)
    assert torch.equal(first.conv_out.weight, again.conv_out.weight)
    entry = checkpoints.manifest(tmp_path)["sound_decoder"]
    assert entry["steps"] == 2 and entry["codec"] == checkpoints.identity("codec")
    assert checkpoints.load("sound_decoder", tmp_path).config == first.config
