"""What is in an audio token? Probes for pitch, brightness, loudness, voice, word; a CPU minute.

A probe is trained on some voices (or words) and tested on others; it sees what the shipped codec's tokens of
one level, or of several, stand for. Control: the same tokens, shuffled. Ceiling: the log-mel frames before
any token.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.codec import CLIP_SAMPLES, FRAME_SAMPLES
from mmcourse.judges.hearing import stack
from mmcourse.judges.pitch import pitch_track
from mmcourse.spectrogram import hz_to_mel, log_mel, mel_to_hz, normalize_loudness, normalize_mel
from mmcourse.studies import Job, Study
from mmcourse.studies._ch04 import corpus
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import VOICES, speak, trim

FRAMES = ("pitch", "brightness", "loudness")    # facts of a single frame
SEGMENTS = 6                            # parts of a word
HIDDEN = 64                             # its hidden units
MEL_FRAMES = 4                          # of log-mel in a token
SHUFFLED = "all levels, shuffled"


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    every: int = 1                      # every n-th clip is used
    steps: int = 150                    # of training the non-linear probe
    words: int = len(WORDS)             # that are spoken at 16 kHz as well


# ---------------------------------------------------------------- what is to be found

def facts(mel: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """For each token of a clip, (frames, 3): log2 of the pitch (NaN if unvoiced), log2 of the centre of the
    spectrum in Hz, loudness in dB relative to the clip. NaN in silence.
    """
    amplitude = np.exp(mel)                                                    # (bands, 4 frames)
    hz = mel_to_hz(np.linspace(0, 1, len(mel) + 2) * hz_to_mel(4000))[1:-1]
    centre = (amplitude * hz[:, None]).sum(0) / amplitude.sum(0)
    loud = 10 * np.log10((amplitude**2).sum(0))
    track = pitch_track(samples)[:mel.shape[1]]
    track = np.pad(track, (0, mel.shape[1] - len(track)), constant_values=np.nan).reshape(-1, 4)
    voiced = np.isfinite(track).sum(1) >= 3
    known = np.where(voiced[:, None], np.nan_to_num(track, nan=100.0), 100.0)
    pitch = np.where(voiced, np.log2(known).mean(1), np.nan)
    out = np.stack([pitch, np.log2(centre).reshape(-1, 4).mean(1), loud.reshape(-1, 4).mean(1)], 1)
    out[out[:, 2] < out[:, 2].max() - 36] = np.nan
    return out


@torch.no_grad()
def describe(codec, clips: list) -> list[dict]:
    """For each clip: `codes` (frames, levels, dim), `vector` (frames, dim) before rounding, `mel` (frames, 4
    bands), facts."""
    out = []
    for part in (clips[a:a + 64] for a in range(0, len(clips), 64)):
        sounds = normalize_loudness(stack(part, CLIP_SAMPLES))
        mel, ids = log_mel(sounds, codec.filters), codec.encode(sounds)
        z = codec.encoder(normalize_mel(mel)).transpose(1, 2)                  # (B, frames, dim)
        codes = torch.stack([book[ids[..., n]] for n, book in enumerate(codec.codebooks)], 2)
        for i, clip in enumerate(part):
            n = -(-min(len(clip), CLIP_SAMPLES) // FRAME_SAMPLES)
            frames = mel[i, :, :MEL_FRAMES * n]
            out.append({"codes": codes[i, :n], "vector": z[i, :n], "mel": frames.T.reshape(n, -1),
                        "facts": facts(frames.numpy(), sounds[i, :FRAME_SAMPLES * n].numpy())})
    return out


def views(levels: int) -> dict:
    """{name: what a probe sees of a clip, (frames, features)}."""
    out = {f"level {n}": lambda d, n=n: d["codes"][:, n] for n in range(levels)}
    out |= {f"levels 0 to {n}": lambda d, n=n: d["codes"][:, :n + 1].flatten(1) for n in (1, levels - 1)}
    return out | {"not rounded": lambda d: d["vector"], "log-mel": lambda d: d["mel"]}


# ---------------------------------------------------------------- probes

def standard(train: torch.Tensor, test: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the mean and the spread of the first taken off."""
    mean, std = train.mean(0), train.std(0).clamp(min=1e-4)
    return (train - mean) / std, (test - mean) / std


def ridge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights (features + 1, outputs) of the linear probe: least squares, its penalty small where data
    abound."""
    strength = 0.01 if len(x) > 10 * x.shape[1] else 0.3
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    penalty = strength * len(x) * torch.eye(x.shape[1]).double()
    return torch.linalg.solve(x.T @ x + penalty, x.T @ y.double()).float()


def linear(x: torch.Tensor, y: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    """What the linear probe, fitted on x and y, says of x2."""
    weights = ridge(x, y)
    return x2 @ weights[:-1] + weights[-1]


def small_net(x: torch.Tensor, y: torch.Tensor, x2: torch.Tensor, classes: bool, steps: int = 150) -> torch.Tensor:
    """One hidden layer, trained on everything at once; stopped early by its number of steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.2),
                        nn.Linear(HIDDEN, y.shape[1]))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        loss = F.cross_entropy(net(x), y.argmax(1)) if classes else F.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return net.eval()(x2)


def r2(train: list, test: list, view, steps: int = 150) -> dict:
    """{fact: [linear, non-linear]}: the share of a fact's variance in unseen voices that probes on single
    tokens explain."""
    found, x, x2 = {}, torch.cat([view(d) for d in train]), torch.cat([view(d) for d in test])
    y, y2 = (torch.from_numpy(np.concatenate([d["facts"] for d in part])).float() for part in (train, test))
    for i, name in enumerate(FRAMES):
        a, b = y[:, i].isfinite(), y2[:, i].isfinite()
        xs, xs2 = standard(x[a], x2[b])
        mean, std = y[a, i].mean(), y[a, i].std()
        t, t2 = ((y[a, i:i + 1] - mean) / std), ((y2[b, i:i + 1] - mean) / std)
        said = linear(xs, t, xs2), small_net(xs, t, xs2, False, steps)
        spread = (t2 - t2.mean()).square().mean()
        found[name] = [round(1 - float((s - t2).square().mean() / spread), 3) for s in said]
    return found


def accuracy(x: torch.Tensor, labels: list, x2: torch.Tensor, labels2: list, steps: int = 150) -> list[float]:
    """The shares that a linear and a non-linear probe name right."""
    names = sorted(set(labels))
    y = F.one_hot(torch.tensor([names.index(n) for n in labels]), len(names)).float()
    right = torch.tensor([names.index(n) if n in names else -1 for n in labels2])
    xs, xs2 = standard(x, x2)
    return [round(float((s.argmax(1) == right).float().mean()), 3)
            for s in (linear(xs, y, xs2), small_net(xs, y, xs2, True, steps))]


def parts(view, clips: list, segments: int) -> torch.Tensor:
    """The mean of what is seen in each of `segments` parts of a clip: (clips, segments x features)."""
    return torch.stack([F.adaptive_avg_pool1d(view(d).T[None], segments)[0].T.flatten() for d in clips])


def shuffled(described: list, seed: int = 0) -> list:
    """The control: the same tokens, dealt out anew among all moments of all clips."""
    rng, codes = np.random.default_rng(seed), torch.cat([d["codes"] for d in described])
    codes = codes[torch.from_numpy(rng.permutation(len(codes)))]
    return [{**d, "codes": c} for d, c in zip(described, codes.split([len(d["codes"]) for d in described]))]


@dataclass
class Clips:
    """Described clips: to train on, to test on; of words that the voice probe knows, of words that it does
    not."""
    train: list
    test: list
    known: list
    new: list
    words: tuple[list, list]            # of train and test
    voices: tuple[list, list]           # of known and new

    def shuffled(self) -> "Clips":
        """The control: the same tokens, dealt out anew within each of the four."""
        all_four = (self.train, self.test, self.known, self.new)
        return Clips(*(shuffled(part, seed) for seed, part in enumerate(all_four)), self.words, self.voices)


@cache
def described(plan: Plan) -> Clips:
    """The clips that all probes share."""
    spoken = corpus()
    everyone = spoken.select(held_out=True)[::plan.every]
    # One take by every second voice
    train = [i for i in spoken.select()[::2 * plan.every] if spoken.voices[i] % 2 == 0]
    test = everyone[::2]
    known, new = ([i for i in everyone if (WORDS.index(spoken.words[i]) % 2 == 0) == even]
                  for even in (True, False))
    chosen = sorted({*train, *everyone})
    data = dict(zip(chosen, describe(checkpoints.load("codec"), [spoken.clips[i] for i in chosen])))
    parts = ([data[i] for i in part] for part in (train, test, known, new))
    words = tuple([spoken.words[i] for i in part] for part in (train, test))
    return Clips(*parts, words, tuple([spoken.voices[i] for i in part] for part in (known, new)))


def probe(plan: Plan, name: str) -> dict:
    """{fact: [linear, non-linear]} of one view of the tokens."""
    clips, all_views = described(plan), views(codec_levels())
    if name == SHUFFLED:
        clips, view = clips.shuffled(), all_views[f"levels 0 to {codec_levels() - 1}"]
    else:
        view = all_views[name]
    known, new = (parts(view, part, 1) for part in (clips.known, clips.new))
    train, test = (parts(view, part, SEGMENTS) for part in (clips.train, clips.test))
    return {**r2(clips.train[::3], clips.test, view, plan.steps),
            "voice": accuracy(known, clips.voices[0], new, clips.voices[1], plan.steps),
            "word": accuracy(train, clips.words[0], test, clips.words[1], plan.steps)}


def codec_levels() -> int:
    """The levels of the shipped codec."""
    return checkpoints.manifest()["codec"]["config"]["levels"]


def chance(plan: Plan) -> dict:
    """The share that guessing names right."""
    clips = described(plan)
    return {"voice": round(1 / len(set(clips.voices[0])), 3), "word": round(1 / len(set(clips.words[0])), 3)}


def counts(plan: Plan) -> dict:
    """How many clips there are."""
    return {"train": len(described(plan).train), "test": len(described(plan).test)}


# ---------------------------------------------------------------- 8 kHz or 16 kHz?

def bands_to_8khz(sound: np.ndarray, rate: int, below: int = 64) -> torch.Tensor:
    """int16 samples -> log amplitudes (frames, bands) each 10 ms: `below` mel bands to 4 kHz, then more of
    the same width in mel to 8 kHz.
    """
    window, hop = int(0.032 * rate), rate // 100
    x = np.pad(trim(sound, rate) / 32768, (0, window))
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop] * np.hanning(window)
    amplitude, hz = np.abs(np.fft.rfft(frames, 1024)), np.fft.rfftfreq(1024, 1 / rate)
    step = (hz_to_mel(4000) - hz_to_mel(40)) / (below + 1)
    edges = mel_to_hz(np.arange(hz_to_mel(40), hz_to_mel(8000), step))
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((hz - left) / (peak - left), (right - hz) / (right - peak)))
    triangles /= np.maximum(triangles.sum(1, keepdims=True), 1e-9)
    return torch.from_numpy(np.log(np.maximum(amplitude @ triangles.T, 1e-3))).float()


def rates(words: Sequence[str], steps: int = 150, below: int = 64) -> dict:
    """What telephone speech lacks: the share of the voices' energy above 4 kHz, and how many words of unseen
    voices a linear and a small non-linear judge know from the bands below 4 kHz, and from all to 8 kHz. It
    does not depend on the codec.
    """
    train = [v for v in range(len(VOICES)) if v % 2 == 0]
    test = [v for v in range(len(VOICES)) if v % 6 == 5]
    jobs = [(word, VOICES[v], 50, 165) for v in train + test for word in words]
    above, seen = [], []
    for sound, rate in speak(jobs):
        power = np.abs(np.fft.rfft(sound)) ** 2
        above.append(power[np.fft.rfftfreq(len(sound), 1 / rate) > 4000].sum() / power.sum())
        seen.append({"bands": bands_to_8khz(sound, rate, below)})
    said, n = [job[0] for job in jobs], len(train) * len(words)
    out = {"clips": len(jobs) - n, "energy_above_4khz": round(float(np.mean(above)), 4)}
    for name, view in (("8 kHz", lambda d: d["bands"][:, :below]), ("16 kHz", lambda d: d["bands"])):
        x = parts(view, seen, SEGMENTS)
        out[name] = accuracy(x[:n], said[:n], x[n:], said[n:], steps)
    return out


# ---------------------------------------------------------------- the study

def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each view of the tokens; what chance gives; what 16 kHz would add."""
    names = [*views(codec_levels()), SHUFFLED]
    facts = {"chance": partial(chance, plan), "clips": partial(counts, plan),
             "rates": lambda: rates(WORDS[:plan.words], plan.steps)}
    return [*(Job(name, partial(probe, plan, name), section=("views",)) for name in names),
            *(Job(name, measure, section=()) for name, measure in facts.items())]


def head(plan: Plan) -> dict:
    """Which codec was probed."""
    return {"codec_sha256": checkpoints.identity("codec")}


def outdated(result: dict, head: dict) -> None:
    """All that was probed in another codec; `rates` does not depend on it."""
    if result["codec_sha256"] != head["codec_sha256"]:
        rates = {name: value for name, value in result.items() if name == "rates"}
        result.clear()
        result.update(head, **rates)


STUDY = Study("ch04_probes", Plan(), Plan(every=41, steps=2, words=3), jobs, head, outdated=outdated, minutes=True)
main = STUDY.run
