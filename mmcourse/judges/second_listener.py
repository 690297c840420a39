"""A second listener, so that what was spoken has two judges. Nothing that trains a model uses it.

It shares neither architecture nor voices with `WordJudge`: it is recurrent, sees 40 bands instead of 64, and
learned from voices that neither the models nor the other judge ever heard (`mmcourse.world.other_voices`).
What the two do share is espeak-ng, which spoke to both, and the loss of `mmcourse.recipes.word_judge`.
"""
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.judges.hearing import WordListener
from mmcourse.world.scene import WORDS

FRAMES_PER_STEP = 2          # the recurrent network takes a step of 20 ms
LAYERS = 2
DROPOUT = 0.2


class SecondListener(WordListener):
    """Which word of the world is it? Gated recurrent units over the log-mel spectrogram of one spoken word.

    The units (Cho et al., 2014) read it forwards and backwards (Schuster & Paliwal, 1997); attention with one
    head pools their states over time (Lin et al., "A structured self-attentive sentence embedding", 2017).
    """

    def __init__(self, words=WORDS, width: int = 96, bands: int = 40):
        super().__init__(words, bands)
        self.config = dict(words=list(words), width=width, bands=bands)
        self.recurrent = nn.GRU(FRAMES_PER_STEP * bands, width, LAYERS, batch_first=True, dropout=DROPOUT,
                                bidirectional=True)
        self.attention = nn.Linear(2 * width, 1)
        self.head = nn.Linear(2 * width, len(self.words))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, bands, frames) -> (B, words): logits."""
        steps = features.transpose(1, 2).unflatten(1, (-1, FRAMES_PER_STEP)).flatten(2)  # (B, steps, 2 bands)
        states, _ = self.recurrent(steps)                                                # (B, steps, 2 width)
        weights = self.attention(states).softmax(1)                                      # (B, steps, 1)
        return self.head(F.dropout((weights * states).sum(1), DROPOUT, self.training))
