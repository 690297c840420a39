"""The diffusion decoder for sound: audio tokens of one level -> a fine log-mel, by flow matching -> sound.

The flow and its samplers are those of `mmcourse.diffusion`; only the network differs: a mel spectrogram is
a row of spectra, so it is convolved along time alone, and each layer sees all bands at once (the harmonics
of one voice lie in many of them). What it buys is measured in `mmcourse.recipes.sound_decoder`, and it is
not intelligibility: the assistant speaks with the plain decoder.
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.codec import AudioCodec, level_sound
from mmcourse.diffusion import euler, time_features, velocity_of


class TimedSoundBlock(nn.Module):
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


class SoundUNet(nn.Module):
    """A U-Net along time. Fine layers work at 100 frames a second, the middle at the tokens' 25, where
    dilations of 1, 2, 4 let each moment hear 0.3 s on either side (with `context` 1: 0.12 s)."""

    def __init__(self, bands: int = 64, code_dim: int = 64, width: int = 96, time: int = 64,
                 context: int = 4):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.enter = nn.Conv1d(2 * bands, width, 3, padding=1)
        self.down = nn.ModuleList(TimedSoundBlock(width, time, d) for d in (1, 2))
        self.shrink = nn.Conv1d(width, 2 * width, 4, stride=4)
        self.codes = nn.Conv1d(code_dim, 2 * width, 1)
        self.middle = nn.ModuleList(TimedSoundBlock(2 * width, time, min(d, context)) for d in (1, 2, 4))
        self.grow = nn.ConvTranspose1d(2 * width, width, 4, stride=4)
        self.join = nn.Conv1d(2 * width, width, 1)
        self.up = nn.ModuleList(TimedSoundBlock(width, time, d) for d in (1, 2))
        self.leave = nn.Conv1d(width, bands, 3, padding=1)
        nn.init.zeros_(self.leave.weight)                      # it begins as the plain decoder: no correction
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: torch.Tensor, t: torch.Tensor, plain: torch.Tensor, codes: torch.Tensor):
        """Noisy error (B, bands, 4 f), time (B,), plain mel (B, bands, 4 f), codes (B, D, f) -> clean
        error."""
        time = self.time(time_features(t))
        h = self.enter(torch.cat([x, (plain + 7) / 2], 1))             # (B, 2 bands, 4 f) -> (B, C, 4 f)
        for block in self.down:
            h = block(h, time)
        fine, h = h, self.shrink(h) + self.codes(codes)                # (B, C, 4 f), (B, 2C, f)
        for block in self.middle:
            h = block(h, time)
        h = self.join(torch.cat([fine, self.grow(h)], 1))              # (B, C, 4 f)
        for block in self.up:
            h = block(h, time)
        return self.leave(h)                                           # (B, bands, 4 f)


class SoundDecoder(SoundUNet):
    """Turns noise into what the plain decoder's log-mel lacks, told that mel and the code vectors.

    The flow runs on the plain decoder's error divided by `error`, its typical size in natural logarithms.
    """

    def __init__(self, bands: int = 64, code_dim: int = 64, width: int = 96, time: int = 64,
                 error: float = 0.6, context: int = 4):
        super().__init__(bands, code_dim, width, time, context)
        self.config = {"bands": bands, "code_dim": code_dim, "width": width, "time": time, "error": error,
                       "context": context}
        self.error = error

    @torch.no_grad()
    def decode_mel(self, ids, steps: int = 8, seed: int = 0, codec: AudioCodec | None = None,
                   grain: float = 1.0) -> torch.Tensor:
        """Audio tokens (B, frames, 1) -> log-mel (B, bands, 4 frames); same ids, same seed, same mel.

        Args:
            steps: Euler's steps, 1 or more. One step is (nearly) the mean of all that the tokens may mean.
            codec: the tokenizer that made the ids; the shipped one if None.
            grain: size of the noise at the start. 1 is a sample, as in training; 0 starts at the plain mel.
        """
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps is a whole number of 1 or more, got {steps!r}; 8 is a good choice")
        if not 0 <= grain <= 1:
            raise ValueError(f"grain lies between 0 (no noise at first) and 1 (a true sample), got {grain!r}")
        if codec is None:
            from mmcourse.checkpoints import load
            codec = load("codec")
        plain, codes = plain_mel_and_codes(codec, ids)
        if (plain.shape[1], codes.shape[1]) != (self.config["bands"], self.config["code_dim"]):
            raise ValueError(f"this decoder knows {self.config['bands']} bands and codes of "
                             f"{self.config['code_dim']} numbers, the tokenizer has {plain.shape[1]} and "
                             f"{codes.shape[1]}: give the tokenizer that it was trained with")
        noise = grain * torch.randn(plain.shape, generator=torch.Generator().manual_seed(seed))
        return plain + self.error * euler(velocity_of(self, plain, codes), noise, steps)[-1]

    @torch.no_grad()
    def decode(self, ids, steps: int = 8, seed: int = 0, codec: AudioCodec | None = None,
               grain: float = 1.0) -> torch.Tensor:
        """Audio tokens (B, frames, 1) -> sound (B, 320 frames) in [-1, 1] at 8 kHz; see `decode_mel`."""
        if codec is None:
            from mmcourse.checkpoints import load
            codec = load("codec")
        return mel_to_sound(codec, self.decode_mel(ids, steps, seed, codec, grain))


def mel_to_sound(codec: AudioCodec, mel: torch.Tensor) -> torch.Tensor:
    """The codec's own way back, Griffin-Lim and then the corpus's loudness: (B, bands, n) -> (B, 80 n)."""
    return level_sound(codec.mel_to_sound(mel), silence=0.01).clamp(-1, 1)


@torch.no_grad()
def plain_mel_and_codes(codec: AudioCodec, ids) -> tuple[torch.Tensor, torch.Tensor]:
    """What the flow is told of ids (B, f, 1): the plain log-mel (B, bands, 4 f) and the code vectors (B,
    D, f)."""
    ids = codec.check_ids(ids)
    if ids.shape[2] != 1:
        raise ValueError(f"the diffusion decoder takes tokens of one level, (B, frames, 1), got "
                         f"{tuple(ids.shape)}: give ids[..., :1]")
    return codec.decode_mel(ids), codec.codebooks[0][ids[..., 0]].transpose(1, 2)   # (B, f, D) -> (B, D, f)
