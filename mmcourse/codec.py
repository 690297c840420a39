"""Sound <-> ids. A log-mel spectrogram at 100 frames a second, a small convolutional encoder to 25 frames a second, a
residual quantizer of four levels with 512 codes each, a decoder back to log-mel, and Griffin-Lim from there to sound.

Level 0 alone is 25 x 9 = 225 bits a second; all four are 900. Any number of leading levels decodes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.quantize import ResidualQuantizer
from mmcourse.spectrogram import (
    FLOOR,
    HOP,
    WINDOW,
    check_sound,
    dc_offset,
    denormalize_mel,
    griffin_lim,
    hann,
    log_mel,
    mel_filterbank,
    normalize_loudness,
    normalize_mel,
)
from mmcourse.world.speech import SAMPLE_RATE

FRAME_RATE = 25                          # frames of ids a second
FRAME_SAMPLES = SAMPLE_RATE // FRAME_RATE          # 320: 40 ms
CLIP_SAMPLES = 24 * FRAME_SAMPLES        # 0.96 s: no spoken word of the world is longer


class DilatedBlock(nn.Module):
    """A residual block along time: what a frame's neighbours say is added to it; (B, width, n) as before."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1))
        self.mix = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = (x.square().mean(1, keepdim=True) + 1e-6).rsqrt()       # over the channels of one moment only
        return x + self.out(F.gelu(self.mix(x * scale * self.gain)))


class AudioCodec(nn.Module):
    """The sound tokenizer: 8 kHz sound <-> 25 frames a second of `levels` ids below `codebook_size`.

    Its loudness is set before encoding, so that a quiet recording and a loud one get the same ids; what it decodes has
    the corpus's loudness (RMS 0.1).
    """

    def __init__(self, bands: int = 64, width: int = 128, dim: int = 64, codebook_size: int = 512, levels: int = 4,
                 warmup: int = 100):
        super().__init__()
        self.config = dict(bands=bands, width=width, dim=dim, codebook_size=codebook_size, levels=levels, warmup=warmup)
        self.sample_rate, self.frame_rate, self.samples_per_frame = SAMPLE_RATE, FRAME_RATE, FRAME_SAMPLES
        self.levels, self.codebook_size = levels, codebook_size
        self.register_buffer("filters", mel_filterbank(bands), persistent=False)
        self.register_buffer("mel_pinv", torch.linalg.pinv(mel_filterbank(bands)), persistent=False)
        self.encoder = nn.Sequential(
            nn.Conv1d(bands, width, 5, padding=2), DilatedBlock(width), DilatedBlock(width, 2), DilatedBlock(width, 4),
            nn.Conv1d(width, width, 4, stride=4), DilatedBlock(width), nn.Conv1d(width, dim, 1))
        self.quantizer = ResidualQuantizer(levels, codebook_size, dim)
        self.decoder = nn.Sequential(
            nn.Conv1d(dim, width, 3, padding=1), DilatedBlock(width), DilatedBlock(width, 2),
            nn.ConvTranspose1d(width, width, 4, stride=4),
            DilatedBlock(width, 4), DilatedBlock(width, 2), DilatedBlock(width), nn.Conv1d(width, bands, 1))
        self.warmup = warmup                                    # steps of training before anything is quantized
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def vocab_size(self) -> int:
        """The number of ids of one level (each level has its own codebook)."""
        return self.codebook_size

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """One (codebook_size, dim) tensor for each level."""
        return self.quantizer.codebooks

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, 80 n) -> (B, bands, n): the log-mel spectrogram, normalized."""
        return normalize_mel(log_mel(samples, self.filters))

    def forward(self, features: torch.Tensor, n_levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One pass for training; in train mode it also moves the codebooks.

        Args:
            features: (B, bands, 4 t). n_levels: (B,) how many levels each row may use (quantizer dropout).

        Returns:
            features rebuilt (B, bands, 4 t), the commitment loss (), ids (B, t, levels).
        """
        z = self.encoder(features).transpose(1, 2)                                     # (B, dim, t) -> (B, t, dim)
        B, t, _ = z.shape
        if self.training:
            self.steps += 1
            if self.steps <= self.warmup:                       # first learn to see, then to round
                return self.decoder(z.transpose(1, 2)), z.new_zeros(()), z.new_zeros((B, t, self.levels), dtype=torch.long)
        quantized, ids, commitment = self.quantizer(z.flatten(0, 1), n_levels.repeat_interleave(t))     # (B t, dim)
        return self.decoder(quantized.view(z.shape).transpose(1, 2)), commitment, ids.view(B, t, self.levels)

    @torch.no_grad()
    def encode(self, samples) -> torch.Tensor:
        """Sound to ids.

        Args:
            samples: (samples,) or (B, samples) float at 8 kHz, a tensor or an array; any length, padded with silence to
                whole frames of 40 ms. `mmcourse.media.Audio` makes it from a file.

        Returns:
            (B, frames, levels) int64. ValueError or TypeError for what is not such a sound.
        """
        samples = check_sound(samples)
        samples = samples - dc_offset(samples)
        samples = F.pad(samples, (0, -samples.shape[1] % FRAME_SAMPLES))                # silence to whole frames
        z = in_pieces(lambda x: self.encoder(self.features(x)), normalize_loudness(samples), FRAME_SAMPLES, 1)
        B, dim, t = z.shape
        return self.quantizer(z.transpose(1, 2).reshape(B * t, dim))[1].view(B, t, self.levels)        # (B, dim, t) -> (B t, dim)

    def check_ids(self, ids) -> torch.Tensor:
        """`ids` as int64 (B, frames, L); ValueError or TypeError that says what is wrong with them."""
        ids = torch.as_tensor(ids)
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(f"audio ids are whole numbers, got {ids.dtype}")
        ids = ids[None] if ids.ndim == 2 else ids
        if ids.ndim != 3 or not ids.numel() or ids.shape[2] > self.levels:
            raise ValueError(f"audio ids have the shape (B, frames, 1 to {self.levels} levels), got {tuple(ids.shape)}")
        if ids.min() < 0 or ids.max() >= self.codebook_size:
            raise ValueError(f"audio ids lie in 0 ... {self.codebook_size - 1}, got {ids.min()} ... {ids.max()}")
        return ids.long()

    @torch.no_grad()
    def decode_mel(self, ids) -> torch.Tensor:
        """(B, frames, L <= levels) -> (B, bands, 4 frames): natural logarithm of the amplitude in each band, 100 a second."""
        z = self.quantizer.decode(self.check_ids(ids))                                  # (B, t, dim)
        return denormalize_mel(in_pieces(self.decoder, z.transpose(1, 2), 1, 4))

    @torch.no_grad()
    def decode(self, ids) -> torch.Tensor:
        """Ids to sound: (B, frames, L) -> (B, 320 frames) float32 in [-1, 1] at 8 kHz, for any L up to `levels`."""
        # a blurred spectrogram has too little energy, so the loudness is set again
        return normalize_loudness(self.mel_to_sound(self.decode_mel(ids)), silence=0.01).clamp(-1, 1)

    @torch.no_grad()
    def mel_to_sound(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel (B, bands, n) -> (B, 80 n): amplitudes by the filters' pseudo-inverse, phases by Griffin-Lim.

        20 s at a time, with half a second of cross-fade, so that a long sound needs no more memory than a short one.
        """
        piece, overlap, out = 2000, 50, []
        fade_in = torch.linspace(0, 1, overlap * HOP, device=mel.device)
        for start in range(0, mel.shape[2], piece):
            amplitude = (mel[..., start:start + piece + overlap].exp() - FLOOR).clamp(min=0).transpose(1, 2)
            amplitude = (amplitude @ self.mel_pinv.T).clamp(min=0) * hann(WINDOW).sum() / 2             # (B, n, 257)
            sound = griffin_lim(amplitude)
            if out:                                             # the last half second was painted twice
                tail = out[-1][:, piece * HOP:]
                out[-1] = out[-1][:, :piece * HOP]
                sound[:, :overlap * HOP] = tail * (1 - fade_in) + sound[:, :overlap * HOP] * fade_in
            out.append(sound)
            if start + piece + overlap >= mel.shape[2]:         # this piece reaches the end
                break
        return torch.cat(out, 1).clamp(-1, 1)


def in_pieces(fn, x: torch.Tensor, per_frame: int, out_per_frame: int, piece: int = 500, context: int = 8) -> torch.Tensor:
    """`fn(x)` along the last axis, 20 s at a time: bounded memory and, thanks to the context, the very same result."""
    frames, out = x.shape[-1] // per_frame, []
    for start in range(0, frames, piece):
        a, b, end = max(0, start - context), min(frames, start + piece + context), min(frames, start + piece)
        y = fn(x[..., a * per_frame:b * per_frame])
        out.append(y[..., (start - a) * out_per_frame:(end - a) * out_per_frame])
    return torch.cat(out, -1)


def codec_loss(codec: AudioCodec, samples: torch.Tensor, n_levels: torch.Tensor) -> dict:
    """How far the rebuilt spectrogram is from the true one; (B, samples) levelled sound, (B,) levels that may be used."""
    target = codec.features(samples)
    rebuilt, commitment, ids = codec(target, n_levels)
    error = rebuilt - target
    mel = error.abs().mean() + 0.5 * error.square().mean()
    return {"loss": mel + commitment, "mel": mel.item(), "codes": ids[..., 0].unique().numel()}
