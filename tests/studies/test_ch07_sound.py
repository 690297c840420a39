"""The measures of the sound decoder's study: what they see, how a setting is chosen, the control."""
import pytest
import torch
from torch import nn

from mmcourse.studies import ch07_sound as study


def test_frames_and_sharpness_count_what_is_in_a_clip():
    mel, inside = torch.randn(4, 8, 30), torch.arange(30) < torch.tensor([[30], [20], [10], [5]])
    assert study.frames(mel, inside).shape[1] == 16
    smooth = nn.functional.avg_pool1d(mel, 3, 1, 1)
    assert study.mel_sharpness(smooth, inside) < study.mel_sharpness(mel, inside)


def test_the_rule_was_fixed_before_the_table():
    rows = {"plain": {"stoi": 0.8, "pesq": 1.7}, "flow, 1 step": {"stoi": 0.81, "pesq": 1.8},
            "flow, 8 steps": {"stoi": 0.7, "pesq": 1.9}, "regression": {"stoi": 0.9, "pesq": 2.0}}
    assert study.choose(rows) == "flow, 1 step"                        # the best PESQ among those not less intelligible
    rows["flow, 1 step"]["stoi"] = 0.79
    assert study.choose(rows) == "flow, 1 step"                        # none is: the best STOI


def test_the_control_is_white_noise_of_the_wanted_size_and_nothing_else(random_codec):
    ids = torch.randint(32, (3, 6, 1))
    noisy, plain = study.noisy(random_codec, ids, 0.3), random_codec.decode_mel(ids)
    assert torch.equal(noisy, study.noisy(random_codec, ids, 0.3))
    assert (noisy - plain).std().item() == pytest.approx(0.3, rel=0.1)
