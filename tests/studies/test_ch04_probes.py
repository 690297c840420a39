"""Probes find what is there and nothing else."""
import numpy as np
import torch

from mmcourse.codec import AudioCodec
from mmcourse.judges import pitch
from mmcourse.spectrogram import log_mel
from mmcourse.studies import ch04_probes


def test_probes_find_what_is_there_and_nothing_else():
    x, noise = torch.randn(600, 8), torch.randn(600, 8)
    y = x[:, :1] * 2 - x[:, 1:2]
    said = ch04_probes.linear(x[:400], y[:400], x[400:])
    assert (said - y[400:]).abs().mean() < 0.1
    said = ch04_probes.linear(noise[:400], y[:400], x[400:])
    assert (said - y[400:]).square().mean() > 0.8 * y.var()
    labels = (x[:, 0] > 0).long().tolist()
    assert min(ch04_probes.accuracy(x[:400], labels[:400], x[400:], labels[400:], 200)) > 0.9
    assert max(ch04_probes.accuracy(noise[:400], labels[:400], x[400:], labels[400:], 200)) < 0.65


def test_shuffling_keeps_the_tokens_and_breaks_the_order():
    described = [{"codes": torch.arange(4.0 * k, 4 * k + 4).view(4, 1, 1)} for k in range(5)]
    mixed = ch04_probes.shuffled(described)
    before, after = (torch.cat([d["codes"] for d in part]).flatten() for part in (described, mixed))
    assert torch.equal(before, after.sort().values) and not torch.equal(before, after)


def test_facts_of_a_known_sound():
    sound = pitch.notes([200.0], 0.64)
    mel = log_mel(torch.from_numpy(sound)[None], AudioCodec(width=8).filters)[0].numpy()
    found = ch04_probes.facts(mel, sound)
    assert found.shape == (16, 3)
    assert np.abs(found[3:12, 0] - np.log2(200)).max() < 0.02 and (np.diff(found[3:12, 2]) < 0).all()      # it fades
