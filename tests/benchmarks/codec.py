"""Our sound tokenizer beside the speech coders of the telephone, codec2 and Opus, on the same sounds.

    python tests/benchmarks/codec.py    # prints, and writes data/results/ch04_peers.json (two minutes)

The peers are programs: `apt-get install codec2 opus-tools` on Debian or Ubuntu. A row whose program is
missing says so, and is kept as it was measured last. STOI and PESQ (narrow band) need the `test` extra.

Three sets of sounds, none of whose voices any of our networks was trained on: words of the world in held-out
synthetic voices, other words in the same voices, and digits by the held-out person. Five words by one voice,
0.1 s apart, are one sound; all sounds of a set go through each coder in one piece. A peer's delay is found by
trying which fits best.
"""
import argparse
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from common import conclude, one_thread

from mmcourse import checkpoints
from mmcourse.codec import FRAME_SAMPLES
from mmcourse.files import read_json
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.paths import RESULTS
from mmcourse.spectrogram import denormalize_mel
from mmcourse.studies import _ch04
from mmcourse.studies._ch04 import corpus, held_out_voices
from mmcourse.world.human_digits import VALIDATION_SPEAKER, load_human_digits
from mmcourse.world.speech import SAMPLE_RATE

FILE = RESULTS / "ch04_peers.json"
JOINED = 5                                      # words in a sound
GAP = 800                                       # samples of silence after each
SEED = 0
PEERS = {"codec2 700C": ("c2enc", 700), "codec2 1300": ("c2enc", 1300), "codec2 2400": ("c2enc", 2400),
         "opus 6k": ("opusenc", 6000)}
# the row of ours that is to beat which peer; 450 bit/s, the most that "one level" may cost, are two of ours
FLOORS = {"4 levels": "codec2 1300", "2 levels": "codec2 700C", "1 level": "codec2 700C"}


@dataclass
class Sounds:
    """Five words each, joined: `samples` is one long array, `parts` says where each sound lies in it, `words`
    where each word does (start, end, what is said or None).
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
        rest = -at % FRAME_SAMPLES
        pieces.append(np.zeros(rest, np.float32))
        at += rest
        parts.append(slice(start, at))
    return Sounds(np.concatenate(pieces), parts, spans)


def synthetic(per_voice: int = 25) -> Sounds:
    """Words of the world by the eight held-out voices."""
    spoken, rng = corpus(), np.random.default_rng(SEED)
    chosen = [i for voice in held_out_voices()
              for i in rng.choice(spoken.select(held_out=True, voice=voice), per_voice, replace=False)]
    return join([spoken.clips[i] for i in chosen], [spoken.words[i] for i in chosen])


def new_words(per_voice: int = 10) -> Sounds:
    """Words that nothing was trained on, by the same voices; no judge knows them."""
    clips = _ch04.new_words(per_voice)
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
            commands = [["opusenc", "--quiet", "--raw", "--raw-rate", "8000", "--raw-chan", "1", "--speech",
                         "--bitrate", "6", raw, coded], ["opusdec", "--quiet", "--rate", "8000", coded, back]]
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
    """{row: (sound, bits, CPU seconds)} of our codec at each number of levels, and of its log-mel without any
    tokens."""
    start = time.process_time()
    ids = [codec.encode(sounds.samples[p]) for p in sounds.parts]
    encoding, out = time.process_time() - start, {}
    for n in levels:
        start = time.process_time()
        sound = np.concatenate([codec.decode(i[..., :n])[0].numpy() for i in ids])
        bits = sum(i.shape[1] for i in ids) * n * np.log2(codec.codebook_size)
        out[f"{n} level{'s' * (n > 1)}"] = sound, bits, encoding + time.process_time() - start
    start = time.process_time()
    mel = [denormalize_mel(codec.features(torch.from_numpy(sounds.samples[p])[None])) for p in sounds.parts]
    sound = np.concatenate([codec.mel_to_sound(m)[0].numpy() for m in mel])
    out["log-mel, no tokens"] = sound, None, time.process_time() - start
    return out


def measure(sounds: Sounds, out: np.ndarray, judge, bits: float | None = None) -> dict:
    """STOI and PESQ over the joined sounds, and the share of words that our judge hears right."""
    out = out[:len(sounds.samples)]
    pairs = [(sounds.samples[p], out[p]) for p in sounds.parts]
    row = {"stoi": float(np.mean([stoi(*pair) for pair in pairs])),
           "pesq": float(np.mean([pesq(*pair) for pair in pairs]))}
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
    return {"seconds": round(sounds.seconds, 1), "sounds": len(sounds.parts), "words": len(sounds.words),
            "rows": rows}


def verdicts(sets: dict) -> dict[str, bool]:
    """Which floors are met: ours against codec2 in STOI and PESQ, and words within 3 points of the uncoded
    sound."""
    met = {}
    for name, found in sets.items():
        rows = found["rows"]
        for ours, peer in FLOORS.items():
            if peer in rows:
                for key in ("stoi", "pesq"):
                    met[f"{name}: {ours} {key} above {peer}"] = rows[ours][key] > rows[peer][key]
        if "words" in rows["uncoded"]:
            least = rows["uncoded"]["words"] - 0.03
            met[f"{name}: 4 levels words within 3 points"] = rows["4 levels"]["words"] >= least
    return met


def measure_all(folder: Path | None, before: dict) -> dict:
    """Every set of sounds; `before`: the sets as they were measured last."""
    where = {"folder": folder} if folder else {}
    result = {**one_thread(), "joined": JOINED, "codec_sha256": checkpoints.identity("codec", **where), "sets": {}}
    codec, judge = checkpoints.load("codec", **where), checkpoints.load("word_judge")
    for name, make in {"synthetic voices": synthetic, "new words": new_words, "a person": person}.items():
        sounds = make()
        if sounds is None:
            print(f"{name}: the human digits are not in the cache (mmcourse data human-digits)")
            continue
        print(f"{name}: {len(sounds.words)} words, {sounds.seconds:.0f} s", flush=True)
        result["sets"][name] = table(sounds, codec, judge, before.get(name, {}).get("rows", {}))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="take the codec from this folder of checkpoints")
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--judge-again", action="store_true", help="measure nothing: the verdicts on the stored rows")
    args = parser.parse_args()
    before = read_json(FILE) if FILE.exists() else {"sets": {}}
    result = before if args.judge_again else measure_all(args.folder, before["sets"])
    met = verdicts(result["sets"])
    if args.dry:
        print(met)
    else:
        conclude("ch04_peers", result, met)


if __name__ == "__main__":
    main()
