"""Sound <-> ids. A log-mel spectrogram at 100 frames a second, a small convolutional encoder to 25 frames a second, a
residual quantiser of four levels with 512 codes each, a decoder back to log-mel, and Griffin-Lim from there to sound.

Level 0 alone is 25 x 9 = 225 bits a second; all four are 900. Any number of leading levels decodes.
"""
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HOP = 80                      # samples from one frame to the next: 10 ms
WINDOW = 256                  # samples in a frame: 32 ms, about three periods of a low voice
FFT = 512                     # the frame is padded with zeros to this length: bins of 15.6 Hz
RATE = 8000                   # Hz
FLOOR = 1e-4                  # amplitudes below this (-80 dB) count as silence


def hann(length: int) -> torch.Tensor:
    """The (periodic) Hann window, (length,): it rises from 0 to 1 and falls again; frames fade in and out.

    >>> hann(4).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    return 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(length) / length)


def stft(samples: torch.Tensor) -> torch.Tensor:
    """Short-time Fourier transform: (B, 80 n) samples -> (B, n, 257) complex, one row for each 10 ms."""
    margin = (WINDOW - HOP) // 2                    # frame t is centred on samples 80 t ... 80 t + 79
    frames = F.pad(samples, (margin, margin)).unfold(-1, WINDOW, HOP)                  # (B, n, 256)
    return torch.fft.rfft(frames * hann(WINDOW), n=FFT)


def istft(spectrum: torch.Tensor) -> torch.Tensor:
    """The inverse: (B, n, 257) -> (B, 80 n). Frames are windowed again, added where they overlap, divided by
    the sum of the squared windows: least squares where frames disagree (Griffin and Lim, 1984).
    """
    n, margin = spectrum.shape[1], (WINDOW - HOP) // 2
    frames = torch.fft.irfft(spectrum, n=FFT)[..., :WINDOW] * hann(WINDOW)             # (B, n, 256)
    total = (n - 1) * HOP + WINDOW

    def add(pieces):                                                               # (B, n, 256) -> (B, total)
        return F.fold(pieces.transpose(1, 2), (1, total), (1, WINDOW), stride=(1, HOP))[:, 0, 0]
    weight = add(hann(WINDOW).square().expand(1, n, WINDOW))
    return (add(frames) / weight.clamp(min=1e-8))[:, margin:margin + n * HOP]


def hz_to_mel(hz):
    """The mel scale: equal steps sound equally far apart; nearly linear below 700 Hz, logarithmic above."""
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def mel_to_hz(mel):
    """The inverse of `hz_to_mel`."""
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


def mel_filterbank(bands: int, low: float = 40.0, high: float = RATE / 2) -> torch.Tensor:
    """Triangles (bands, 257), evenly spaced in mel, each row summing to 1: band b is the mean amplitude around its peak."""
    edges = mel_to_hz(np.linspace(hz_to_mel(low), hz_to_mel(high), bands + 2))
    hz = np.linspace(0, RATE / 2, FFT // 2 + 1)
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((hz - left) / (peak - left), (right - hz) / (right - peak)))
    return torch.tensor(triangles / triangles.sum(1, keepdims=True), dtype=torch.float32)


def log_mel(samples: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """(B, 80 n) samples -> (B, bands, n): the log amplitude in each band (a full-scale sine has about 0)."""
    amplitude = stft(samples).abs() / (hann(WINDOW).sum() / 2)                         # (B, n, 257)
    return (amplitude @ filters.T).clamp(min=FLOOR).log().transpose(1, 2)              # (B, bands, n)


def griffin_lim(amplitude: torch.Tensor, rounds: int = 32, momentum: float = 0.99) -> torch.Tensor:
    """Sound from amplitudes alone: (B, n, 257) -> (B, 80 n).

    Start with random phases; go to sound and back, keep the phases that come back, put the wanted amplitudes in again.
    The momentum is that of the fast version (Perraudin, Balazs and Sondergaard, 2013).
    """
    noise = torch.rand(amplitude.shape[1:], generator=torch.Generator().manual_seed(0))     # the same for every sound
    phase, before = torch.polar(torch.ones_like(noise), 2 * math.pi * noise).expand(amplitude.shape), 0
    for _ in range(rounds):
        there = stft(istft(amplitude * phase))
        ahead = there + momentum * (there - before)
        phase, before = torch.sgn(ahead), there                 # the direction alone, of length 1
    return istft(amplitude * phase)


def level_sound(samples: torch.Tensor, loudness: float = 0.1, silence: float = 1e-4) -> torch.Tensor:
    """Scale each row of (B, samples) so that its loud parts have an RMS of `loudness`; if that is below `silence`, to 0."""
    count = samples.shape[-1] // HOP * HOP
    energy = samples[..., :count].unflatten(-1, (-1, HOP)).square().mean(-1)           # (B, pieces of 10 ms)
    loud = energy > energy.amax(-1, keepdim=True) * 10 ** -3.6
    rms = ((energy * loud).sum(-1, keepdim=True) / loud.sum(-1, keepdim=True).clamp(min=1)).sqrt()
    return torch.where(rms > silence, samples * loudness / rms.clamp(min=silence), torch.zeros_like(samples))


def levelling_gain(samples: torch.Tensor, silence: float = 1e-4) -> torch.Tensor:
    """The factor (B, 1) that `level_sound` applies to each row of (B, samples); 0 for silence."""
    peak = samples.abs().amax(-1, keepdim=True)
    return level_sound(samples, silence=silence).abs().amax(-1, keepdim=True) / peak.clamp(min=1e-9)


def offset(samples: torch.Tensor) -> torch.Tensor:
    """What a faulty microphone adds to every sample: the mean of each row of (B, samples), as (B, 1), where it is more
    than half of the RMS, else 0. No ear hears it, but it would be taken for loudness.
    """
    mean, rms = samples.mean(-1, keepdim=True), samples.square().mean(-1, keepdim=True).sqrt()
    return torch.where(mean.abs() > 0.5 * rms, mean, torch.zeros_like(mean))


class Block(nn.Module):
    """A residual block along time: what a frame's neighbours say is added to it; (B, width, n) as before."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1))
        self.mix = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = (x.square().mean(1, keepdim=True) + 1e-6).rsqrt()       # over the channels of one moment only
        return x + self.out(F.gelu(self.mix(x * scale * self.gain)))


class Quantiser(nn.Module):
    """One codebook. In training the codes are moving averages of the vectors that chose them (van den Oord et al.,
    2017, appendix A.1), and a code that nobody chooses restarts at a random vector of the batch.
    """

    def __init__(self, size: int, dim: int, decay: float = 0.98):
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", torch.zeros(size, dim))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def nearest(self, z: torch.Tensor) -> torch.Tensor:
        """(N, dim) -> (N,) int64: the index of the nearest code."""
        return (self.codes.square().sum(1) - 2 * z @ self.codes.T).argmin(1)

    @torch.no_grad()
    def update(self, z: torch.Tensor, ids: torch.Tensor) -> None:
        """Move the codes towards the vectors (N, dim) that chose them."""
        size, dim = self.codes.shape
        counts = torch.bincount(ids, minlength=size).float()
        sums = torch.zeros_like(self.codes).index_add_(0, ids, z)
        total = self.decay * self.counts + (1 - self.decay) * counts
        moved = (self.decay * self.counts[:, None] * self.codes + (1 - self.decay) * sums) / total[:, None].clamp(min=1e-6)
        self.codes.copy_(torch.where(total[:, None] > 1e-6, moved, self.codes))
        self.counts.copy_(total)
        dead = total < 0.05 * len(z) / size                     # the threshold scales with what a code can expect
        fresh = z[torch.randint(len(z), (size,))]
        self.codes[dead] = fresh[dead]
        self.counts[dead] = len(z) / size

    @torch.no_grad()
    def start(self, z: torch.Tensor) -> None:
        """The first codes are vectors of the batch."""
        self.codes.copy_(z[torch.randint(len(z), (len(self.codes),))])
        self.counts.fill_(len(z) / len(self.codes))
        self.started.fill_(True)


def quantise_residual(z: torch.Tensor, codebooks: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Residual quantisation: each level takes the code nearest to what the levels before it left over.

    Args:
        z: (N, dim) vectors. codebooks: one (K, dim) tensor for each level.

    Returns:
        ids (N, levels) int64 and the sum of the chosen codes (N, dim).
    """
    rest, ids = z, []
    for codes in codebooks:
        index = (codes.square().sum(1) - 2 * rest @ codes.T).argmin(1)
        ids.append(index)
        rest = rest - codes[index]
    return torch.stack(ids, 1), z - rest


class AudioCodec(nn.Module):
    """The sound tokenizer: 8 kHz sound <-> 25 frames a second of `levels` ids below `codebook_size`.

    Its loudness is set before encoding, so that a quiet recording and a loud one get the same ids; what it decodes has
    the corpus's loudness (RMS 0.1).
    """

    def __init__(self, bands: int = 64, width: int = 128, dim: int = 64, codebook_size: int = 512, levels: int = 4,
                 warmup: int = 100):
        super().__init__()
        self.config = dict(bands=bands, width=width, dim=dim, codebook_size=codebook_size, levels=levels, warmup=warmup)
        self.sample_rate, self.frame_rate, self.levels, self.codebook_size = RATE, 25, levels, codebook_size
        self.samples_per_frame = RATE // self.frame_rate                                # 320: 40 ms
        self.register_buffer("filters", mel_filterbank(bands), persistent=False)
        self.register_buffer("unfilter", torch.linalg.pinv(mel_filterbank(bands)), persistent=False)
        self.encoder = nn.Sequential(
            nn.Conv1d(bands, width, 5, padding=2), Block(width), Block(width, 2), Block(width, 4),
            nn.Conv1d(width, width, 4, stride=4), Block(width), nn.Conv1d(width, dim, 1))
        self.decoder = nn.Sequential(
            nn.Conv1d(dim, width, 3, padding=1), Block(width), Block(width, 2), nn.ConvTranspose1d(width, width, 4, stride=4),
            Block(width, 4), Block(width, 2), Block(width), nn.Conv1d(width, bands, 1))
        self.quantisers = nn.ModuleList(Quantiser(codebook_size, dim) for _ in range(levels))
        self.warmup = warmup                                    # steps of training before anything is quantised
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def vocab_size(self) -> int:
        """The number of ids of one level (each level has its own codebook)."""
        return self.codebook_size

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """One (codebook_size, dim) tensor for each level."""
        return [quantiser.codes for quantiser in self.quantisers]

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, 80 n) -> (B, bands, n): the log-mel spectrogram, shifted and scaled to about -1 ... 2."""
        return (log_mel(samples, self.filters) + 7) / 2

    def forward(self, features: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One pass for training; in train mode it also moves the codebooks.

        Args:
            features: (B, bands, 4 t). keep: (B,) how many levels each row may use (quantiser dropout, Zeghidour et al.,
                SoundStream, 2021).

        Returns:
            features rebuilt (B, bands, 4 t), the commitment loss (), ids (B, t, levels).
        """
        z = self.encoder(features).transpose(1, 2)                                     # (B, t, dim)
        B, t, dim = z.shape
        if self.training:
            self.steps += 1
            if self.steps <= self.warmup:                       # first learn to see, then to round
                return self.decoder(z.transpose(1, 2)), z.new_zeros(()), z.new_zeros((B, t, self.levels), dtype=torch.long)
        rest, total, commitment, ids = z, torch.zeros_like(z), 0.0, []
        for level, quantiser in enumerate(self.quantisers):
            flat = rest.detach().reshape(B * t, dim)                                   # (B t, dim)
            if self.training and not quantiser.started:
                quantiser.start(flat)
            index = quantiser.nearest(flat)
            chosen = quantiser.codes[index].view(B, t, dim)                            # (B, t, dim)
            used = (keep > level).float()[:, None, None]                               # (B, 1, 1)
            commitment = commitment + (used * (rest - chosen).square()).mean()
            if self.training:
                quantiser.update(flat, index)
            total, rest = total + used * chosen, rest - chosen
            ids.append(index.view(B, t))
        z = z + (total - z).detach()                            # straight through: the gradient ignores the rounding
        return self.decoder(z.transpose(1, 2)), commitment, torch.stack(ids, -1)

    @torch.no_grad()
    def encode(self, samples) -> torch.Tensor:
        """Sound to ids.

        Args:
            samples: (samples,) or (B, samples) float at 8 kHz, a tensor or an array; any length, padded with silence to
                whole frames of 40 ms. `mmcourse.world.speech.read_sound` makes it from a file.

        Returns:
            (B, frames, levels) int64. ValueError or TypeError for what is not such a sound.
        """
        samples = check_sound(samples)
        return self._ids(level_sound(self._whole_frames(samples - offset(samples))))

    @torch.no_grad()
    def encode_stream(self, pieces: Iterable) -> torch.Tensor:
        """`encode` for sound that comes in pieces, from a microphone or from a file too long for the memory.

        Args:
            pieces: (samples,) float at 8 kHz each, of any lengths; no more than about 20 s of them are held at a time.

        Returns:
            (1, frames, levels) int64: those of `encode`, but the loudness is set by the first 20 s that are not silent.
        """
        size, context = 500 * self.samples_per_frame, 8 * self.samples_per_frame
        held, out, back = [torch.zeros(1, 0)], [], 0            # `back`: samples that are held as context alone
        gain = level = torch.zeros(1, 1)
        for piece in itertools.chain(pieces, [None]):
            held += [check_sound(piece)] if piece is not None else []
            while (count := sum(x.shape[1] for x in held)) >= back + size + context or piece is None and count > back:
                sound = torch.cat(held, 1)
                part = sound[:, :back + size + context]
                level = torch.where(gain > 0, level, offset(part))
                part = self._whole_frames(part - level)
                gain = torch.where(gain > 0, gain, levelling_gain(part))
                ids = self._ids(part * gain)
                out.append(ids[:, back // self.samples_per_frame:][:, :500])
                held, back = [sound[:, max(0, back + size - context):]], context
        if not out:
            raise ValueError("no sound came: the stream has no samples")
        return torch.cat(out, 1)

    def _whole_frames(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, samples), padded with silence to whole frames."""
        return F.pad(samples, (0, -samples.shape[1] % self.samples_per_frame))

    def _ids(self, samples: torch.Tensor) -> torch.Tensor:
        """Levelled sound of whole frames (B, samples) -> (B, frames, levels)."""
        z = in_pieces(lambda x: self.encoder(self.features(x)), samples, self.samples_per_frame, 1)     # (B, dim, t)
        B, dim, t = z.shape
        ids, _ = quantise_residual(z.transpose(1, 2).reshape(B * t, dim), self.codebooks)     # (B t, levels)
        return ids.view(B, t, self.levels)                                             # (B, t, levels)

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
        ids = self.check_ids(ids)
        z = sum(codes[ids[..., level]] for level, codes in enumerate(self.codebooks[:ids.shape[2]]))     # (B, t, dim)
        return in_pieces(self.decoder, z.transpose(1, 2), 1, 4) * 2 - 7

    @torch.no_grad()
    def decode(self, ids) -> torch.Tensor:
        """Ids to sound: (B, frames, L) -> (B, 320 frames) float32 in [-1, 1] at 8 kHz, for any L up to `levels`."""
        # a blurred spectrogram has too little energy, so the loudness is set again
        return level_sound(self.mel_to_sound(self.decode_mel(ids)), silence=0.01).clamp(-1, 1)

    @torch.no_grad()
    def decode_stream(self, ids) -> Iterator[torch.Tensor]:
        """`decode`, 20 s at a time: yields (B, samples) pieces; the loudness is set by the first one that is not silent."""
        ids, per_frame = self.check_ids(ids), self.samples_per_frame // HOP
        gain = torch.zeros(len(ids), 1)

        def mel(start: int, end: int) -> torch.Tensor:          # a few more ids on both sides, so that there are no seams
            first = max(0, start // per_frame - 8)
            around = self.decode_mel(ids[:, first:-(-end // per_frame) + 8])
            return around[..., start - first * per_frame:end - first * per_frame]
        for piece in self._sound_pieces(mel, ids.shape[1] * per_frame):
            gain = torch.where(gain > 0, gain, levelling_gain(piece, silence=0.01))
            yield (piece * gain).clamp(-1, 1)

    @torch.no_grad()
    def mel_to_sound(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel (B, bands, n) -> (B, 80 n): amplitudes by the filters' pseudo-inverse, phases by Griffin-Lim."""
        return torch.cat(list(self._sound_pieces(lambda start, end: mel[..., start:end], mel.shape[2])), 1)

    def _sound_pieces(self, mel: Callable, n: int) -> Iterator[torch.Tensor]:
        """`mel_to_sound` of the n frames that `mel(start, end)` hands out: 20 s at a time, 0.5 s of cross-fade between."""
        piece, overlap = 2000, 50
        ramp, tail = torch.linspace(0, 1, overlap * HOP), None
        for start in range(0, n, piece):
            amplitude = (mel(start, min(n, start + piece + overlap)).exp() - FLOOR).clamp(min=0).transpose(1, 2)
            amplitude = (amplitude @ self.unfilter.T).clamp(min=0) * hann(WINDOW).sum() / 2                 # (B, n, 257)
            out = griffin_lim(amplitude)
            if tail is not None:
                out = torch.cat([tail * (1 - ramp) + out[:, :overlap * HOP] * ramp, out[:, overlap * HOP:]], 1)
            if start + piece + overlap >= n:                    # this piece reaches the end
                yield out.clamp(-1, 1)
                return
            tail = out[:, -overlap * HOP:]
            yield out[:, :-overlap * HOP].clamp(-1, 1)


def check_sound(samples) -> torch.Tensor:
    """(samples,) or (B, samples) as float32 (B, samples); ValueError or TypeError that says what is wrong."""
    samples = torch.as_tensor(samples)
    if not samples.is_floating_point():
        raise TypeError(f"sound is float in [-1, 1], got {samples.dtype}; divide int16 samples by 32768, "
                        "or let mmcourse.world.speech.as_sound do it")
    samples = samples[None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or not samples.numel():
        raise ValueError(f"sound has the shape (samples,) or (B, samples), not empty, got {tuple(samples.shape)}; "
                         "take the mean over the channels of a stereo recording")
    if not samples.isfinite().all():
        raise ValueError("the sound has NaN or infinite samples")
    return samples.float()


def in_pieces(fn, x: torch.Tensor, per_frame: int, out_per_frame: int, piece: int = 500, context: int = 8) -> torch.Tensor:
    """`fn(x)` along the last axis, 20 s at a time: bounded memory and, thanks to the context, the very same result."""
    frames, out = x.shape[-1] // per_frame, []
    for start in range(0, frames, piece):
        a, b, end = max(0, start - context), min(frames, start + piece + context), min(frames, start + piece)
        y = fn(x[..., a * per_frame:b * per_frame])
        out.append(y[..., (start - a) * out_per_frame:(end - a) * out_per_frame])
    return torch.cat(out, -1)


def codec_loss(codec: AudioCodec, samples: torch.Tensor, keep: torch.Tensor) -> dict:
    """How far the rebuilt spectrogram is from the true one; (B, samples) levelled sound, (B,) levels that may be used."""
    target = codec.features(samples)
    rebuilt, commitment, ids = codec(target, keep)
    error = rebuilt - target
    mel = error.abs().mean() + 0.5 * error.square().mean()
    return {"loss": mel + 0.25 * commitment, "mel": mel.item(), "codes": ids[..., 0].unique().numel()}
