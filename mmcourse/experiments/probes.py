"""What a linear reader finds in states, and the controls without which that says nothing (chapter 13).

Sources: Alain and Bengio 2016 (1610.01644); control tasks and selectivity, Hewitt and Liang 2019 (1909.03368).
"""
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def probe(states: torch.Tensor, labels: Sequence, new_states: torch.Tensor, new_labels: Sequence,
          strengths: Sequence[float] = (1, 10, 100, 1000)) -> float:
    """Train a linear probe on states (N, C) and their labels; the share of the new ones
    (M, C) that it gets right. How strongly its weights are held small is chosen among
    `strengths` by leaving one state out at a time."""
    reader = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=strengths))
    reader.fit(states.numpy(), np.asarray(labels))
    return float(reader.score(new_states.numpy(), np.asarray(new_labels)))


def control_labels(kinds: Sequence[Hashable], classes: int, seed: int = 0) -> list[int]:
    """A label for each state that its kind alone decides, by dice: nothing to understand,
    all to learn by heart."""
    label = {kind: int(np.random.default_rng((seed, i)).integers(classes))
             for i, kind in enumerate(sorted(set(kinds), key=repr))}
    return [label[kind] for kind in kinds]
