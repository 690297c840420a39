"""Hearing words, independently of the models that spoke them.

`WordJudge` is a small network of the course's own, trained on true speech alone; `SecondListener`
(`mmcourse.judges.second_listener`) is another network that never heard the course's voices; pocketsphinx is the audit,
and STOI and PESQ compare two sounds without any opinion on words. Print every judge's accuracy on true speech beside
what it says of a model. A recipe may use judges to report what it trained, never to train.
"""
import json

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import device_of
from mmcourse.codec import CLIP_SAMPLES
from mmcourse.spectrogram import check_sound, log_mel, mel_filterbank, normalize_loudness, normalize_mel
from mmcourse.world.scene import WORDS
from mmcourse.world.speech import SAMPLE_RATE

LENGTH = 104 * 80           # the judge listens to 1.04 s


class WordListener(nn.Module):
    """What the course's listeners share; a subclass has a `config` and `forward`, (B, bands, 104) -> (B, words)."""

    def __init__(self, words, bands: int):
        super().__init__()
        self.words = tuple(words)
        self.register_buffer("filters", mel_filterbank(bands), persistent=False)

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, samples) -> (B, bands, 104): the first 1.04 s at one loudness, padded with silence."""
        samples = F.pad(samples[:, :LENGTH], (0, max(0, LENGTH - samples.shape[1])))
        return normalize_mel(log_mel(normalize_loudness(samples), self.filters))

    @torch.no_grad()
    def probabilities(self, samples) -> torch.Tensor:
        """(samples,) or (B, samples) float at 8 kHz -> (B, words), rows that sum to 1."""
        samples = check_sound(samples).to(self.filters.device)
        return torch.cat([self(self.features(part)).softmax(-1) for part in samples.split(128)])

    def hear(self, samples) -> list[str]:
        """The most likely word of each row of (samples,) or (B, samples)."""
        return [self.words[i] for i in self.probabilities(samples).argmax(-1)]

    def accuracy(self, clips, words) -> float:
        """The share of `clips` (arrays of any length) that is heard as the word in `words`."""
        return float(np.mean([heard == word for heard, word in zip(self.hear(stack(clips)), words, strict=True)]))


class WordJudge(WordListener):
    """The report judge of spoken words: a convolutional network over the log-mel spectrogram of one spoken word.

    Trained on true clips of the course's training voices and on three people's digits (`recipes/word_judge.py`).
    """

    def __init__(self, words=WORDS, width: int = 20, bands: int = 64):
        super().__init__(words, bands)
        self.config = dict(words=list(words), width=width, bands=bands)

        def layer(a, b, stride):
            return nn.Sequential(nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.layers = nn.Sequential(layer(1, width, 2), layer(width, 2 * width, 2), layer(2 * width, 4 * width, 2),
                                    layer(4 * width, 4 * width, 1))
        self.head = nn.Linear(4 * width * (bands // 8), len(self.words))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, bands, frames) -> (B, words): logits. Pooled over time, so that it does not matter when the word begins."""
        x = self.layers(features[:, None])                                     # (B, 4 width, bands / 8, frames / 8)
        return self.head(F.dropout((x.mean(3) + x.amax(3)).flatten(1), 0.2, self.training))


def stack(clips, length: int = LENGTH) -> torch.Tensor:
    """Clips of any length -> (B, length), padded with silence or cut."""
    out = torch.zeros(len(clips), length)
    for row, clip in zip(out, clips, strict=True):
        clip = torch.as_tensor(clip)[:length]
        row[:len(clip)] = clip
    return out


def _extra(module: str):
    """Import a module of the `test` extra, or say how to get it."""
    import importlib
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed for this measure: pip install 'mmcourse[test]' "
                          f"(in the repository: pip install -e '.[test]'). The import said: {error}") from error


def _pair(clean, other) -> tuple[np.ndarray, np.ndarray]:
    clean, other = (np.asarray(check_sound(x)[0], dtype=np.float64) for x in (clean, other))
    n = min(len(clean), len(other))
    return clean[:n], other[:n]


def stoi(clean, other) -> float:
    """Short-time objective intelligibility (Taal et al., 2011) of `other` against `clean`, 8 kHz: 0 to 1. Needs > 0.4 s
    of sound: join several words.
    """
    clean, other = _pair(clean, other)
    if len(clean) < 0.5 * SAMPLE_RATE:
        raise ValueError(f"STOI needs half a second of sound at least, got {len(clean) / SAMPLE_RATE:.2f} s: join several words")
    return float(_extra("pystoi").stoi(clean, other, SAMPLE_RATE))


def pesq(clean, other) -> float:
    """Perceptual evaluation of speech quality of `other` against `clean`, 8 kHz: 1.02 to 4.55.

    ITU-T P.862, narrow band, on the scale of listeners' opinions that P.862.1 gives it (MOS-LQO).
    """
    clean, other = _pair(clean, other)
    module = _extra("pesq")
    try:
        return float(module.pesq(SAMPLE_RATE, clean, other, "nb"))
    except module.NoUtterancesError:
        raise ValueError("PESQ found no speech in the sound: is it silent?") from None


class SphinxJudge:
    """The audit: pocketsphinx with a grammar of the world's words. It is weak on synthetic voices."""

    def __init__(self, words=WORDS):
        module = _extra("pocketsphinx")
        self.decoder = module.Decoder(samprate=16000, loglevel="FATAL")
        known = [w for w in words if self.decoder.lookup_word(w)]
        self.unknown = tuple(sorted(set(words) - set(known)))
        self.decoder.add_jsgf_string("words", f"#JSGF V1.0; grammar words; public <word> = {' | '.join(known)};")
        self.decoder.activate_search("words")

    def hear(self, clips) -> list[str]:
        """The word heard in each clip (8 kHz float); "" where it hears none."""
        from mmcourse.world.speech import resample
        out = []
        for clip in clips:
            quiet = np.zeros(3200)
            sound = np.concatenate([quiet, resample(np.asarray(clip, np.float64), SAMPLE_RATE, 16000), quiet])
            self.decoder.start_utt()
            self.decoder.process_raw((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
            self.decoder.end_utt()
            hypothesis = self.decoder.hyp()
            out.append(hypothesis.hypstr if hypothesis else "")
        return out


def through_codec(codec, samples: torch.Tensor, levels=(2,)) -> dict[int, torch.Tensor]:
    """What the codec makes of (B, samples): number of levels -> sound (B, samples), in whole frames of 40 ms."""
    ids = torch.cat([codec.encode(part.to(device_of(codec))) for part in samples.split(64)])
    return {n: torch.cat([codec.decode(part[..., :n]).cpu() for part in ids.split(64)]) for n in levels}


def measure_codec(codec, corpus, judge=None, levels=(1, 2, 4), words_per_voice: int = 42, seed: int = 0) -> dict:
    """What is left of held-out voices after the codec: accuracy of the judge on true clips and on each number of levels,
    STOI and PESQ over eight words joined, for the same clips. A dict of rounded numbers, fit for a manifest.
    """
    rng = np.random.default_rng(seed)
    voices = sorted({v for v, out in zip(corpus.voices, corpus.held_out, strict=True) if out})
    chosen = np.concatenate([rng.choice(corpus.select(held_out=True, voice=v), words_per_voice, replace=False)
                             for v in voices])
    clips, words = stack([corpus.clips[i] for i in chosen], CLIP_SAMPLES), [corpus.words[i] for i in chosen]
    coded = through_codec(codec, clips, levels)
    sounds = {"true": clips, **{f"{n} levels": sound for n, sound in coded.items()}}
    result = {"clips": len(clips), "voices": len(voices)}
    for name, sound in sounds.items():
        entry = {}
        if judge is not None:
            entry["judge"] = round(judge.accuracy(sound, words), 4)
        if name != "true":
            joined = [[torch.cat([s[i][:len(corpus.clips[chosen[i]])] for i in range(v, v + 8)]) for s in (clips, sound)]
                      for v in range(0, len(clips), words_per_voice)]
            entry["stoi"] = round(float(np.mean([stoi(*pair) for pair in joined])), 3)
            entry["pesq"] = round(float(np.mean([pesq(*pair) for pair in joined])), 2)
        result[name] = entry
    return json.loads(json.dumps(result))
