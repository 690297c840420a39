"""What is in an audio token? Probes from the shipped codec's tokens to pitch, brightness, loudness, voice and word.

`python -m mmcourse.studies.ch04_probes` (a minute of one core) writes `data/results/ch04_probes.json` about the codec that
is shipped now. A probe is trained on some voices (or words) and tested on others; it sees what the tokens of one level, or of
several, stand for. Control: the same tokens, shuffled. Ceiling: the log-mel frames before any token.
"""
import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse import checkpoints
from mmcourse.judges.hearing import stack
from mmcourse.judges.pitch import pitch_track
from mmcourse.paths import RESULTS
from mmcourse.spectrogram import hz_to_mel, log_mel, mel_to_hz, normalize_loudness
from mmcourse.studies.ch04_sweep import save
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import VOICES, _speak, load_speech, trim

FILE = RESULTS / "ch04_probes.json"
SEGMENTS, STEPS, HIDDEN = 6, 150, 64            # parts of a word; training steps and hidden units of the non-linear probe
FRAMES = ("pitch", "brightness", "loudness")


# ---------------------------------------------------------------- what is to be found

def facts(mel: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """For each token of a clip: log2 of the pitch (NaN if unvoiced), log2 of the centre of the spectrum in Hz, loudness in
    dB relative to the clip: (frames, 3). NaN in silence.
    """
    amplitude = np.exp(mel)                                                    # (bands, 4 frames)
    hz = mel_to_hz(np.linspace(0, 1, len(mel) + 2) * (2595 * np.log10(1 + 4000 / 700)))[1:-1]
    centre = (amplitude * hz[:, None]).sum(0) / amplitude.sum(0)
    loud = 10 * np.log10((amplitude**2).sum(0))
    track = pitch_track(samples)[:mel.shape[1]]
    track = np.pad(track, (0, mel.shape[1] - len(track)), constant_values=np.nan).reshape(-1, 4)
    voiced = np.isfinite(track).sum(1) >= 3
    pitch = np.where(voiced, np.log2(np.where(voiced[:, None], np.nan_to_num(track, nan=100.0), 100.0)).mean(1), np.nan)
    out = np.stack([pitch, np.log2(centre).reshape(-1, 4).mean(1), loud.reshape(-1, 4).mean(1)], 1)
    out[out[:, 2] < out[:, 2].max() - 36] = np.nan
    return out


@torch.no_grad()
def describe(codec, clips: list) -> list[dict]:
    """For each clip: `codes` (frames, levels, dim), `vector` (frames, dim) before rounding, `mel` (frames, 4 x bands), facts."""
    out = []
    for part in (clips[a:a + 64] for a in range(0, len(clips), 64)):
        sounds = normalize_loudness(stack(part, 24 * 320))
        mel, ids = log_mel(sounds, codec.filters), codec.encode(sounds)
        z = codec.encoder((mel + 7) / 2).transpose(1, 2)                       # (B, frames, dim)
        codes = torch.stack([book[ids[..., n]] for n, book in enumerate(codec.codebooks)], 2)
        for i, clip in enumerate(part):
            n = min(24, -(-len(clip) // 320))
            frames = mel[i, :, :4 * n]
            out.append({"codes": codes[i, :n], "vector": z[i, :n], "facts": facts(frames.numpy(), sounds[i, :320 * n].numpy()),
                        "mel": frames.T.reshape(n, -1)})
    return out


def views(levels: int) -> dict:
    """{name: what a probe sees of a clip, (frames, features)}."""
    out = {f"level {n}": lambda d, n=n: d["codes"][:, n] for n in range(levels)}
    out |= {f"levels 0 to {n}": lambda d, n=n: d["codes"][:, :n + 1].flatten(1) for n in (1, levels - 1)}
    return out | {"not rounded": lambda d: d["vector"], "log-mel": lambda d: d["mel"]}


# ---------------------------------------------------------------- probes

def standard(train: torch.Tensor, test: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = train.mean(0), train.std(0).clamp(min=1e-4)
    return (train - mean) / std, (test - mean) / std


def ridge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights (features + 1, outputs) of the linear probe: least squares, with a penalty that is small where data abound."""
    strength = 0.01 if len(x) > 10 * x.shape[1] else 0.3
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    return torch.linalg.solve(x.T @ x + strength * len(x) * torch.eye(x.shape[1]).double(), x.T @ y.double()).float()


def linear(x: torch.Tensor, y: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    weights = ridge(x, y)
    return x2 @ weights[:-1] + weights[-1]


def small_net(x: torch.Tensor, y: torch.Tensor, x2: torch.Tensor, classes: bool) -> torch.Tensor:
    """One hidden layer, trained on everything at once; stopped early by its number of steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.2), nn.Linear(HIDDEN, y.shape[1]))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(STEPS):
        loss = F.cross_entropy(net(x), y.argmax(1)) if classes else F.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return net.eval()(x2)


def r2(train: list, test: list, view) -> dict:
    """{fact: [linear, non-linear]}: the share of a fact's variance in unseen voices that a probe on single tokens explains."""
    found, x, x2 = {}, torch.cat([view(d) for d in train]), torch.cat([view(d) for d in test])
    y, y2 = (torch.from_numpy(np.concatenate([d["facts"] for d in part])).float() for part in (train, test))
    for i, name in enumerate(FRAMES):
        a, b = y[:, i].isfinite(), y2[:, i].isfinite()
        xs, xs2 = standard(x[a], x2[b])
        mean, std = y[a, i].mean(), y[a, i].std()
        t, t2 = ((y[a, i:i + 1] - mean) / std), ((y2[b, i:i + 1] - mean) / std)
        said = linear(xs, t, xs2), small_net(xs, t, xs2, False)
        found[name] = [round(1 - float((s - t2).square().mean() / (t2 - t2.mean()).square().mean()), 3) for s in said]
    return found


def accuracy(x: torch.Tensor, labels: list, x2: torch.Tensor, labels2: list) -> list[float]:
    """The shares that a linear and a non-linear probe name right."""
    names = sorted(set(labels))
    y = F.one_hot(torch.tensor([names.index(n) for n in labels]), len(names)).float()
    right = torch.tensor([names.index(n) if n in names else -1 for n in labels2])
    xs, xs2 = standard(x, x2)
    return [round(float((s.argmax(1) == right).float().mean()), 3)
            for s in (linear(xs, y, xs2), small_net(xs, y, xs2, True))]


def parts(view, clips: list, segments: int) -> torch.Tensor:
    """The mean of what is seen in each of `segments` parts of a clip: (clips, segments x features)."""
    return torch.stack([F.adaptive_avg_pool1d(view(d).T[None], segments)[0].T.flatten() for d in clips])


def shuffled(described: list, seed: int = 0) -> list:
    """The control: the same tokens, dealt out anew among all moments of all clips."""
    rng, codes = np.random.default_rng(seed), torch.cat([d["codes"] for d in described])
    codes = codes[torch.from_numpy(rng.permutation(len(codes)))]
    return [{**d, "codes": c} for d, c in zip(described, codes.split([len(d["codes"]) for d in described]))]


def probe(codec, every: int = 1) -> dict:
    """{view: {fact: [linear, non-linear]}}; `every`: leave most clips out, for a quick look."""
    corpus = load_speech()
    everyone = corpus.select(held_out=True)[::every]
    train = [i for i in corpus.select()[::2 * every] if corpus.voices[i] % 2 == 0]      # one take by every second voice
    test = everyone[::2]
    known, new = ([i for i in everyone if (WORDS.index(corpus.words[i]) % 2 == 0) == side] for side in (True, False))
    chosen = sorted({*train, *everyone})
    data = dict(zip(chosen, describe(codec, [corpus.clips[i] for i in chosen]), strict=True))
    a, b, va, vb = ([data[i] for i in part] for part in (train, test, known, new))
    words, words2 = ([corpus.words[i] for i in part] for part in (train, test))
    voices, voices2 = ([corpus.voices[i] for i in part] for part in (known, new))
    found, plain = {}, views(codec.levels)
    everything = plain[f"levels 0 to {codec.levels - 1}"]
    cases = {name: (view, a, b, va, vb) for name, view in plain.items()}
    cases["all levels, shuffled"] = everything, shuffled(a), shuffled(b, 1), shuffled(va, 2), shuffled(vb, 3)
    for name, (view, a, b, va, vb) in cases.items():
        found[name] = r2(a[::3], b, view)
        found[name]["voice"] = accuracy(parts(view, va, 1), voices, parts(view, vb, 1), voices2)
        found[name]["word"] = accuracy(parts(view, a, SEGMENTS), words, parts(view, b, SEGMENTS), words2)
        print(f"{name}: {found[name]}", flush=True)
    return {"views": found, "chance": {"voice": round(1 / len(set(voices)), 3), "word": round(1 / len(set(words)), 3)},
            "clips": {"train": len(train), "test": len(test)}}


# ---------------------------------------------------------------- 8 kHz or 16 kHz?

def bands_to_8khz(sound: np.ndarray, rate: int, below: int = 64) -> torch.Tensor:
    """int16 samples -> log amplitudes (frames, bands) each 10 ms: `below` mel bands to 4 kHz, then more of the same width in
    mel to 8 kHz.
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


def rates(below: int = 64) -> dict:
    """What telephone speech lacks: the share of the voices' energy above 4 kHz, and how many words of unseen voices a linear
    and a small non-linear judge know from the bands below 4 kHz, and from all to 8 kHz. It does not depend on the codec.
    """
    train = [v for v in range(len(VOICES)) if v % 2 == 0]
    test = [v for v in range(len(VOICES)) if v % 6 == 5]
    jobs = [(word, VOICES[v], 50, 165) for v in train + test for word in WORDS]
    above, seen = [], []
    for sound, rate in _speak(jobs):
        power = np.abs(np.fft.rfft(sound)) ** 2
        above.append(power[np.fft.rfftfreq(len(sound), 1 / rate) > 4000].sum() / power.sum())
        seen.append({"bands": bands_to_8khz(sound, rate, below)})
    words, n = [job[0] for job in jobs], len(train) * len(WORDS)
    out = {"clips": len(jobs) - n, "energy_above_4khz": round(float(np.mean(above)), 4)}
    for name, view in (("8 kHz", lambda d: d["bands"][:, :below]), ("16 kHz", lambda d: d["bands"])):
        x = parts(view, seen, SEGMENTS)
        out[name] = accuracy(x[:n], words[:n], x[n:], words[n:])
    return out


def main(argv: list[str] | None = None) -> dict:
    """Probe the shipped codec; what does not depend on it is kept from the file."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch04_probes", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", help="take the codec from this folder of checkpoints")
    parser.add_argument("--every", type=int, default=1, help="use every n-th clip alone, for a quick look")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    where, start = {"folder": args.folder} if args.folder else {}, time.process_time()
    before = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    result = {"codec_sha256": checkpoints.manifest(**where)["codec"]["sha256"],
              **probe(checkpoints.load("codec", **where), args.every), "rates": before.get("rates") or rates()}
    result["cpu_minutes"] = round((time.process_time() - start) / 60, 2)
    save(result, FILE)
    print({k: v for k, v in result.items() if k != "views"})
    return result


if __name__ == "__main__":
    main()
