"""The words of the world, spoken by many synthetic voices (espeak-ng, by ctypes) at 8 kHz.

espeak-ng is a formant synthesiser: its voices sound like machines, but they are free, small, exact in their
labels and hundreds of times faster than real time. Sound is made in a fresh process and in fixed order,
because a second call in one process may differ by a few samples; the arithmetic below is exact, so that every
machine gets the same bits.
"""
import ctypes
import hashlib
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np

from mmcourse.files import atomic_write
from mmcourse.paths import cache_dir
from mmcourse.world.rules import unit_hash
from mmcourse.world.scene import WORDS, held_out_voice

SAMPLE_RATE = 8000
TAKES = 2                    # each voice says each word twice, with another pitch and speed
LONGEST = 0.9                # seconds
LOUDNESS = 0.1               # RMS of every clip (full scale is 1)
# Every sixth voice is held out (`held_out_voice`); no variant (the part after "+") is on both sides. Variants
# with breath (f2, f3, f5, Alicia, ...) are left out: espeak-ng makes their noise anew in each process.
VOICES = tuple("""
en-us en-us+m1 en-us+f1 en-us+m3 en+Annie en-us+Andrea
en-us+Gene en en+f1 en-us+Alex en-us+linda en-us+m4
en-us+anika en+m3 en-us+Annie en-us+m5 en+linda en+f4
en-us+m6 en-us+adam en-gb-scotland en+m7 en-us+m7 en-us+paul
en-us+steph en+anika en-us+Michael en-us+Hugo en-us+m8 en-us+belinda
en-us+david en-us+Denis en-gb-x-rp en-us+ed en+m1 en-us+edward
en-us+Andy en-us+Jacky en-us+max en-us+pablo en-us+Mike en+m2
en-us+Diogo en+steph2 en-us+antonio en-us+rob en-us-nyc en-us+zac
""".split())
# SHA-256 of the corpus of WORDS that espeakng-loader 0.2.4 makes (espeak-ng 1.52)
EXPECTED = "a8d410be83f33afc97f3fb8a394c795d48577fd3d7cdd63743d140c01b8563cc"


@dataclass
class SpeechCorpus:
    """Spoken words: clip i says `words[i]` in voice `VOICES[voices[i]]`.

    `clips`: list of float32 arrays (samples,) at 8 kHz, RMS `LOUDNESS`; `held_out`: bool array, true for the
    voices that nothing trains on.
    """
    clips: list
    words: list
    voices: list
    held_out: np.ndarray

    def __len__(self) -> int:
        return len(self.clips)

    def select(self, word: str | None = None, held_out: bool | None = False,
               voice: int | None = None) -> list[int]:
        """The indices of the clips that say `word`, by `voice`, in the wanted split; None means any.

        >>> corpus.select("cat", held_out=True)                                      # doctest: +SKIP
        [874, 875, ...]
        """
        if word is not None and word not in self.words:
            words = ", ".join(sorted(set(self.words)))
            raise ValueError(f"nobody says {word!r} in this world; the words are {words}")
        return [i for i in range(len(self)) if (word is None or self.words[i] == word)
                and (held_out is None or bool(self.held_out[i]) == held_out)
                and (voice is None or self.voices[i] == voice)]


@lru_cache(maxsize=32)
def _low_pass(up: int, down: int) -> tuple[np.ndarray, int]:
    """Taps (up, width) of a Kaiser-windowed sinc, one row for each phase, as whole numbers / 2^20."""
    cutoff = min(1.0, up / down) * 0.95                                   # 1 is the input's Nyquist frequency
    half = int(np.ceil(16 / cutoff))                                      # 16 zero crossings on each side
    offset = np.arange(-half + 1, half + 1)[None] - np.arange(up)[:, None] / up         # (up, width)
    kaiser = np.i0(8 * np.sqrt(np.clip(1 - (offset / half) ** 2, 0, 1)))
    taps = np.sinc(cutoff * offset) * kaiser
    return np.round(taps / taps.sum(1, keepdims=True) * 2**20), half


def resample(samples: np.ndarray, rate: int, new_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Change the sample rate of (samples,): low-pass below both Nyquist frequencies, read in between.

    Whole numbers in give the same sums on every machine (they are exact in float64). Returns float64.
    """
    if rate <= 0 or new_rate <= 0 or int(rate) != rate or int(new_rate) != new_rate:
        raise ValueError(f"a sample rate is a positive whole number of Hz, got {rate} -> {new_rate}")
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 1:
        raise ValueError(f"resample takes one channel, (samples,), got shape {samples.shape}")
    common = gcd(int(rate), int(new_rate))
    up, down = int(new_rate) // common, int(rate) // common
    if up == down or not len(samples):
        return samples
    taps, half = _low_pass(up, down)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (half - 1, half + 1)), 2 * half)
    out = np.empty(-(-len(samples) * up // down))
    for start in range(0, len(out), 65536):                  # in pieces: an hour of sound fits as well
        position = np.arange(start, min(start + 65536, len(out)), dtype=np.int64) * down
        out[start:start + 65536] = np.einsum("mw,mw->m", windows[position // up], taps[position % up]) / 2**20
    return out


def trim(samples: np.ndarray, rate: int = SAMPLE_RATE, floor_db: float = -36.0) -> np.ndarray:
    """Cut the silence at both ends: 10 ms pieces that lie more than `floor_db` below the loudest one."""
    piece = rate // 100
    usable = len(samples) // piece * piece
    if not usable:
        return samples
    energy = (samples[:usable].astype(np.float64).reshape(-1, piece) ** 2).sum(1)     # (pieces,)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (floor_db / 10))
    return samples[max(0, loud[0] - 1) * piece:(loud[-1] + 2) * piece] if len(loud) else samples


def normalize_rms(samples: np.ndarray, loudness: float = LOUDNESS) -> np.ndarray:
    """Scale to an RMS of `loudness`, less if a peak would leave [-1, 1]. Silence stays silence."""
    rms = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return samples * min(loudness / rms, 0.99 / np.abs(samples).max()) if rms > 1e-6 else samples


MOST_CHANNELS = 8


def to_mono(samples) -> np.ndarray:
    """Samples of any recording as float64 (n,) in [-1, 1].

    Args:
        samples: (n,) or (n, channels), floats in [-1, 1] or whole numbers of 8, 16 or 32 bits, as sound files
            have them; up to eight channels are averaged, and (channels, n) is understood too. TypeError or
            ValueError for what is no recording.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind not in "iuf":
        raise TypeError(f"samples are floats in [-1, 1] or integers, got {samples.dtype}")
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(f"samples have the shape (n,) or (n, channels) with n > 0, got {samples.shape}")
    if samples.dtype.kind in "iu":
        if samples.dtype.itemsize > 4:
            raise ValueError(f"whole numbers of 64 bits ({samples.dtype}) say nothing of their scale: pass 16-bit "
                             "samples with .astype(np.int16), or divide them by 32768")
        full = np.iinfo(samples.dtype).max + 1.0
        unsigned = samples.dtype.kind == "u"                   # these rest at the middle
        samples = samples / (full / 2) - 1 if unsigned else samples / full
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1] and samples.shape[0] <= MOST_CHANNELS:
        samples = samples.T                                          # (channels, n) -> (n, channels)
    if samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS:
        raise ValueError(f"a recording has up to {MOST_CHANNELS} channels, (n, channels), got {samples.shape}: "
                         "give one sound at a time")
    if not np.isfinite(samples).all():
        raise ValueError("the sound holds NaN or infinite values: look at what made it")
    if np.abs(samples).max() > 2:                              # a little over 1 is what MP3 and resampling do
        lowest, highest = samples.min(), samples.max()
        raise ValueError(f"samples that are floats must lie in [-1, 1], got {lowest:.3g}..{highest:.3g}: "
                         "divide 16-bit samples by 32768, or pass them as int16")
    return (mix(samples) if samples.ndim == 2 else samples.astype(np.float64)).clip(-1, 1)


def mix(channels: np.ndarray) -> np.ndarray:
    """The mean of the channels (n, channels) -> (n,); the loudest one if they cancel each other."""
    mean = channels.mean(1, dtype=np.float64)
    each = channels.std(0, dtype=np.float64)
    return channels[:, each.argmax()].astype(np.float64) if mean.std() < 0.1 * each.max() else mean


class _Espeak:
    """The few calls of libespeak-ng that are needed. For a process of its own: it has global state and a place."""

    def __init__(self):
        import espeakng_loader
        self.lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self.chunks = []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        def receive(wave, count, events):
            if wave and count:
                self.chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
            return 0
        self.receive = receive                 # a reference must live as long as the library may call it
        # From within, as ".": espeak-ng keeps 160 bytes for a path, and some installations lie deeper than that.
        os.chdir(os.path.dirname(espeakng_loader.get_data_path()))
        self.rate = self.lib.espeak_Initialize(2, 0, b".", 0)            # 2: hand over the sound, then return
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng did not start (code {self.rate}); reinstall espeakng-loader")
        self.lib.espeak_SetSynthCallback(self.receive)

    def __call__(self, text: str, voice: str, pitch: int, speed: int) -> np.ndarray:
        """int16 (samples,) at `self.rate`."""
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}; examples: en-us, en+f2, vi, vi-VN-x-south")
        self.lib.espeak_SetParameter(1, speed, 0)                              # 1: words a minute
        self.lib.espeak_SetParameter(3, pitch, 0)                              # 3: base pitch, 0 to 99
        self.chunks.clear()
        data = text.encode("utf-8") + b"\0"
        if self.lib.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, 1, None, None):       # 1: UTF-8
            raise RuntimeError(f"espeak-ng could not say {text!r}")
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.int16)


def corpus_jobs(voices: tuple[str, ...] = VOICES, lowest_pitch: int = 30, pitch_range: int = 40,
                words: tuple[str, ...] = WORDS) -> list[tuple[str, int, int, int]]:
    """(word, voice, pitch, speed) of every clip, in fixed order; the two last depend on the names alone."""
    return [(word, voice, lowest_pitch + int(pitch_range * unit_hash("pitch", word, name, take)),
             145 + int(45 * unit_hash("speed", word, name, take)))
            for voice, name in enumerate(voices) for word in words for take in range(TAKES)]


def _child() -> None:
    """In the fresh process: jobs come in as JSON; rate, length and samples of each go out."""
    jobs, out = json.loads(sys.stdin.buffer.read()), sys.stdout.buffer
    espeak = _Espeak()
    for text, voice, pitch, speed in jobs:
        sound = espeak(text, voice, pitch, speed)
        out.write(np.array([espeak.rate, len(sound)], "<i4").tobytes() + sound.astype("<i2").tobytes())
    out.flush()


def speak(jobs: list):
    """Yield (int16 samples, rate) for each (text, voice name, pitch, speed), spoken by one fresh process."""
    import threading
    command = [sys.executable, "-c", "from mmcourse.world.speech import _child; _child()"]
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=env, **pipes) as child:
        errors = io.BytesIO()
        reader = threading.Thread(target=lambda: errors.write(child.stderr.read()), daemon=True)
        reader.start()
        child.stdin.write(json.dumps(jobs).encode())
        child.stdin.close()
        for text, *_ in jobs:
            head = child.stdout.read(8)
            if len(head) < 8:
                child.wait()
                reader.join()
                lines = errors.getvalue().decode(errors="replace").strip().splitlines()
                last = lines[-1] if lines else f"espeak-ng stopped with code {child.returncode}"
                kind = ValueError if last.startswith("ValueError") else RuntimeError
                raise kind(f"could not say {text!r}: {last}")
            rate, count = np.frombuffer(head, "<i4")
            yield np.frombuffer(child.stdout.read(2 * int(count)), "<i2"), int(rate)


def synthesize(text: str, voice: str | int = "en-us", pitch: int = 50, speed: int = 165) -> np.ndarray:
    """Any text, spoken: float32 (samples,) at 8 kHz.

    Args:
        voice: an espeak-ng voice: `en-us`, `en+f2` (a variant), `vi` (Vietnamese), `vi-VN-x-south`, ... or an
            index of `VOICES`.
        pitch: 0 to 99. speed: words a minute, 80 to 450.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"nothing to say: {text!r}")
    if not 0 <= pitch <= 99 or not 80 <= speed <= 450:
        raise ValueError(f"pitch is 0 to 99 and speed 80 to 450 words a minute, got {pitch} and {speed}")
    if isinstance(voice, int | np.integer) and not 0 <= voice < len(VOICES):
        raise ValueError(f"a voice's index is 0 to {len(VOICES) - 1}, got {voice}")
    name = VOICES[voice] if isinstance(voice, int | np.integer) else voice
    (sound, rate), = speak([(text, name, int(pitch), int(speed))])
    return np.clip(to_clip(sound, rate) / 32767, -1, 1).astype(np.float32)


def to_clip(sound: np.ndarray, rate: int, longest: float | None = None) -> np.ndarray:
    """From espeak's samples to a clip: 8 kHz, silence trimmed, loudness set, 5 ms fades at both ends."""
    sound = trim(np.round(resample(sound, rate)))
    sound = sound[:int(longest * SAMPLE_RATE)] if longest else sound
    sound = normalize_rms(sound / 32768)
    fade = np.minimum(1, np.arange(1, len(sound) + 1) / 40)
    return np.round(sound * fade * fade[::-1] * 32767).astype(np.int16)


def _digest(sound: np.ndarray, lengths: np.ndarray) -> str:
    return hashlib.sha256(lengths.astype("<i4").tobytes() + sound.astype("<i2").tobytes()).hexdigest()


def cache_file(kind: str, jobs: list, voices: tuple[str, ...], longest: float = LONGEST) -> Path:
    """Where the clips of `corpus_jobs` are kept: the name holds the hash of all that they are made from."""
    key = hashlib.sha256(json.dumps([jobs, voices, longest, LOUDNESS]).encode()).hexdigest()[:12]
    return cache_dir() / f"{kind}-{key}.npz"


def cached_clips(kind: str, jobs: list, voices: tuple[str, ...], expected: str,
                 progress: bool = True, longest: float = LONGEST) -> list:
    """The clips of `corpus_jobs`, float32 (samples,) each: spoken at first use, then read from `cache_file`.

    A clip is cut after `longest` seconds. A damaged cache is made anew. Samples whose SHA-256 is not `expected`
    are taken, with a warning.
    """
    path, sound = cache_file(kind, jobs, voices, longest), None
    if path.exists():
        try:
            with np.load(path) as file:
                sound, lengths, digest = file["sound"], file["lengths"], str(file["sha256"])
            if _digest(sound, lengths) != digest:
                raise ValueError("the hash does not fit")
        except Exception as error:            # a half-written or damaged file: anything may come out of it
            warnings.warn(f"{path} is damaged ({error}); the speech is made anew", stacklevel=3)
            sound = None
    if sound is None:
        from tqdm.auto import tqdm
        spoken = speak([(word, voices[voice], pitch, speed) for word, voice, pitch, speed in jobs])
        bar = tqdm(spoken, kind, total=len(jobs), disable=not progress, unit="word")
        clips = [to_clip(sound, rate, longest) for sound, rate in bar]
        sound, lengths = np.concatenate(clips), np.array([len(c) for c in clips], np.int32)
        try:
            with atomic_write(path) as draft:
                np.savez(draft, sound=sound, lengths=lengths, sha256=_digest(sound, lengths))
        except OSError as error:              # the work is done: let it be used
            warnings.warn(f"the speech is made anew next time: {error}", stacklevel=3)
    if expected and _digest(sound, lengths) != expected:
        warnings.warn("this espeak-ng is not the build that the shipped models learned from: the voices may "
                      "differ a little (pip install 'espeakng-loader==0.2.4' gives the same)", stacklevel=3)
    ends = np.cumsum(lengths)
    whole = sound.astype(np.float32) / 32767
    return [whole[e - n:e] for e, n in zip(ends, lengths, strict=True)]


def load_speech(progress: bool = True, words: tuple[str, ...] = WORDS) -> SpeechCorpus:
    """Every word of the world, or each of `words`, in every voice, twice: made at first use, then cached.

    That takes half a minute at most. A damaged cache is made anew. Another build of espeak-ng gives other
    samples: that works, with a warning.
    """
    jobs = corpus_jobs(words=words)
    clips = cached_clips("speech", jobs, VOICES, EXPECTED if words == WORDS else "", progress)
    voices = [job[1] for job in jobs]
    held_out = np.array([held_out_voice(voice) for voice in voices])
    return SpeechCorpus(clips, [job[0] for job in jobs], voices, held_out)
