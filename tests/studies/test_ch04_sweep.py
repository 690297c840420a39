"""The sweep's codecs have the frames that they are asked for, and at 40 ms they are the chapter's own."""
import pytest
import torch

from mmcourse.codec import AudioCodec
from mmcourse.spectrogram import normalize_loudness
from mmcourse.studies import ch04_sweep


@pytest.mark.parametrize("milliseconds, frames", [(10, 80), (20, 40), (40, 20)])
def test_the_sweeps_codec_has_the_frames_it_is_asked_for(milliseconds, frames):
    codec = ch04_sweep.FrameCodec(milliseconds, width=8, dim=4, codebook_size=16, levels=1).eval()
    ids = codec.encode(torch.randn(6400) * 0.1)
    assert ids.shape == (1, frames, 1) and codec.decode(ids).shape == (1, 6400)
    assert codec.decode_mel(ids).shape == (1, 64, 80)
    with pytest.raises(ValueError, match="30"):
        ch04_sweep.FrameCodec(30)


@torch.no_grad()
def test_forty_milliseconds_are_the_chapters_codec():
    ours = ch04_sweep.FrameCodec(40, width=8, dim=4, codebook_size=16, levels=2).eval()
    x = normalize_loudness(0.1 * torch.randn(1, 320 * 20) * torch.linspace(0.1, 3, 320 * 20))
    ours.codebooks[0].copy_(ours.encoder(ours.features(x))[0].T[:16])              # so that many codes are chosen
    plain = AudioCodec(width=8, dim=4, codebook_size=16, levels=2).eval()
    plain.load_state_dict(ours.state_dict())
    ids = plain.encode(x)
    assert torch.equal(ours.encode(x), ids) and len(ids[..., 0].unique()) > 8
    assert torch.equal(ours.decode_mel(ids), plain.decode_mel(ids))
