"""How long should a frame be, and how large its codebook?

`python -m mmcourse.studies.ch04_sweep` trains every configuration of chapter 04's table for the same number of steps on the
same sounds (about 6 minutes of one core in all) and writes `data/results/ch04_sweep.json`, one configuration at a time:
started again, it goes on with what is missing. STOI and PESQ need the `test` extra.
"""
import argparse
import base64
import json
import os

import numpy as np
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.bits import entropy_bits, mu_law
from mmcourse.codec import AudioCodec, codec_loss, in_pieces
from mmcourse.judges.hearing import pesq, stack, stoi
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.recipes.codec import CodecBatches
from mmcourse.spectrogram import log_mel, normalize_loudness
from mmcourse.training import Run, train
from mmcourse.world.speech import load_speech

STEPS, BATCH, WIDTH, LR, MUON_LR, SEED = 500, 16, 64, 2e-3, 0.02, 0
FRAMES, CODES = (10, 20, 40), (1024, 2048, 8192)            # milliseconds; entries of the one codebook
PER_VOICE, JOINED = 16, 8                                   # clips of each held-out voice; clips in a sound for STOI and PESQ
COUNTED = 2                                                 # every second clip of the held-out voices counts the codes in use
HEARD = "elephant"                                          # the word whose sound is kept, by the last held-out voice
FILE = RESULTS / "ch04_sweep.json"


class FrameCodec(AudioCodec):
    """The chapter's codec with frames of 10, 20 or 40 ms: the two strides are all that differs."""

    def __init__(self, milliseconds: int = 40, **options):
        super().__init__(**options)
        if milliseconds not in FRAMES:
            raise ValueError(f"frames are {FRAMES} ms long, got {milliseconds}")
        width, stride = self.config["width"], milliseconds // 10
        self.config["milliseconds"] = milliseconds
        self.frame_rate, self.samples_per_frame, self.stride = 1000 // milliseconds, 8 * milliseconds, stride
        self.encoder[4] = nn.Conv1d(width, width, stride, stride=stride)
        self.decoder[3] = nn.ConvTranspose1d(width, width, stride, stride=stride)

    @torch.no_grad()
    def decode_mel(self, ids) -> torch.Tensor:
        """(B, frames, L) -> (B, bands, stride x frames): as `AudioCodec.decode_mel`, for this stride."""
        ids = self.check_ids(ids)
        z = sum(codes[ids[..., level]] for level, codes in enumerate(self.codebooks[:ids.shape[2]]))
        return in_pieces(self.decoder, z.transpose(1, 2), 1, self.stride) * 2 - 7


def configurations() -> dict[str, dict]:
    """{name: what to build}: the shipped shape (four levels of 512 codes), then one level for each length and codebook."""
    out = {"40 ms, 4 x 512": {"milliseconds": 40, "codebook_size": 512, "levels": 4}}
    return out | {f"{ms} ms, {codes}": {"milliseconds": ms, "codebook_size": codes, "levels": 1}
                  for ms in reversed(FRAMES) for codes in CODES}


def held_out() -> tuple[list, list]:
    """Clips of the held-out voices, `PER_VOICE` of each, and their words; the last is `HEARD`."""
    corpus, rng = load_speech(), np.random.default_rng(SEED)
    voices = sorted({v for v, out in zip(corpus.voices, corpus.held_out, strict=True) if out})
    chosen = [i for v in voices for i in rng.choice(corpus.select(held_out=True, voice=v), PER_VOICE, replace=False)]
    chosen[-1] = corpus.select(HEARD, held_out=True, voice=voices[-1])[0]
    return [corpus.clips[i] for i in chosen], [corpus.words[i] for i in chosen]


def small_sound(samples) -> str:
    """(n,) floats in [-1, 1] as one mu-law byte a sample, in base64: small enough for a results file."""
    return base64.b64encode(mu_law(np.asarray(samples)).astype(np.uint8).tobytes()).decode()


def judge_sound(clips: list, words: list, sound: torch.Tensor, judge) -> dict:
    """STOI, PESQ and the share of words heard, of decoded `sound` (B, samples) against the true clips."""
    pairs = [[np.concatenate([np.asarray(x[i][:len(clips[i])]) for i in range(a, a + JOINED)]) for x in (clips, sound)]
             for a in range(0, len(clips), JOINED)]
    return {"stoi": round(float(np.mean([stoi(*p) for p in pairs])), 4), "words": round(judge.accuracy(sound, words), 4),
            "pesq": round(float(np.mean([pesq(*p) for p in pairs])), 3)}


def in_use(codec: AudioCodec) -> torch.Tensor:
    """The ids of all frames of many clips of the held-out voices: (frames, levels)."""
    corpus = load_speech()
    clips = [corpus.clips[i] for i in corpus.select(held_out=True)[::COUNTED]]
    parts = [clips[a:a + 64] for a in range(0, len(clips), 64)]
    ids = [(i, len(c)) for part in parts for i, c in zip(codec.encode(stack(part, 24 * 320)), part, strict=True)]
    return torch.cat([i[:-(-n // codec.samples_per_frame)] for i, n in ids])


@torch.no_grad()
def measure(codec: AudioCodec, judge) -> dict:
    """What the chapter's table says of one trained codec: a row for each number of levels that the chapter plays."""
    clips, words = held_out()
    sounds = stack(clips, 24 * 320)
    ids, many = codec.encode(sounds), in_use(codec)
    truth = log_mel(normalize_loudness(sounds), codec.filters)
    rows = []
    for n in {1: (1,), 4: (1, 2, 4)}[codec.levels]:
        mel, out = codec.decode_mel(ids[..., :n]), codec.decode(ids[..., :n])
        inside = torch.stack([torch.arange(truth.shape[2]) < len(c) / 80 for c in clips])          # not the padding
        far = (mel - truth).abs().mean(1)[inside].mean().item() * 20 / np.log(10)
        use = torch.bincount(many[:, n - 1], minlength=codec.codebook_size)
        rows.append({"levels": n, "bits_per_second": round(codec.frame_rate * n * np.log2(codec.codebook_size), 1),
                     "tokens_per_second": codec.frame_rate * n, **judge_sound(clips, words, out, judge),
                     "mel_db": round(far, 3), "codes_used": int((use > 0).sum()), "frames": int(use.sum()),
                     "entropy_bits": round(entropy_bits(use), 2), "sound": small_sound(out[-1][:len(clips[-1])])})
    return {"rows": rows}


def run(spec: dict, steps: int = STEPS, progress: bool = False, judge=None) -> dict:
    """Train one configuration and measure it."""
    torch.manual_seed(SEED)
    codec = FrameCodec(width=WIDTH, **spec)
    history = train(codec, CodecBatches(BATCH, humans=False), codec_loss, steps=steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, weight_decay=0.0, warmup=50),
                    run=Run(seed=SEED, progress=progress))
    if history.interrupted:
        raise KeyboardInterrupt
    return {**spec, **measure(codec, judge or checkpoints.load("word_judge")), "cpu_minutes": round(history.cpu_minutes, 2),
            "training_mel": round(float(np.mean(history.column("mel")[-3:])), 4)}


def reference(judge) -> dict:
    """The ceiling: the true sounds, and their log-mel without any tokens through Griffin-Lim."""
    clips, words = held_out()
    sounds, codec = stack(clips, 24 * 320), AudioCodec(width=8)
    mel = codec.mel_to_sound(log_mel(normalize_loudness(sounds), codec.filters))
    return {"true": {**judge_sound(clips, words, sounds, judge), "sound": small_sound(clips[-1])},
            "log-mel, no tokens": {**judge_sound(clips, words, mel, judge), "sound": small_sound(mel[-1][:len(clips[-1])])}}


def save(result: dict, path=FILE) -> None:
    """Write the result so that a crash leaves the old file whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def main(argv: list[str] | None = None) -> dict:
    """Run what the file does not hold yet."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch04_sweep", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="run only configurations whose name contains this")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    plan = {"steps": args.steps, "batch": BATCH, "width": WIDTH, "lr": LR, "muon_lr": MUON_LR, "seed": SEED,
            "clips": 8 * PER_VOICE, "heard": HEARD}
    result = json.loads(FILE.read_text("utf-8")) if FILE.exists() and not args.fresh else {"plan": plan, "runs": {}}
    if result["plan"] != plan:
        raise ValueError(f"{FILE.name} was made with {result['plan']}: say --fresh to replace it")
    judge = checkpoints.load("word_judge")
    result["reference"] = result.get("reference") or reference(judge)
    for name, spec in configurations().items():
        if name not in result["runs"] and args.only in name:
            result["runs"][name] = found = run(spec, args.steps, judge=judge)
            save(result)
            last = {k: v for k, v in found["rows"][-1].items() if k != "sound"}
            print(f"{name}: {last}, {found['cpu_minutes']} CPU minutes", flush=True)
    return result


if __name__ == "__main__":
    main()
