"""The study of the sound decoder: its sounds, its measures and their controls, the rule that chooses."""
import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.codec import AudioCodec
from mmcourse.sound_decoder import SoundDecoder
from mmcourse.studies import ch07_sound


@pytest.fixture(scope="module")
def codec() -> AudioCodec:
    torch.manual_seed(0)
    codec = AudioCodec(width=16, dim=8, codebook_size=32).eval()
    for book in codec.codebooks:
        book.normal_()
    return codec


def test_both_losses_teach():
    """A network that can be told everything by the plain mel gets better at it, with either loss."""
    plain, codes = torch.randn(8, 64, 8), torch.randn(8, 8, 2)
    for kind, loss in ch07_sound.LOSSES.items():
        torch.manual_seed(0)
        model, seen = SoundDecoder(code_dim=8, width=16, time=16), []
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(30):
            value = loss(model, plain + 0.6 * plain.roll(1, 1), plain, codes)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            seen.append(value.item())
        assert np.mean(seen[-5:]) < 0.8 * np.mean(seen[:5]), kind
    with pytest.raises(ValueError, match="flow, regression"):
        ch07_sound.trained(ch07_sound.Plan(), "magic", 1)


def test_frames_and_sharpness_leave_the_padding_out():
    mel, inside = torch.randn(4, 8, 30), torch.arange(30) < torch.tensor([[30], [20], [10], [5]])
    found = ch07_sound.frames(mel, inside)
    assert found.shape == (29 + 20 + 10 + 5, 16)                       # no step leads on from the last frame
    padded = mel.clone()
    padded[1, :, 21:] = 99.0                                           # beyond the clip and its last step
    assert torch.equal(ch07_sound.frames(padded, inside), found)
    smooth = nn.functional.avg_pool1d(mel, 3, 1, 1)
    assert ch07_sound.mel_sharpness(smooth, inside) < ch07_sound.mel_sharpness(mel, inside)


def test_the_rule_that_chooses():
    rows = {"plain": {"stoi": 0.8, "pesq": 1.7}, "flow, 1 step": {"stoi": 0.81, "pesq": 1.8},
            "flow, 8 steps": {"stoi": 0.7, "pesq": 1.9}, "regression": {"stoi": 0.9, "pesq": 2.0}}
    assert ch07_sound.choose(rows) == "flow, 1 step"                   # the best PESQ among those not less intelligible
    rows["flow, 1 step"]["stoi"] = 0.79
    assert ch07_sound.choose(rows) == "flow, 1 step"                   # none is: the best STOI
    plan = ch07_sound.Plan(noises=(0.1, 0.2))
    assert ch07_sound.choose_noise({"plain + grain 0.1": {"fd": 3.0}, "plain + grain 0.2": {"fd": 2.0}}, plan) == 0.2


def test_a_setting_is_found_again_by_its_name():
    plan = ch07_sound.Plan()
    found = ch07_sound.settings(plan)
    assert found["flow, 1 step"] == (1, 1.0) and found["flow, 1 step, grain 0"] == (1, 0.0)
    assert found["flow, 8 steps, grain 0.5"] == (8, 0.5) and len(found) == 2 * len(plan.flow_steps)
    assert set(found) < set(ch07_sound.setting_rows(plan))


def test_the_control_of_the_measures(codec):
    """White noise of the wanted size, the same each time, and nothing else."""
    ids = torch.randint(32, (3, 6, 1))
    noisy, plain = ch07_sound.noisy(codec, ids, 0.3), codec.decode_mel(ids)
    assert torch.equal(noisy, ch07_sound.noisy(codec, ids, 0.3))
    assert (noisy - plain).std().item() == pytest.approx(0.3, rel=0.1)


def test_the_sets_share_no_clip_and_hold_what_they_say():
    sets = ch07_sound.sets(2)
    assert [len(sets[name].clips) for name in ("choosing", "synthetic", "new words")] == [8, 16, 16]
    choosing, synthetic = ({clip.tobytes() for clip in sets[name].clips} for name in ("choosing", "synthetic"))
    assert not choosing & synthetic and sets["new words"].words is None
    assert all(len(clip) <= ch07_sound.CLIP_SAMPLES for s in sets.values() for clip in s.clips)


@pytest.fixture
def metrics(monkeypatch):
    """Those of the clips for choosing, with STOI and PESQ that can be followed."""
    plan = ch07_sound.Plan(per_voice=4)
    found = ch07_sound.SoundMetrics(ch07_sound.sets(plan.per_voice)["choosing"], checkpoints.load("codec"),
                                    checkpoints.load("word_judge"))
    monkeypatch.setattr(ch07_sound, "stoi", lambda a, b: float(np.corrcoef(a, b[:len(a)])[0, 1]))
    monkeypatch.setattr(ch07_sound, "pesq", lambda a, b: 2.0)
    return found


def test_a_row_is_compared_with_the_plain_decoder(metrics):
    plain = metrics.row(metrics.plain(), compare=False)
    assert "stoi_gain" not in plain and plain["mse"] > 0
    same = metrics.row(metrics.plain())
    assert same["stoi_gain"] == same["pesq_gain"] == [0.0, 0.0, 0.0] and same["fd"] == plain["fd"]
    true = metrics.row(metrics.truth)
    assert true["mel_db"] == true["mse"] == 0 and true["fd"] == pytest.approx(0, abs=1e-2) and true["words"] > plain["words"] - 0.2
    sound = metrics.row(None)
    assert sound["stoi"] == pytest.approx(1) and set(sound) == {"stoi", "pesq", "words"}


def test_the_jobs_choose_between_measuring_and_judging():
    jobs = ch07_sound.jobs(ch07_sound.Plan(), ())
    names = [job.name for job in jobs]
    derived = [job.name for job in jobs if job.derived]
    assert derived[:2] == ["chosen", "grain"] and "synthetic" in derived
    assert max(map(names.index, ch07_sound.setting_rows(ch07_sound.Plan()))) < names.index("chosen") < names.index("synthetic")


def test_short_runs_have_a_row_each():
    rows = ch07_sound.short_rows(ch07_sound.Plan())
    assert len(rows) == 3 * 3 + 2 and rows["flow, 8 steps, narrow, seed 0"] == ("flow", 0, 1, 8)
    assert rows["regression, seed 2"] == ("regression", 2, 4, 0)
