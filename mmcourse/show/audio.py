"""Chapter 04's figures: measured tables of the codec, pitch over time, and an explorer of single audio
tokens.

Tables show what `data/results/ch04_*.json` holds: the chapter loads it (`mmcourse.files.results`) and hands
it in. Nothing here trains anything.
"""
from __future__ import annotations

import base64
import html
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.bits import mu_law_inverse
from mmcourse.judges.metrics import t_interval
from mmcourse.judges.pitch import pitch_track
from mmcourse.media import Audio
from mmcourse.spectrogram import log_mel, normalize_loudness
from mmcourse.world.speech import SAMPLE_RATE

FACTS = ("pitch", "brightness", "loudness", "voice", "word")


# ---------------------------------------------------------------- players

def unpack(text: str) -> np.ndarray:
    """A sound of a results file (mu-law bytes in base64) -> float32 (samples,)."""
    return mu_law_inverse(np.frombuffer(base64.b64decode(text), np.uint8).astype(np.int64)).astype(np.float32)


def players(sounds: Mapping[str, object], caption: str = "") -> None:
    """A row of players without spectrograms: {title: (samples,) floats, a tensor or an array, or a packed
    sound}."""
    if not sounds:
        raise ValueError("no sounds to play: the dict is empty")
    boxes = []
    for title, sound in sounds.items():
        wave = unpack(sound) if isinstance(sound, str) else show._array(sound).astype(np.float32)
        if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
            raise ValueError(f"{title!r} is no sound: give one channel, (samples,), finite and not empty; "
                             f"got {wave.shape}")
        boxes.append('<div style="display:inline-block;margin:0 1em .6em 0">'
                     f"{html.escape(title)}<br>{show.player(wave, SAMPLE_RATE)}</div>")
    if show._in_notebook():
        from IPython.display import HTML, display
        display(HTML("".join(boxes)))
    show.caption(caption)


def uploaded(upload) -> np.ndarray | None:
    """The sound in `show.upload("sound")` or an ipywidgets `FileUpload`, float32 (samples,) at 8 kHz, or None if nothing
    was chosen."""
    if hasattr(upload, "file"):
        return Audio(upload.file).at() if upload.file else None
    return Audio(upload.value[0]["content"]).at() if upload.value else None


# ---------------------------------------------------------------- one token at a time

@torch.no_grad()
def alone(codec, ids: torch.Tensor, seconds: float = 0.4) -> torch.Tensor:
    """One frame's ids (levels,), held for a while: (samples,). A single frame of 40 ms is too short to be
    heard as a sound."""
    frames = max(1, round(seconds * codec.frame_rate))
    return codec.decode(ids.expand(1, frames, -1))[0]


@torch.no_grad()
def explore(codec, samples, frame: int = 5, levels: int = 2, caption: str = "") -> None:
    """Look at one frame of a sound: its tokens in each level, the spectrum that they paint as levels are
    added, and players of the whole sound at `levels`, of the frame alone, and of its tokens one level at a
    time. ValueError if there is no such frame or level.
    """
    samples = torch.as_tensor(samples).float().reshape(1, -1)
    samples = samples[:, :samples.shape[1] // codec.samples_per_frame * codec.samples_per_frame]
    ids = codec.encode(samples)
    if not 0 <= frame < ids.shape[1] or not 1 <= levels <= codec.levels:
        raise ValueError(f"frames are 0..{ids.shape[1] - 1}, levels 1..{codec.levels}; got frame {frame}, "
                         f"levels {levels}")
    fig, axes = plt.subplots(1, 3, figsize=(10, 2.7), width_ratios=(1.2, 1.2, 1))
    true = log_mel(normalize_loudness(samples), codec.filters)[0]
    mels = {"true": true} | {f"level{'s 0 to' if n > 1 else ''} {n - 1}": codec.decode_mel(ids[..., :n])[0]
                             for n in range(1, levels + 1)}
    panels = {"true": true, f"{levels} level{'s' * (levels > 1)}": list(mels.values())[-1]}
    for axis, (name, mel) in zip(axes, panels.items()):
        extent = (0, mel.shape[1] * 10, 0, 64)
        axis.imshow(mel.numpy(), origin="lower", aspect="auto", extent=extent, vmin=-9, vmax=-1)
        axis.axvspan(40 * frame, 40 * frame + 40, fill=False, edgecolor=show.COLOURS[4], linewidth=2)
        axis.set(title=name, xlabel="time (ms)")
        axis.grid(False)
    axes[0].set_ylabel("mel band")
    for i, (name, mel) in enumerate(mels.items()):
        axes[2].plot(8.686 * mel[:, 4 * frame:4 * frame + 4].mean(1).numpy(),
                     ("k:", "-", "--", "-.", ":")[i % 5], label=name,
                     **({} if i == 0 else {"color": show.COLOURS[(i - 1) % 6]}))
    axes[2].set(xlabel="mel band", ylabel="dB", title=f"tokens {str(ids[0, frame].tolist())[1:-1]}")
    axes[2].legend(fontsize=8)
    said = (f"Frame {frame} (box): the true sound, what {levels} of {codec.levels} levels paint of it, and "
            "the frame's spectrum as levels are added (dotted: true).")
    show.figure(fig, caption or said, colours=64)
    sounds = {f"whole, {levels} level{'s' * (levels > 1)}": codec.decode(ids[..., :levels])[0],
              f"frame {frame} alone, held": alone(codec, ids[0, frame, :levels])}
    for n in range(1, levels):
        name = f"with levels 0 to {n - 1} only" if n > 1 else "its level 0 only"
        sounds[name] = alone(codec, ids[0, frame, :n])
    players(sounds)


# ---------------------------------------------------------------- pitch

def say_all(texts, voice: str = "en-us", pitch: int = 50, speed: int = 165) -> list[np.ndarray]:
    """`mmcourse.world.speech.synthesize` for many texts at once, by one process: a list of float32
    (samples,)."""
    from mmcourse.world.speech import speak, to_clip
    jobs = [(text, voice, pitch, speed) for text in texts]
    return [(to_clip(sound, rate) / 32767).astype(np.float32) for sound, rate in speak(jobs)]


def contours(rows: Mapping[str, Mapping[str, object]], caption: str = "") -> None:
    """Pitch over time: {panel: {name: (samples,)}}, one panel beside the other, at most four names.

    A jump of more than a third breaks the line.
    """
    width = 6.5 if len(rows) == 1 else min(10, 2.6 + 1.6 * len(rows))
    fig, axes = plt.subplots(1, len(rows), figsize=(width, 2.6), sharey=True, squeeze=False)
    found = []
    for axis, (title, sounds) in zip(axes[0], rows.items()):
        for i, (name, sound) in enumerate(sounds.items()):
            track = pitch_track(show._array(sound))
            found.append(track[np.isfinite(track)])
            jumps = 1 + np.flatnonzero(np.abs(np.diff(np.log(track))) > np.log(4 / 3))
            moments, track = (np.insert(x, jumps, np.nan) for x in (np.arange(len(track)) / 100, track))
            axis.plot(moments, track, ("-", "--", "-.", ":")[i],
                      color=show.COLOURS[(6, 1, 0, 2)[i]],
                      linewidth=(3, 1.8, 1.5, 1.5)[i], alpha=0.4 if i == 0 else 1, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("s")
    if any(map(len, found)):
        low, high = np.percentile(np.concatenate(found), (1, 99))  # a single wrong frame sets no scale
        axes[0, 0].set_ylim(low / 1.15, high * 1.1)
    axes[0, 0].set_ylabel("pitch (Hz)")
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    show.figure(fig, caption, colours=48)


def contour(samples, points: int = 12) -> np.ndarray | None:
    """The melody of a syllable: its pitch in semitones about its own mean, at `points` moments from the first
    voiced one to the last; None if less than 80 ms is voiced.
    """
    track = pitch_track(show._array(samples))
    voiced = np.flatnonzero(np.isfinite(track))
    if len(voiced) < 8:
        return None
    semitones = 12 * np.log2(track[voiced])
    shape = np.interp(np.linspace(voiced[0], voiced[-1], points), voiced, semitones)
    return shape - np.median(shape)


def nearest_tone(shape: np.ndarray | None, known: Mapping[str, list]) -> str:
    """The tone whose mean contour lies nearest (least squares); "" for None."""
    if shape is None:
        return ""
    return min(known, key=lambda tone: float(np.square(shape - np.mean(known[tone], axis=0)).sum()))


def tones_heard(keys: list[tuple], true: list, sounds: list) -> list[str]:
    """For each syllable the tone whose mean contour, over the *other* onsets in the true sounds, is
    nearest; "" if there is no pitch.

    Args:
        keys: (onset, tone) of each syllable. true, sounds: a sound for each.
    """
    shapes, heard = dict(zip(keys, map(contour, true), strict=True)), []
    tones, onsets = (list(dict.fromkeys(k[i] for k in keys)) for i in (1, 0))
    for (onset, _), sound in zip(keys, sounds, strict=True):
        known = {t: [shapes[o, t] for o in onsets if o != onset and shapes[o, t] is not None] for t in tones}
        heard.append(nearest_tone(contour(sound), {t: v for t, v in known.items() if v}))
    return heard


# ---------------------------------------------------------------- measured tables

def _bits(row: dict) -> str:
    return f"{row['bits_per_second']:,.0f}" if row.get("bits_per_second") else "–"


def _quality(row: dict) -> dict:
    return {"STOI": f"{row['stoi']:.3f}", "PESQ": f"{row['pesq']:.2f}",
            "words heard": f"{row['words']:.0%}" if "words" in row else "–"}


def sweep_rows(sweep: dict) -> list[dict]:
    """Rows for a table: every configuration of `ch04_sweep`, means over its seeds, then what no token has
    touched."""
    out = []
    for runs in sweep["runs"].values():
        first, *_ = runs = list(runs.values())
        for i, row in enumerate(first["rows"]):
            mean = {key: float(np.mean([run["rows"][i][key] for run in runs]))
                    for key in ("stoi", "pesq", "words", "mel_db", "entropy_bits", "codes_used")}
            level = f", level {row['levels'] - 1}" if first["levels"] > 1 else ""
            out.append({"frame": f"{first['milliseconds']} ms",
                        "codes": f"{row['levels']} x {first['codebook_size']:,}",
                        "tokens/s": row["tokens_per_second"], "bits/s": _bits(row),
                        "STOI, each seed": ", ".join(f"{run['rows'][i]['stoi']:.3f}" for run in runs),
                        **{k: v for k, v in _quality({**row, **mean}).items() if k != "STOI"},
                        "codes used": f"{mean['codes_used']:,.0f}",
                        "bits a token, measured": f"{mean['entropy_bits']:.1f} of "
                                                  f"{np.log2(first['codebook_size']):.0f}{level}"})
    for name, row in sweep["reference"].items():
        out.append({"frame": name, "STOI, each seed": f"{row['stoi']:.3f}",
                    **{k: v for k, v in _quality(row).items() if k != "STOI"}})
    return [{key: row.get(key, "–") for key in out[0]} for row in out]


def sweep_stoi(sweep: dict) -> dict[tuple, list[float]]:
    """{(milliseconds, codes, levels): the STOI of each seed} of `ch04_sweep`."""
    out = {}
    for runs in sweep["runs"].values():
        for run in runs.values():
            for row in run["rows"]:
                key = (run["milliseconds"], run["codebook_size"], row["levels"])
                out.setdefault(key, []).append(row["stoi"])
    return out


def sweep_gains(sweep: dict) -> tuple[list[float], list[float]]:
    """What one level gains in STOI from 20 ms instead of 40, and from 8,192 codes instead of 1,024: of each
    seed that all four have, the mean of both pairs that differ in nothing else."""
    stoi = sweep_stoi(sweep)
    seeds = min(len(stoi[ms, codes, 1]) for ms in (40, 20) for codes in (1024, 8192))
    stoi = {key: np.array(values[:seeds]) for key, values in stoi.items()}
    halved = [stoi[20, codes, 1] - stoi[40, codes, 1] for codes in (1024, 8192)]
    larger = [stoi[ms, 8192, 1] - stoi[ms, 1024, 1] for ms in (40, 20)]
    return np.mean(halved, 0).tolist(), np.mean(larger, 0).tolist()


def verdict(differences, what: str = "", words: tuple = ("holds", "fails", "undecided")) -> str:
    """A sentence: the mean of a few differences, one for each seed, its 95 % interval, and the word for an
    interval above zero, below zero, or round it. One seed decides nothing."""
    if len(differences) == 1:
        return f"{what}{differences[0]:+.3f} (one seed): {words[2]}"
    mean, half = t_interval(differences)
    said = words[0] if mean - half > 0 else words[1] if mean + half < 0 else words[2]
    interval = f"95 %: {mean - half:+.3f} to {mean + half:+.3f}, {len(differences)} seeds"
    return f"{what}{mean:+.3f} ({interval}): {said}"


# ---------------------------------------------------------------- deep voices, unknown people

DEEP_BELOW = 120.0          # Hz: a voice whose median pitch is lower counts as deep


def voice_rows(voices: list[dict]) -> list[dict]:
    """Rows for a table: each held-out voice of `ch04_controls`, from the deepest, and how much of its pitch
    is right."""
    return [{"voice": row["voice"], "pitch": f"{row['hz']:.0f} Hz",
             **{way: f"{found['right']:.0%}" for way, found in row["ways"].items()}} for row in voices]


def pitch_right(run: dict, way: str, deep: bool = True) -> float:
    """The share of right pitch that one codec of `ch04_controls` keeps, over its deep voices or the
    others."""
    return float(np.mean([row["ways"][way]["right"] for row in run["voices"] if (row["hz"] < DEEP_BELOW) == deep]))


def control_rows(controls: dict) -> list[dict]:
    """Rows for a table: the trained codecs of `ch04_controls`, and the share of right pitch with each seed."""
    def seeds(runs, way, deep):
        runs = runs[:1] if way == "no tokens" else runs                # which no seed decides
        return ", ".join(f"{pitch_right(run, way, deep):.0%}" for run in runs)
    return [{"codec": name} | {f"{group}: {way}": seeds(list(runs.values()), way, deep)
                               for group, deep in (("deep", True), ("high", False))
                               for way in ("no tokens", "nothing rounded", "4 levels")}
            for name, runs in controls["runs"].items()]


LIMITS = ("64 bands, true phase", "64 bands, Griffin-Lim (our route)", "64 bands, window of 64 ms",
          "32 bands, Griffin-Lim", "encoder and decoder, nothing rounded", "4 levels", "4 levels, true phase")


def limit_rows(found: dict, names=LIMITS) -> list[dict]:
    """Rows for a table: one set of people of `ch04_limits`, a way from sound to sound in each, 95 % intervals
    in brackets."""
    out = []
    for name in names:
        row = found["rows"][name]
        low, high = row["words_interval"]
        out.append({"": name,
                    "PESQ": "{:.2f} ({:.2f} to {:.2f})".format(row["pesq"], *row["pesq_interval"]),
                    "words": f"{row['words']:.1%}",
                    "words minus true": f"{100 * row['words_minus_true']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                    "pitch kept": f"{row['pitch_kept']:.0%}"})
    return out


def sweep_plot(sweep: dict, caption: str = "") -> None:
    """STOI against bits a second: a line through the means for each frame length, one for the levels of the
    shipped shape; a dot for each seed."""
    fig, axis = plt.subplots(figsize=(7.4, 3.4))
    lines: dict[str, dict] = {}
    for runs in sweep["runs"].values():
        for run in runs.values():
            name = f"{run['milliseconds']} ms, " + ("1, 2, 4 levels of 512" if run["levels"] > 1 else "one level")
            for row in run["rows"]:
                lines.setdefault(name, {}).setdefault(row["bits_per_second"], []).append(row["stoi"])
    for i, (name, found) in enumerate(lines.items()):
        bits = sorted(found)
        axis.plot(bits, [np.mean(found[b]) for b in bits], ("-", "--", "-.", ":")[i % 4], color=show.COLOURS[i],
                  marker="osD^"[i % 4], markersize=5, label=name)
        axis.plot([b for b in bits for _ in found[b]], [v for b in bits for v in found[b]], ".", markersize=4,
                  color=show.COLOURS[i], alpha=0.5)
    axis.set(xlabel="nominal bits a second", ylabel="STOI")
    axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    show.figure(fig, caption, colours=48)


def probe_plot(probes: dict, caption: str = "") -> None:
    """What the probe finds: one panel for each fact, one bar for each view of the tokens."""
    fig, axes = plt.subplots(1, len(FACTS), figsize=(10, 3.2), sharey=True)
    names = list(probes["views"])
    for axis, fact in zip(axes, FACTS):
        for i, name in enumerate(names):
            one, several = name.startswith("level "), "levels 0" in name
            colour = show.COLOURS[0] if one else show.COLOURS[1] if several else "#999999"
            axis.barh(i, max(0.0, probes["views"][name][fact]["score"]), 0.75, color=colour)
        if fact in probes["chance"]:
            axis.axvline(probes["chance"][fact], color="black", linestyle=":")
        axis.set(title=fact, xlim=(0, 1), xlabel="share right" if fact in probes["chance"] else "R²")
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes[0].set_yticks(range(len(names)), names, fontsize=9)
    axes[0].invert_yaxis()
    show.figure(fig, caption, colours=48)


def probe_rows(probes: dict) -> list[dict]:
    """Rows for a table: what level 0 holds of each fact, as a share of what the probe finds before
    rounding, and what each level more adds (95 % intervals)."""
    views, out = probes["views"], []
    for fact in FACTS:
        row = {"fact": fact, "level 0": f"{views['level 0'][fact]['score']:.2f}",
               "ceiling": f"{views['not rounded'][fact]['score']:.2f}",
               "level 0 / ceiling": f"{views['level 0'][fact]['score'] / views['not rounded'][fact]['score']:.0%}"}
        for name, (mean, low, high) in probes["gains"][fact].items():
            row[f"adding level {name[-1]}"] = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        out.append(row)
    return out


def peer_rows(peers: dict, name: str) -> list[dict]:
    """Rows for a table: one set of sounds of `tests/benchmarks/codec.py`, from few bits to many."""
    if name not in peers["sets"]:
        raise ValueError(f"there is no set {name!r}; the sets are {', '.join(peers['sets'])}")
    rows = sorted(peers["sets"][name]["rows"].items(), key=lambda item: item[1].get("bits_per_second", 1e9))
    return [{"": f"ours, {key}" if key.endswith(("level", "levels")) else key, "bits/s": _bits(row),
             **_quality(row)}
            for key, row in rows]


def peer_plot(peers: dict, caption: str = "") -> None:
    """STOI and PESQ against bits a second for every set of sounds: ours as a line, peers as marks with their
    names."""
    sets = list(peers["sets"].items())
    fig, axes = plt.subplots(2, len(sets), figsize=(3.3 * len(sets), 4.6), sharex=True, sharey="row",
                             squeeze=False)
    for column, (name, found) in zip(axes.T, sets):
        rows = found["rows"]
        ours = [r for n, r in rows.items() if n.endswith(("level", "levels"))]
        for axis, key in zip(column, ("stoi", "pesq")):
            bits = [r["bits_per_second"] for r in ours]
            axis.plot(bits, [r[key] for r in ours], "o-", label="ours, 1, 2, 4 levels")
            others = [(n, r) for n, r in rows.items() if n.startswith(("codec2", "opus"))]
            for i, (peer, r) in enumerate(others):
                axis.plot(r["bits_per_second"], r[key], "sD^v"[i % 4], color=show.COLOURS[(1, 2, 3, 6)[i % 4]],
                          label=peer)
            axis.set_xscale("log")
            axis.set_ylabel(key.upper())
        column[0].set_title(f"{name}: {found['words']} words", fontsize=10)
        column[1].set(xlabel="bits a second", xticks=[300, 1000, 3000])
        column[1].set_xticklabels(["300", "1,000", "3,000"])
        column[1].minorticks_off()
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    show.figure(fig, caption, colours=48)


def vocoder_rows(measured: dict) -> list[dict]:
    """Rows for a table: both ways back to sound at equal input (`vocoder`)."""
    return [{"input": name.rsplit(", ", 1)[0], "way back": name.rsplit(", ", 1)[1], **_quality(row),
             "times real time": round(row["times_real_time"])} for name, row in measured["rows"].items()]
