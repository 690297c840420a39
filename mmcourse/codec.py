"""Sound <-> ids: a log-mel spectrogram at 100 frames a second, an encoder to 25 frames a second, a residual
quantizer of four levels with 512 codes each, a decoder back to log-mel, and Griffin-Lim from there to sound.

Level 0 alone is 25 x 9 = 225 bits a second; all four are 900. Any number of leading levels decodes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import check_ids
from mmcourse.distributed import rows
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
    """A residual block along time; it hears a frame's neighbours: (B, width, n) -> same."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1))
        self.mix = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        power = x.square().mean(1, keepdim=True)           # over the channels of one moment
        scale = (power + 1e-6).rsqrt()
        return x + self.out(F.gelu(self.mix(x * scale * self.gain)))


def make_sound_encoder(bands: int, width: int, dim: int) -> nn.Sequential:
    """(B, bands, 4 t) -> (B, dim, t): four frames of 10 ms become one vector."""
    return nn.Sequential(
        nn.Conv1d(bands, width, 5, padding=2),
        DilatedBlock(width), DilatedBlock(width, 2), DilatedBlock(width, 4),
        nn.Conv1d(width, width, 4, stride=4), DilatedBlock(width), nn.Conv1d(width, dim, 1))


def make_sound_decoder(bands: int, width: int, dim: int) -> nn.Sequential:
    """(B, dim, t) -> (B, bands, 4 t)."""
    return nn.Sequential(
        nn.Conv1d(dim, width, 3, padding=1), DilatedBlock(width), DilatedBlock(width, 2),
        nn.ConvTranspose1d(width, width, 4, stride=4),
        DilatedBlock(width, 4), DilatedBlock(width, 2), DilatedBlock(width),
        nn.Conv1d(width, bands, 1))


def in_pieces(fn, x: torch.Tensor, per_frame: int, out_per_frame: int, piece: int = 500,
              context: int = 8) -> torch.Tensor:
    """`fn(x)` along the last axis, 20 s at a time: bounded memory, the very same result.

    x has `per_frame` numbers for each frame, the result `out_per_frame`. A piece is given
    `context` frames more on either side, as far as `fn` looks.
    """
    frames, out = x.shape[-1] // per_frame, []
    for start in range(0, frames, piece):
        end = min(frames, start + piece)
        a, b = max(0, start - context), min(frames, end + context)
        y = fn(x[..., a * per_frame:b * per_frame])
        out.append(y[..., (start - a) * out_per_frame:(end - a) * out_per_frame])
    return torch.cat(out, -1)


def cross_faded(paint, mel: torch.Tensor, piece: int = 2000, overlap: int = 50) -> torch.Tensor:
    """`paint(mel)`, (B, bands, n) -> (B, 80 n), 20 s at a time with half a second of cross-fade.

    So a long sound needs no more memory than a short one.
    """
    fade_in, out = torch.linspace(0, 1, overlap * HOP, device=mel.device), []
    for start in range(0, mel.shape[2], piece):
        sound = paint(mel[..., start:start + piece + overlap])
        if out:                                             # the last half second was painted twice
            tail = out[-1][:, piece * HOP:]
            out[-1] = out[-1][:, :piece * HOP]
            sound[:, :overlap * HOP] = tail * (1 - fade_in) + sound[:, :overlap * HOP] * fade_in
        out.append(sound)
        if start + piece + overlap >= mel.shape[2]:         # this piece reaches the end
            break
    return torch.cat(out, 1)


class AudioCodec(nn.Module):
    """The sound tokenizer: 8 kHz <-> 25 frames a second, `levels` ids in each.

    Loudness is set before encoding, so that a quiet recording and a loud one get the same
    ids; what is decoded has the corpus's loudness (RMS 0.1). For `warmup` steps of training
    nothing is quantized: first learn to see, then to round.
    """

    def __init__(self, bands: int = 64, width: int = 128, dim: int = 64,
                 codebook_size: int = 512, levels: int = 4, warmup: int = 100):
        super().__init__()
        self.config = dict(bands=bands, width=width, dim=dim, codebook_size=codebook_size,
                           levels=levels, warmup=warmup)
        self.sample_rate, self.frame_rate = SAMPLE_RATE, FRAME_RATE
        self.samples_per_frame = FRAME_SAMPLES
        self.levels, self.codebook_size, self.warmup = levels, codebook_size, warmup
        filters = mel_filterbank(bands)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("mel_pinv", torch.linalg.pinv(filters), persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))    # trained so far
        self.encoder = make_sound_encoder(bands, width, dim)
        self.quantizer = ResidualQuantizer(levels, codebook_size, dim)
        self.decoder = make_sound_decoder(bands, width, dim)

    @property
    def vocab_size(self) -> int:
        """The number of ids of one level: each level has its own codebook."""
        return self.codebook_size

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """One (codebook_size, dim) tensor for each level."""
        return self.quantizer.codebooks

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, 80 n) -> (B, bands, n): the log-mel spectrogram, normalized."""
        return normalize_mel(log_mel(samples, self.filters))

    def forward(self, features: torch.Tensor, n_levels: torch.Tensor):
        """(B, bands, 4 t), (B,) levels that each row may use -> rebuilt, commitment, ids.

        In train mode it also moves the codebooks. The ids are (B, t, levels).
        """
        z = self.encoder(features).transpose(1, 2)              # (B, dim, t) -> (B, t, dim)
        B, t, _ = z.shape
        if self.training:
            self.steps += 1
            if self.steps <= self.warmup:
                ids = z.new_zeros((B, t, self.levels), dtype=torch.long)
                return self.decoder(z.transpose(1, 2)), z.new_zeros(()), ids
        rows = n_levels.repeat_interleave(t)                        # (B,) -> (B t,)
        quantized, ids, commitment = self.quantizer(z.flatten(0, 1), rows)
        rebuilt = self.decoder(quantized.view(z.shape).transpose(1, 2))
        return rebuilt, commitment, ids.view(B, t, self.levels)

    @torch.no_grad()
    def encode(self, samples) -> torch.Tensor:
        """(samples,) or (B, samples) float at 8 kHz -> ids (B, frames, levels) int64.

        Any length: silence fills the last frame of 40 ms. ValueError or TypeError for what
        is no sound; `mmcourse.media.Audio` makes it from a file.
        """
        samples = check_sound(samples)
        samples = samples - dc_offset(samples)
        size = self.samples_per_frame
        samples = normalize_loudness(F.pad(samples, (0, -samples.shape[1] % size)))
        z = in_pieces(lambda x: self.encoder(self.features(x)), samples, size, 1)
        B, dim, t = z.shape
        ids = self.quantizer(z.transpose(1, 2).reshape(B * t, dim))[1]
        return ids.view(B, t, self.levels)

    def check_ids(self, ids) -> torch.Tensor:
        """`ids` as int64 (B, frames, L); ValueError or TypeError for what is not ids."""
        return check_audio_ids(ids, self.levels, self.codebook_size)

    @torch.no_grad()
    def decode_mel(self, ids) -> torch.Tensor:
        """(B, frames, L <= levels) -> (B, bands, 4 frames), the log amplitude in bands."""
        z = self.quantizer.decode(self.check_ids(ids))              # (B, t, dim)
        return denormalize_mel(in_pieces(self.decoder, z.transpose(1, 2), 1, 4))

    @torch.no_grad()
    def decode(self, ids) -> torch.Tensor:
        """(B, frames, L), any L up to `levels` -> (B, 320 frames) float32 in [-1, 1]."""
        sound = self.mel_to_sound(self.decode_mel(ids))
        return normalize_loudness(sound, silence=0.01).clamp(-1, 1)    # a blur is too quiet

    @torch.no_grad()
    def mel_to_sound(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel (B, bands, n) -> (B, 80 n): amplitudes, roughly, then Griffin-Lim."""
        def paint(piece):
            bands = (piece.exp() - FLOOR).clamp(min=0).transpose(1, 2)       # (B, n, bands)
            amplitude = (bands @ self.mel_pinv.T).clamp(min=0)               # (B, n, 257)
            return griffin_lim(amplitude * hann(WINDOW).sum() / 2)

        return cross_faded(paint, mel).clamp(-1, 1)


def codec_loss(codec: AudioCodec, samples: torch.Tensor, n_levels: torch.Tensor) -> dict:
    """How far the rebuilt spectrogram is from the true one, plus commitment.

    (B, samples) sound of even loudness, (B,) the number of levels that each row may use.
    """
    target = codec.features(samples)
    rebuilt, commitment, ids = codec(target, n_levels)
    error = rebuilt - target
    mel = error.abs().mean() + 0.5 * error.square().mean()
    codes = ids[..., 0].unique().numel()
    return {"loss": mel + commitment, "mel": mel.item(), "codes": codes}


codec_loss.mean_over = rows


def check_audio_ids(ids, levels: int, codebook_size: int) -> torch.Tensor:
    """`ids` as int64 (B, frames, L), L <= levels; ValueError or TypeError that says what is wrong."""
    if not isinstance(ids, torch.Tensor) and ids is not None:
        ids = torch.as_tensor(ids)                           # lists and arrays are welcome
    ids = ids[None] if isinstance(ids, torch.Tensor) and ids.ndim == 2 else ids
    check_ids(ids, codebook_size, ("B", "frames", f"1 to {levels} levels"), "audio ids")
    if not len(ids) or ids.shape[2] > levels:
        raise ValueError(f"audio ids have the shape (B, frames, 1 to {levels} levels), got "
                         f"{tuple(ids.shape)}")
    return ids.long()
