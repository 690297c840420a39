"""What is in an audio token? Probes for pitch, brightness, loudness, voice, word; about two CPU minutes.

A probe is trained on some voices (or words) and tested on others; it sees what the shipped codec's tokens of
one level, or of several, stand for. All that is chosen (the linear probe's penalty, the small net's steps,
which of the two answers) is chosen on a part of the training voices (or words). Control: the same tokens,
shuffled.
Ceilings: the encoder's vector before it is rounded, and the log-mel frames before the encoder.
"""
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
STRENGTHS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)     # penalties of the linear probe
STOPS = (25, 50, 100, 150, 250)         # numbers of steps of the small net
DRAWS = 2000                            # of a bootstrap


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    every: int = 1                      # every n-th clip is used
    stops: tuple[int, ...] = STOPS
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
    out |= {f"levels 0 to {n}": lambda d, n=n: d["codes"][:, :n + 1].flatten(1) for n in range(1, levels)}
    return out | {"not rounded": lambda d: d["vector"], "log-mel": lambda d: d["mel"]}


# ---------------------------------------------------------------- probes

def standard(train: torch.Tensor, test: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the mean and the spread of the first taken off."""
    mean, std = train.mean(0), train.std(0).clamp(min=1e-4)
    return (train - mean) / std, (test - mean) / std


def linear(x: torch.Tensor, y: torch.Tensor, x2: torch.Tensor, strengths: Sequence[float] = STRENGTHS) -> list:
    """What the linear probe, fitted on x and y by least squares with each of these penalties, says of x2."""
    x, x2 = (torch.cat([part, torch.ones(len(part), 1)], 1).double() for part in (x, x2))
    same, with_y, one = x.T @ x / len(x), x.T @ y.double() / len(x), torch.eye(x.shape[1]).double()
    return [(x2 @ torch.linalg.solve(same + strength * one, with_y)).float() for strength in strengths]


def small_net(x: torch.Tensor, y: torch.Tensor, x2: torch.Tensor, classes: bool, stops: Sequence[int] = STOPS) -> list:
    """What one hidden layer, trained on everything at once, says of x2 after each of these numbers of
    steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.2),
                        nn.Linear(HIDDEN, y.shape[1]))
    optimizer, said = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1), []
    for step in range(1, max(stops) + 1):
        loss = F.cross_entropy(net(x), y.argmax(1)) if classes else F.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in stops:
            with torch.no_grad():
                said.append(net.eval()(x2))
            net.train()
    return said


@dataclass(frozen=True)
class Part:
    """What a probe is asked about: a row a token or a clip.

    Args:
        x: what it sees, (N, features). y: what it must say, (N, outputs). clip: the clip of each row, (N,).
        group: the voice or the word of each row, (N,); a split of the rows never parts a group.
    """
    x: torch.Tensor
    y: torch.Tensor
    clip: torch.Tensor
    group: torch.Tensor

    def where(self, rows: torch.Tensor) -> "Part":
        """Some of the rows."""
        return Part(self.x[rows], self.y[rows], self.clip[rows], self.group[rows])


def errors(said: torch.Tensor, truth: Part, classes: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each clip what the probe gets wrong, and what there was to get wrong: 1 - their sums' ratio is
    the share right, or R2 for numbers."""
    if classes:
        wrong, all_ = (said.argmax(1) != truth.y.argmax(1)).double(), torch.ones(len(said)).double()
    else:
        wrong = (said - truth.y).square().sum(1).double()
        all_ = (truth.y - truth.y.mean(0)).square().sum(1).double()
    clips = int(truth.clip.max()) + 1
    return tuple(torch.zeros(clips).double().index_add_(0, truth.clip, part).numpy() for part in (wrong, all_))


def score(found: tuple[np.ndarray, np.ndarray]) -> float:
    """The share right, or R2."""
    return 1 - float(found[0].sum() / found[1].sum())


def ask(train: Part, test: Part, classes: bool, stops: Sequence[int] = STOPS) -> dict:
    """A linear probe and a small net. The penalty of the first, the steps of the second, and which of the
    two answers, are chosen on every fourth group of `train`; then both learn from all of `train` and are
    read on `test` once.
    """
    if not classes:                                     # numbers of any size: pitch is near 7, loudness near -30
        y, y2 = standard(train.y, test.y)
        train, test = replace(train, y=y), replace(test, y=y2)
    last = train.group % 4 == 3
    fit, check = train.where(~last), train.where(last)
    xs, xs2 = standard(fit.x, check.x)
    tried = {"linear": [score(errors(s, check, classes)) for s in linear(xs, fit.y, xs2)],
             "net": [score(errors(s, check, classes)) for s in small_net(xs, fit.y, xs2, classes, stops)]}
    best = {name: int(np.argmax(scores)) for name, scores in tried.items()}
    xs, xs2 = standard(train.x, test.x)
    said = {"linear": linear(xs, train.y, xs2, [STRENGTHS[best["linear"]]])[0],
            "net": small_net(xs, train.y, xs2, classes, stops[:best["net"] + 1])[-1]}
    found = {name: errors(s, test, classes) for name, s in said.items()}
    answers = max(tried, key=lambda name: max(tried[name]))
    return {"linear": round(score(found["linear"]), 3), "net": round(score(found["net"]), 3), "answers": answers,
            "penalty": STRENGTHS[best["linear"]], "steps": stops[best["net"]], "errors": found[answers]}


def segments(view, clips: list, count: int) -> torch.Tensor:
    """The mean of what is seen in each of `count` parts of a clip: (clips, count x features)."""
    return torch.stack([F.adaptive_avg_pool1d(view(d).T[None], count)[0].T.flatten() for d in clips])


def numbered(names: list, order: Sequence | None = None) -> torch.Tensor:
    """Names as whole numbers: their place in `order`, by default that of the alphabet."""
    place = {name: i for i, name in enumerate(sorted(set(names)) if order is None else order)}
    return torch.tensor([place[name] for name in names])


def of_frames(view, clips: list, voices: list, fact: str) -> Part:
    """Single tokens in which the fact is known."""
    column = torch.from_numpy(np.concatenate([d["facts"] for d in clips])).float()[:, FRAMES.index(fact)]
    counts = torch.tensor([len(d["facts"]) for d in clips])
    part = Part(torch.cat([view(d) for d in clips]), column[:, None],
                torch.arange(len(clips)).repeat_interleave(counts), numbered(voices).repeat_interleave(counts))
    return part.where(column.isfinite())


def of_clips(view, clips: list, labels: list, groups: list, count: int, names: Sequence) -> Part:
    """Whole clips, in `count` segments, and which of the names each has for its label."""
    said = F.one_hot(numbered(labels, names), len(names)).float()
    return Part(segments(view, clips, count), said, torch.arange(len(clips)), numbered(groups))


def shuffled(described: list, seed: int = 0) -> list:
    """The control: the same tokens, dealt out anew among all moments of all clips."""
    rng, codes = np.random.default_rng(seed), torch.cat([d["codes"] for d in described])
    codes = codes[torch.from_numpy(rng.permutation(len(codes)))]
    return [{**d, "codes": c} for d, c in zip(described, codes.split([len(d["codes"]) for d in described]))]


@dataclass
class Clips:
    """Described clips: to train on, to test on; of words that the voice probe knows, of words that it does
    not; of each the words and the voices."""
    parts: dict[str, list]
    words: dict[str, list]
    voices: dict[str, list]

    def shuffled(self) -> "Clips":
        """The control: the same tokens, dealt out anew within each part."""
        mixed = {name: shuffled(part, seed) for seed, (name, part) in enumerate(self.parts.items())}
        return Clips(mixed, self.words, self.voices)


@cache
def described(plan: Plan) -> Clips:
    """The clips that all probes share."""
    spoken = corpus()
    everyone = spoken.select(held_out=True)[::plan.every]
    # One take by every second voice
    chosen = {"train": [i for i in spoken.select()[::2 * plan.every] if spoken.voices[i] % 2 == 0],
              "test": everyone[::2]}
    for name, rest in (("known", 0), ("new", 1)):
        chosen[name] = [i for i in everyone if WORDS.index(spoken.words[i]) % 2 == rest]
    needed = sorted({i for part in chosen.values() for i in part})
    data = dict(zip(needed, describe(checkpoints.load("codec"), [spoken.clips[i] for i in needed])))
    return Clips(*({name: [of[i] for i in part] for name, part in chosen.items()}
                   for of in (data, spoken.words, spoken.voices)))


@cache
def answers(plan: Plan, name: str) -> dict:
    """{fact: what `ask` finds} in one view of the tokens."""
    clips, all_views = described(plan), views(codec_levels())
    view = all_views[f"levels 0 to {codec_levels() - 1}" if name == SHUFFLED else name]
    clips = clips.shuffled() if name == SHUFFLED else clips
    parts, words, voices = clips.parts, clips.words, clips.voices
    few = slice(None, None, 3)                                          # frames abound
    out = {fact: ask(of_frames(view, parts["train"][few], voices["train"][few], fact),
                     of_frames(view, parts["test"], voices["test"], fact), False, plan.stops) for fact in FRAMES}
    who = sorted(set(voices["known"] + voices["new"]))
    known, new = (of_clips(view, parts[p], voices[p], words[p], 1, who) for p in ("known", "new"))
    train, test = (of_clips(view, parts[p], words[p], voices[p], SEGMENTS, WORDS) for p in ("train", "test"))
    return out | {"voice": ask(known, new, True, plan.stops), "word": ask(train, test, True, plan.stops)}


def probe(plan: Plan, name: str) -> dict:
    """{fact: both probes' scores, what was chosen on the validation split, and the chosen one's score}."""
    return {fact: {key: value for key, value in found.items() if key != "errors"} | {"score": found[found["answers"]]}
            for fact, found in answers(plan, name).items()}


def gain(more: tuple, less: tuple) -> list[float]:
    """How much a view scores above another, and where that lies: a paired bootstrap (95 %) over the test's
    clips."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(more[0]), size=(DRAWS, len(more[0])))
    found = [(less[0][rows] - more[0][rows]).sum(-1) / more[1][rows].sum(-1) for rows in (slice(None), draws)]
    return [round(float(v), 4) for v in (found[0], *np.quantile(found[1], (0.025, 0.975)))]


def gains(plan: Plan) -> dict:
    """{fact: {step: what one level more adds}}, each with its interval."""
    names = ["level 0", *(f"levels 0 to {n}" for n in range(1, codec_levels()))]
    return {fact: {more: gain(answers(plan, more)[fact]["errors"], answers(plan, less)[fact]["errors"])
                   for less, more in zip(names, names[1:])} for fact in (*FRAMES, "voice", "word")}


def codec_levels() -> int:
    """The levels of the shipped codec."""
    return checkpoints.manifest()["codec"]["config"]["levels"]


def chance(plan: Plan) -> dict:
    """The share that guessing names right."""
    clips = described(plan)
    return {"voice": round(1 / len(set(clips.voices["known"])), 3), "word": round(1 / len(set(clips.words["train"])), 3)}


def counts(plan: Plan) -> dict:
    """How many clips there are."""
    return {name: len(described(plan).parts[name]) for name in ("train", "test")}


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


def rates(words: Sequence[str], stops: Sequence[int] = STOPS, below: int = 64) -> dict:
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
        parts = (of_clips(view, seen[a:b], said[a:b], [job[1] for job in jobs[a:b]], SEGMENTS, words)
                 for a, b in ((0, n), (n, None)))
        found = ask(*parts, True, stops)
        out[name] = {key: value for key, value in found.items() if key != "errors"} | {"score": found[found["answers"]]}
    return out


# ---------------------------------------------------------------- the study

def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each view of the tokens; what chance gives; what 16 kHz would add; what one level more
    adds."""
    names = [*views(codec_levels()), SHUFFLED]
    facts = {"chance": partial(chance, plan), "clips": partial(counts, plan),
             "rates": lambda: rates(WORDS[:plan.words], plan.stops), "gains": partial(gains, plan)}
    return [*(Job(name, partial(probe, plan, name), section=("views",)) for name in names),
            *(Job(name, measure, section=()) for name, measure in facts.items())]


def head(plan: Plan) -> dict:
    """Which codec was probed."""
    return {"codec_sha256": checkpoints.identity("codec"), "stops": list(plan.stops)}


def outdated(result: dict, head: dict) -> None:
    """All that was probed in another codec; `rates` does not depend on it."""
    if result["codec_sha256"] != head["codec_sha256"]:
        rates = {name: value for name, value in result.items() if name == "rates"}
        result.clear()
        result.update(head, **rates)


STUDY = Study("ch04_probes", Plan(), Plan(every=41, stops=(1, 2), words=3), jobs, head, outdated=outdated, minutes=True)
main = STUDY.run
