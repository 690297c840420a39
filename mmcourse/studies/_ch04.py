"""What the studies of chapters 04 and 07 share: sounds by voices that nothing was trained on, and what is
left of them."""
import base64
from functools import cache

import numpy as np
import torch

from mmcourse.bits import mu_law
from mmcourse.judges.hearing import pesq, stoi
from mmcourse.world.speech import VOICES, load_speech, speak, to_clip

NEW_WORDS = tuple("""river mountain window garden summer winter doctor kitchen market engine pencil forest morning
picture silver travel number village weather bottle""".split())         # not one of them is in the world


corpus = cache(load_speech)             # read once, whoever asks


def held_out_voices() -> list[int]:
    """The voices that nothing was trained on, as indices of `VOICES`."""
    return sorted({voice for voice, out in zip(corpus().voices, corpus().held_out) if out})


def held_out_clips(per_voice: int, heard: str, seed: int = 0) -> tuple[list, list]:
    """Clips of the held-out voices, `per_voice` of each, and their words; the last says `heard`."""
    spoken, rng, voices = corpus(), np.random.default_rng(seed), held_out_voices()
    chosen = [i for voice in voices
              for i in rng.choice(spoken.select(held_out=True, voice=voice), per_voice, replace=False)]
    chosen[-1] = spoken.select(heard, held_out=True, voice=voices[-1])[0]
    return [spoken.clips[i] for i in chosen], [spoken.words[i] for i in chosen]


def new_words(per_voice: int) -> list[np.ndarray]:
    """Words that are not in the world, by the held-out voices; no judge knows them."""
    jobs = [(NEW_WORDS[(k + 10 * n) % len(NEW_WORDS)], VOICES[voice], 40 + k, 150 + 3 * k)
            for n, voice in enumerate(held_out_voices()) for k in range(per_voice)]
    return [to_clip(sound, rate).astype(np.float32) / 32767 for sound, rate in speak(jobs)]


def joined_pairs(clips: list, sound, group: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """True and decoded clips, `group` of them in a row: STOI and PESQ need more than a word.

    `sound`: (B, samples), whose rows are cut to the lengths of the clips.
    """
    cut = [np.asarray(row)[:len(clip)] for row, clip in zip(sound, clips)]
    return [(np.concatenate([np.asarray(c) for c in clips[a:a + group]]), np.concatenate(cut[a:a + group]))
            for a in range(0, len(clips), group)]


def judge_sound(clips: list, words: list, sound: torch.Tensor, judge, group: int = 8) -> dict:
    """STOI, PESQ and the share of words heard, of decoded `sound` (B, samples) against the true clips.

    PESQ is None if a decoded sound is silent: it finds nothing to compare then.
    """
    pairs = joined_pairs(clips, sound, group)
    silent = not all(decoded.any() for _, decoded in pairs)
    return {"stoi": round(float(np.mean([stoi(*p) for p in pairs])), 4),
            "words": round(judge.accuracy(sound, words), 4),
            "pesq": None if silent else round(float(np.mean([pesq(*p) for p in pairs])), 3)}


def small_sound(samples) -> str:
    """(n,) floats in [-1, 1] as one mu-law byte a sample, in base64: small enough for a results file."""
    return base64.b64encode(mu_law(np.asarray(samples)).astype(np.uint8).tobytes()).decode()
