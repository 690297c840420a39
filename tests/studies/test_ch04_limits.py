"""The route of a sound without tokens: with all amplitudes and the true phases nothing is lost."""
import pytest
import torch

from mmcourse.studies.ch04_limits import in_a_row, through_mel


def test_the_route_without_tokens():
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(3200) / 8000)[None]
    inside = slice(400, -400)
    exact = through_mel(tone, None, true_phase=True)
    assert (exact - tone)[:, inside].abs().max() < 1e-4, "all amplitudes and true phases: nothing is lost"
    for window in (256, 512):
        assert through_mel(tone, 64, window).shape == tone.shape


def test_every_second_five_clips_in_a_row_with_gaps():
    clips = [torch.full((10 + i,), float(i)).numpy() for i in range(17)]
    first, second = in_a_row(clips)
    assert len(first) == sum(range(10, 15)) + 5 * 800 and second.max() == 14
    assert first[10:810].max() == 0 and first[810] == pytest.approx(1)
