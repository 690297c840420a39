"""The diffusion decoder for sound: shapes, start, determinism, bad input, its loss, the shipped one."""
import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.diffusion import flow_loss
from mmcourse.sound_decoder import (
    SoundDecoder,
    TimeConditionedBlock1d,
    mel_to_sound,
    plain_mel_and_codes,
    sample_mel,
    sound_decoder_loss,
)


@pytest.fixture(scope="module")
def codec(random_codec):
    return random_codec


def small(trained: bool = True, **options) -> SoundDecoder:
    torch.manual_seed(0)
    model = SoundDecoder(**{"code_dim": 8, "width": 16, "time": 16} | options)
    if trained:
        nn.init.normal_(model.conv_out.weight, std=0.05)                  # as if it had learned something
    return model.eval()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(32, (3, 6, 1), generator=torch.Generator().manual_seed(1))


def test_shapes(codec, ids):
    model = small()
    assert TimeConditionedBlock1d(8, 16, 4)(torch.zeros(2, 8, 5), torch.zeros(2, 16)).shape == (2, 8, 5)
    plain, codes = plain_mel_and_codes(codec, ids)
    assert plain.shape == (3, 64, 24) and codes.shape == (3, 8, 6)
    assert model(torch.zeros_like(plain), torch.rand(3), plain, codes).shape == (3, 64, 24)
    assert model.decode_mel(ids, codec, 2, 0).shape == (3, 64, 24)
    sound = model.decode(ids, codec, 2, 0)
    assert sound.shape == (3, 6 * 320) and sound.abs().max() <= 1
    assert torch.equal(sound, mel_to_sound(codec, model.decode_mel(ids, codec, 2, 0)))
    assert model.decode_mel(ids[0], codec, 1, 0).shape == (1, 64, 24)             # one sound without a batch


def test_an_untrained_network_is_the_plain_decoder(codec, ids):
    for steps, noise_scale in ((1, 1.0), (8, 1.0), (3, 0.0)):
        mel = small(trained=False).decode_mel(ids, codec, steps, 5, noise_scale)
        assert torch.allclose(mel, codec.decode_mel(ids), atol=1e-5)
    sound = small(trained=False).decode(ids, codec, 1)
    assert torch.allclose(sound, codec.decode(ids), atol=1e-2)


def test_the_seed_decides(codec, ids):
    model = small()
    a, b, c = (model.decode_mel(ids, codec, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c)
    assert torch.allclose(model.decode_mel(ids[:1], codec, 4, 0), a[:1], atol=1e-5)     # alone as in a batch
    still = [model.decode_mel(ids, codec, 4, seed, noise_scale=0.0) for seed in (0, 1)]
    assert torch.equal(*still)                                                          # no noise, no seed
    assert torch.equal(a, sample_mel(model, ids, codec, 4, 0))


def test_the_context_of_the_middle():
    """How far along time one frame of the input reaches: the dilations of the middle make the difference."""
    def reach(context: int) -> int:
        torch.manual_seed(0)
        model = SoundDecoder(code_dim=8, width=16, time=16, context=context)
        nn.init.normal_(model.conv_out.weight)
        codes = torch.zeros(1, 8, 40, requires_grad=True)
        out = model(torch.randn(1, 64, 160), torch.zeros(1), torch.randn(1, 64, 160), codes)
        out[0, :, 80].sum().backward()
        seen = codes.grad[0].abs().sum(0).nonzero()
        return int(seen.max() - seen.min())
    assert reach(1) < reach(4)


@pytest.mark.parametrize("options, message", [
    ({"steps": 0}, "1 or more, got 0"), ({"steps": 2.5}, "got 2.5"), ({"steps": True}, "got True"),
    ({"noise_scale": -0.1}, "noise_scale lies between"), ({"noise_scale": 2}, "noise_scale lies between")])
def test_bad_options(codec, ids, options, message):
    with pytest.raises(ValueError, match=message):
        small().decode_mel(ids, codec=codec, **options)


def test_bad_ids(codec, ids):
    model = small()
    for bad, error, message in ((ids + 32, ValueError, r"lie in 0\.\.31"), (-1 - ids, ValueError, "lie in"),
                                (ids.float(), TypeError, "whole numbers"),
                                (ids.expand(3, 6, 2), ValueError, r"ids\[..., :1\]"),
                                (ids[..., 0, 0], ValueError, "shape"), (ids[:, :0], ValueError, "shape")):
        with pytest.raises(error, match=message):
            model.decode(bad, codec=codec)
    with pytest.raises(ValueError, match="the tokenizer that it was trained with"):
        small(code_dim=9).decode(ids, codec=codec)
    with pytest.raises(ValueError, match="the tokenizer that it was trained with"):
        small(bands=32).decode(ids, codec=codec)


def test_its_loss_is_a_flow_to_what_the_plain_mel_lacks_and_it_learns_it(codec):
    """A network that can be told everything by the plain mel gets better at it."""
    model, (plain, codes) = small(), (torch.randn(8, 64, 8), torch.randn(8, 8, 2))
    truth = plain + 0.6 * plain.roll(1, 1)
    torch.manual_seed(1)
    found = sound_decoder_loss(model, truth, plain, codes)
    torch.manual_seed(1)
    assert torch.equal(found, flow_loss(model, (truth - plain) / model.residual_std, plain, codes))
    optimizer, seen = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(30):
        value = sound_decoder_loss(model, truth, plain, codes)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert np.mean(seen[-5:]) < 0.8 * np.mean(seen[:5])


def test_saved_and_loaded(codec, ids, tmp_path):
    model = small(context=2)
    checkpoints.save("sound_decoder", model, seed=0, steps=1, cpu_minutes=0, metrics={}, folder=tmp_path,
                     dtype=torch.float16)
    again = checkpoints.load("sound_decoder", tmp_path)
    assert again.config == model.config
    assert torch.allclose(again.decode_mel(ids, codec, 2, 0), model.decode_mel(ids, codec, 2, 0), atol=0.05)


def test_the_shipped_one_is_small_and_was_trained_with_the_shipped_codec():
    model, codec = checkpoints.load("sound_decoder"), checkpoints.load("codec")
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    assert checkpoints.manifest()["sound_decoder"]["codec"] == checkpoints.identity("codec"), "train the sound decoder again"
    sound = 0.1 * torch.sin(torch.arange(6400) * 0.2)
    mel = model.decode_mel(codec.encode(sound)[..., :1], codec, 4)
    assert mel.shape == (1, 64, 80) and mel.isfinite().all()
