"""Our sound tokenizer beside the speech coders of the telephone: codec2 and Opus, on the same sounds in one run.

    python tests/benchmarks/codec.py      # prints, and writes data/results/ch04_peers.json (two minutes of one core)

The peers are programs: `apt-get install codec2 opus-tools` on Debian or Ubuntu. A row whose program is missing says so, and
is kept as it was measured last. STOI and PESQ (narrow band) need the `test` extra.

Three sets of sounds, none of whose voices any of our networks was trained on: words of the world in held-out synthetic
voices, other words in the same voices, and digits by the held-out person. Five words by one voice, 0.1 s apart, are one
sound; all sounds of a set go through each coder in one piece. A peer's delay is found by trying which fits best.
"""
import argparse
import json
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.paths import RESULTS
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import SAMPLE_RATE, VOICES, load_speech, speak, to_clip

FILE = RESULTS / "ch04_peers.json"
JOINED, GAP, SEED = 5, 800, 0                   # words in a sound; samples of silence after each
PEERS = {"codec2 700C": ("c2enc", 700), "codec2 1300": ("c2enc", 1300), "codec2 2400": ("c2enc", 2400),
         "opus 6k": ("opusenc", 6000)}
# the row of ours that is to beat which peer; 450 bit/s, the most that "one level" may cost, are two of ours
FLOORS = {"4 levels": "codec2 1300", "2 levels": "codec2 700C", "1 level": "codec2 700C"}
NEW_WORDS = """river mountain window garden summer winter doctor kitchen market engine pencil forest morning picture
silver travel number village weather bottle""".split()                  # not one of them is in the world


@dataclass
class Sounds:
    """Five words each, joined: `samples` is one long array, `parts` says where each sound lies in it, `words` where each
    word does (start, end, what is said or None).
    """
    samples: np.ndarray
    parts: list[slice]
    words: list[tuple] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def join(clips: list, words: list) -> Sounds:
    """Clips of one voice after another, each followed by a gap; a sound begins on a whole frame of 40 ms."""
    pieces, parts, spans, at = [], [], [], 0
    for i in range(0, len(clips) - JOINED + 1, JOINED):
        start = at
        for clip, word in zip(clips[i:i + JOINED], words[i:i + JOINED], strict=True):
            pieces += [clip, np.zeros(GAP, np.float32)]
            spans.append((at, at + len(clip), word))
            at += len(clip) + GAP
        rest = -at % 320
        pieces.append(np.zeros(rest, np.float32))
        at += rest
        parts.append(slice(start, at))
    return Sounds(np.concatenate(pieces), parts, spans)


def synthetic(per_voice: int = 25) -> Sounds:
    """Words of the world by the eight held-out voices."""
    corpus, rng = load_speech(), np.random.default_rng(SEED)
    voices = sorted({v for v, out in zip(corpus.voices, corpus.held_out, strict=True) if out})
    chosen = [i for v in voices for i in rng.choice(corpus.select(held_out=True, voice=v), per_voice, replace=False)]
    return join([corpus.clips[i] for i in chosen], [corpus.words[i] for i in chosen])


def new_words(per_voice: int = 10) -> Sounds:
    """Words that nothing was trained on, by the same voices; no judge knows them."""
    assert not set(NEW_WORDS) & set(WORDS)
    corpus = load_speech()
    voices = sorted({v for v, out in zip(corpus.voices, corpus.held_out, strict=True) if out})
    jobs = [(NEW_WORDS[(k + 10 * n) % 20], VOICES[v], 40 + k, 150 + 3 * k) for n, v in enumerate(voices) for k in range(per_voice)]
    clips = [(to_clip(sound, rate) / 32767).astype(np.float32) for sound, rate in speak(jobs)]
    return join(clips, [None] * len(clips))


def person(every: int = 4) -> Sounds | None:
    """Digits by the person whom nothing was trained on, or None if the recordings are not in the cache."""
    digits = load_human_digits()
    if digits is None:
        return None
    chosen = [i for i, s in enumerate(digits.speakers) if s == VALIDATION_SPEAKER][::every]
    chosen = np.random.default_rng(SEED).permutation(chosen)
    return join([digits.clips[i] for i in chosen], [digits.words[i] for i in chosen])


# ---------------------------------------------------------------- the coders

def through_peer(name: str, samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Samples through a program and back: the sound, and the bits of the file in between."""
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, back = (str(Path(folder) / f) for f in ("in.raw", "coded.bit", "back.raw"))
        (np.clip(samples, -1, 1) * 32767).astype("<i2").tofile(raw)
        if name.startswith("codec2"):
            mode = name.split()[1]
            commands = [["c2enc", mode, raw, coded], ["c2dec", mode, coded, back]]
        else:
            commands = [["opusenc", "--quiet", "--raw", "--raw-rate", "8000", "--raw-chan", "1", "--speech", "--bitrate", "6",
                         raw, coded], ["opusdec", "--quiet", "--rate", "8000", coded, back]]
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        return np.fromfile(back, "<i2").astype(np.float32) / 32768, 8.0 * Path(coded).stat().st_size


def aligned(sounds: Sounds, out: np.ndarray, longest: int = 640, step: int = 20) -> tuple[np.ndarray, int]:
    """Take off the delay (0 to 80 ms) that suits a peer best, by STOI on six of the sounds."""
    out = np.pad(out, (0, max(0, len(sounds.samples) + longest - len(out))))
    some = sounds.parts[::max(1, len(sounds.parts) // 6)]

    def fit(delay: int) -> float:
        return float(np.mean([stoi(sounds.samples[p], out[delay:][p]) for p in some]))
    delay = max(range(0, longest, step), key=fit)
    return out[delay:delay + len(sounds.samples)], delay


@torch.no_grad()
def through_ours(codec, sounds: Sounds, levels: tuple = (1, 2, 4)) -> dict[str, tuple]:
    """{row: (sound, bits, CPU seconds)} of our codec at each number of levels, and of its log-mel without any tokens."""
    start = time.process_time()
    ids = [codec.encode(sounds.samples[p]) for p in sounds.parts]
    encoding, out = time.process_time() - start, {}
    for n in levels:
        start = time.process_time()
        sound = np.concatenate([codec.decode(i[..., :n])[0].numpy() for i in ids])
        bits = sum(i.shape[1] for i in ids) * n * np.log2(codec.codebook_size)
        out[f"{n} level{'s' * (n > 1)}"] = sound, bits, encoding + time.process_time() - start
    start = time.process_time()
    mel = [(codec.features(torch.from_numpy(sounds.samples[p])[None]) * 2 - 7) for p in sounds.parts]
    sound = np.concatenate([codec.mel_to_sound(m)[0].numpy() for m in mel])
    out["log-mel, no tokens"] = sound, None, time.process_time() - start
    return out


def measure(sounds: Sounds, out: np.ndarray, judge, bits: float | None = None) -> dict:
    """STOI and PESQ over the joined sounds, and the share of words that our judge hears right."""
    out = out[:len(sounds.samples)]
    pairs = [(sounds.samples[p], out[p]) for p in sounds.parts]
    row = {"stoi": float(np.mean([stoi(*pair) for pair in pairs])), "pesq": float(np.mean([pesq(*pair) for pair in pairs]))}
    said = [word for _, _, word in sounds.words]
    if None not in said:
        row["words"] = judge.accuracy(stack([out[a:b] for a, b, _ in sounds.words]), said)
    row = {name: round(value, 4) for name, value in row.items()}
    return row | ({"bits_per_second": round(bits / sounds.seconds)} if bits else {})


def table(sounds: Sounds, codec, judge, before: dict) -> dict:
    """Every row of one set of sounds."""
    rows = {"uncoded": measure(sounds, sounds.samples, judge)}
    for name, (program, nominal) in PEERS.items():
        if shutil.which(program) is None:
            print(f"    {name}: {program} is not installed (apt-get install codec2 opus-tools)"
                  + ("; its row is kept" if name in before else ""))
            if name in before:
                rows[name] = before[name]
            continue
        out, bits = through_peer(name, sounds.samples)
        out, delay = aligned(sounds, out)
        rows[name] = measure(sounds, out, judge, bits) | {"nominal": nominal, "delay_ms": delay / 8}
    for name, (out, bits, seconds) in through_ours(codec, sounds).items():
        rows[name] = measure(sounds, out, judge, bits) | {"times_real_time": round(sounds.seconds / seconds, 1)}
    for name, row in rows.items():
        print(f"    {name:20}", row, flush=True)
    return {"seconds": round(sounds.seconds, 1), "sounds": len(sounds.parts), "words": len(sounds.words), "rows": rows}


def verdicts(sets: dict) -> dict[str, bool]:
    """Which floors are met: ours against codec2 in STOI and PESQ, and words within 3 points of the uncoded sound."""
    met = {}
    for name, found in sets.items():
        rows = found["rows"]
        for ours, peer in FLOORS.items():
            if peer in rows:
                for key in ("stoi", "pesq"):
                    met[f"{name}: {ours} {key} above {peer}"] = rows[ours][key] > rows[peer][key]
        if "words" in rows["uncoded"]:
            met[f"{name}: 4 levels words within 3 points"] = rows["4 levels"]["words"] >= rows["uncoded"]["words"] - 0.03
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", default=None, help="take the codec from this folder of checkpoints")
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--judge-again", action="store_true", help="no new measurement: the verdicts on the stored rows")
    args = parser.parse_args()
    if args.judge_again:
        result = json.loads(FILE.read_text("utf-8"))
        return conclude(result, args.dry)
    torch.set_num_threads(1)
    where = {"folder": Path(args.folder)} if args.folder else {}
    codec, judge = checkpoints.load("codec", **where), checkpoints.load("word_judge")
    before = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"sets": {}}
    result = {"python": platform.python_version(), "torch": torch.__version__, "threads": 1, "joined": JOINED,
              "codec_sha256": checkpoints.manifest(**where)["codec"]["sha256"], "sets": {}}
    for name, make in {"synthetic voices": synthetic, "new words": new_words, "a person": person}.items():
        sounds = make()
        old = before["sets"].get(name, {})
        if sounds is None:
            print(f"{name}: the human digits are not in the cache (mmcourse data human-digits)")
            continue
        print(f"{name}: {len(sounds.words)} words, {sounds.seconds:.0f} s", flush=True)
        result["sets"][name] = table(sounds, codec, judge, old.get("rows", {}))
    conclude(result, args.dry)


def conclude(result: dict, dry: bool) -> None:
    """Say which floors are met, and write everything."""
    result["met"] = verdicts(result["sets"])
    for name, value in result["met"].items():
        print(f"{'met   ' if value else 'MISSED'} {name}")
    if not dry:
        FILE.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
