"""Who hears phrases: a small network that writes down the words of up to three seconds of speech.

It learned from voices that no model of the course imitates (`mmcourse.world.other_voices`), so it is the report judge of
what a model says in a conversation. Print what it makes of true speech beside what it says of a model.
"""
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.judges.hearing import stack
from mmcourse.spectrogram import log_mel, mel_filterbank, normalize_loudness, normalize_mel

SHORTEST = 80 * 80          # samples: what is shorter is padded with silence


def words_of(text: str) -> list[str]:
    """The words of a phrase, without marks.

    >>> words_of("tell me: how many cats are there?")
    ['tell', 'me', 'how', 'many', 'cats', 'are', 'there']
    """
    return re.findall(r"[\w'-]+", text)


class PhraseListener(nn.Module):
    """Which words are said? Trained by connectionist temporal classification (CTC, Graves et al. 2006): each step of 40 ms is
    one of the words or silent, and which step it is nobody says.

    Args:
        words: that it knows, letters of a sign among them.
    """

    def __init__(self, words: Sequence[str], width: int = 128, bands: int = 40):
        super().__init__()
        self.config = dict(words=list(words), width=width, bands=bands)
        self.words = tuple(words)
        self.register_buffer("filters", mel_filterbank(bands), persistent=False)
        self.convolutions = nn.Sequential(nn.Conv1d(bands, width, 5, stride=2, padding=2), nn.GELU(),
                                          nn.Conv1d(width, width, 5, stride=2, padding=2), nn.GELU())
        self.recurrent = nn.GRU(width, width, 2, batch_first=True, bidirectional=True, dropout=0.2)
        self.head = nn.Linear(2 * width, len(self.words) + 1)               # 0: none

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, samples) -> (B, bands, frames): at one loudness, 10 ms a frame."""
        samples = F.pad(samples, (0, max(0, SHORTEST - samples.shape[1])))
        return normalize_mel(log_mel(normalize_loudness(samples), self.filters))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, bands, frames) -> (B, steps, 1 + words): log-probabilities."""
        states, _ = self.recurrent(self.convolutions(features).transpose(1, 2))      # (B, width, steps) -> (B, steps, width)
        return self.head(F.dropout(states, 0.2, self.training)).log_softmax(-1)

    @torch.no_grad()
    def hear(self, clips: Sequence) -> list[str]:
        """What is said in each clip (samples of any length at 8 kHz), word after word: the likeliest of each step."""
        out = []
        for i in range(0, len(clips), 32):
            part = [torch.as_tensor(clip) for clip in clips[i:i + 32]]
            sound = stack(part, max(len(clip) for clip in part)).to(self.filters.device)
            steps = self(self.features(sound)).argmax(-1)
            for row in steps.tolist():
                kept = [k for k, before in zip(row, [0, *row]) if k and k != before]
                out.append(" ".join(self.words[k - 1] for k in kept))
        return out


def word_errors(heard: str, said: str) -> tuple[int, int]:
    """How many words must be changed, put in or left out to get from one to the other (Levenshtein 1966), and how many were
    said.

    >>> word_errors("a cat on left", "a cat on the left")
    (1, 5)
    """
    a, b = words_of(heard), words_of(said)
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        before, row = row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1], len(b)
