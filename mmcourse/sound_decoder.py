"""The diffusion decoder for sound: audio tokens of one level -> a fine log-mel, by flow matching -> sound.

The flow and its samplers are those of `mmcourse.diffusion`; only the network differs: a mel spectrogram is a
row of spectra, so it is convolved along time alone, and each layer sees all bands at once (the harmonics of
one voice lie in many of them). What it buys is measured in `mmcourse.studies.ch07_sound`, and it is not
intelligibility: the assistant speaks with the plain decoder.
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import check_seed
from mmcourse.codec import AudioCodec
from mmcourse.diffusion import check_codes, check_sampling, euler, flow_loss, time_features, velocity_of
from mmcourse.spectrogram import normalize_loudness, normalize_mel


class TimeConditionedBlock1d(nn.Module):
    """A residual block along time that knows the flow's time t: (B, C, n), (B, T) -> (B, C, n)."""

    def __init__(self, channels: int, time: int, dilation: int = 1):
        super().__init__()
        self.film = nn.Linear(time, 2 * channels)
        self.mix = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(time)[:, :, None].chunk(2, 1)         # (B, C, 1) each
        h = x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt()      # over the channels of one moment
        return x + self.out(F.silu(self.mix(F.silu(h * (1 + scale) + shift))))


class SoundDecoder(nn.Module):
    """A U-Net along time that turns noise into what the plain decoder's log-mel lacks, told that mel and
    the code vectors.

    Fine layers work at 100 frames a second, the middle at the tokens' 25, where dilations of 1, 2, 4 let each
    moment hear 0.3 s on either side (with `context` 1: 0.12 s). The flow runs on the plain decoder's error
    divided by `residual_std`, its typical size in natural logarithms.
    """

    def __init__(self, bands: int = 64, code_dim: int = 64, width: int = 96, time: int = 64,
                 residual_std: float = 0.6, context: int = 4):
        super().__init__()
        self.config = {"bands": bands, "code_dim": code_dim, "width": width, "time": time,
                       "residual_std": residual_std, "context": context}
        self.residual_std = residual_std
        self.time = nn.Sequential(nn.Linear(64, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.conv_in = nn.Conv1d(2 * bands, width, 3, padding=1)
        self.down = nn.ModuleList(TimeConditionedBlock1d(width, time, d) for d in (1, 2))
        self.downsample = nn.Conv1d(width, 2 * width, 4, stride=4)
        self.codes = nn.Conv1d(code_dim, 2 * width, 1)
        self.middle = nn.ModuleList(TimeConditionedBlock1d(2 * width, time, min(d, context))
                                    for d in (1, 2, 4))
        self.upsample = nn.ConvTranspose1d(2 * width, width, 4, stride=4)
        self.skip = nn.Conv1d(2 * width, width, 1)
        self.up = nn.ModuleList(TimeConditionedBlock1d(width, time, d) for d in (1, 2))
        self.conv_out = nn.Conv1d(width, bands, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)  # it begins as the plain decoder: no correction
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: torch.Tensor, t: torch.Tensor, plain: torch.Tensor,
                codes: torch.Tensor) -> torch.Tensor:
        """Noisy error (B, bands, 4 f), time (B,), plain mel (B, bands, 4 f), codes
        (B, D, f) -> clean error."""
        time = self.time(time_features(t))
        h = self.conv_in(torch.cat([x, normalize_mel(plain)], 1))      # (B, 2 bands, 4 f) -> (B, C, 4 f)
        for block in self.down:
            h = block(h, time)
        fine, h = h, self.downsample(h) + self.codes(codes)            # (B, C, 4 f), (B, 2C, f)
        for block in self.middle:
            h = block(h, time)
        h = self.skip(torch.cat([fine, self.upsample(h)], 1))          # (B, C, 4 f)
        for block in self.up:
            h = block(h, time)
        return self.conv_out(h)                                        # (B, bands, 4 f)

    def decode_mel(self, ids, codec: AudioCodec, steps: int = 8, seed: int = 0,
                   noise_scale: float = 1.0) -> torch.Tensor:
        """Audio tokens (B, frames, 1) -> log-mel (B, bands, 4 frames): see `sample_mel`."""
        return sample_mel(self, ids, codec, steps, seed, noise_scale)

    def decode(self, ids, codec: AudioCodec, steps: int = 8, seed: int = 0,
               noise_scale: float = 1.0) -> torch.Tensor:
        """Audio tokens (B, frames, 1) -> sound (B, 320 frames) in [-1, 1] at 8 kHz: see `sample_mel`."""
        return mel_to_sound(codec, self.decode_mel(ids, codec, steps, seed, noise_scale))


@torch.no_grad()
def sample_mel(model: SoundDecoder, ids, codec: AudioCodec, steps: int = 8, seed: int = 0,
               noise_scale: float = 1.0) -> torch.Tensor:
    """Audio tokens (B, frames, 1) -> log-mel (B, bands, 4 frames); same ids, same seed, same mel.

    Args:
        codec: the tokenizer that made the ids.
        steps: Euler's steps, 1 or more. One step is (nearly) the mean of all that the tokens may mean.
        noise_scale: size of the noise at the start. 1 is a sample, as in training; 0 starts at the plain mel.
    """
    check_sampling(steps)
    check_seed(seed, optional=False)
    check_noise_scale(noise_scale)
    plain, codes = plain_mel_and_codes(codec, ids)
    check_bands(plain, model.config["bands"])
    check_codes(codes, model.config["code_dim"])
    noise = noise_scale * torch.randn(plain.shape, generator=torch.Generator().manual_seed(int(seed))).to(plain)
    return plain + model.residual_std * euler(velocity_of(model, plain, codes), noise, steps)[-1]


def sound_decoder_loss(model: SoundDecoder, truth: torch.Tensor, plain: torch.Tensor,
                       codes: torch.Tensor) -> torch.Tensor:
    """Flow matching whose data is what the plain decoder got wrong, in units of the
    model's `residual_std`."""
    return flow_loss(model, (truth - plain) / model.residual_std, plain, codes)


def mel_to_sound(codec: AudioCodec, mel: torch.Tensor) -> torch.Tensor:
    """The codec's own way back, Griffin-Lim and then the corpus's loudness: (B, bands, n) -> (B, 80 n)."""
    return normalize_loudness(codec.mel_to_sound(mel), silence=0.01).clamp(-1, 1)


@torch.no_grad()
def plain_mel_and_codes(codec: AudioCodec, ids) -> tuple[torch.Tensor, torch.Tensor]:
    """What the flow is told of ids (B, f, 1): the plain log-mel (B, bands, 4 f) and the code
    vectors (B, D, f)."""
    ids = codec.check_ids(ids)
    check_one_level(ids)
    return codec.decode_mel(ids), codec.codebooks[0][ids[..., 0]].transpose(1, 2)  # (B, f, D) -> (B, D, f)


def check_one_level(ids: torch.Tensor) -> None:
    """ValueError for ids of more levels than the decoder takes."""
    if ids.shape[2] != 1:
        raise ValueError("the diffusion decoder takes tokens of one level, (B, frames, 1), got "
                         f"{tuple(ids.shape)}: give ids[..., :1]")


def check_bands(plain: torch.Tensor, bands: int) -> None:
    """ValueError if the mel (B, bands, n) is not of the codec that a decoder was trained with."""
    if plain.shape[1] != bands:
        raise ValueError(f"this decoder knows {bands} bands, the tokenizer has {plain.shape[1]}: give the "
                         "tokenizer that it was trained with")


def check_noise_scale(noise_scale: float) -> None:
    """ValueError for noise that is no share."""
    if not 0 <= noise_scale <= 1:
        raise ValueError("noise_scale lies between 0 (no noise at first) and 1 (a true sample), got "
                         f"{noise_scale!r}")
