"""The codec's recipe: batches of training voices alone, and a run that is stopped goes on exactly."""
import numpy as np
import torch

from mmcourse.recipes import codec as recipe
from mmcourse.world.speech import load_speech


def test_training_is_resumed_exactly(tmp_path, monkeypatch):
    whole, _ = recipe.train_codec(4, seed=3, progress=False, width=16, batch=4)
    stop = {"after": 2}

    class Interrupting(recipe.CodecBatches):
        def __call__(self, rng):
            stop["after"] -= 1
            if stop["after"] < 0:
                raise KeyboardInterrupt
            return super().__call__(rng)
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "CodecBatches", Interrupting)
        _, history = recipe.train_codec(4, tmp_path / "run.pt", seed=3, progress=False, width=16, batch=4)
    assert history.interrupted
    resumed, _ = recipe.train_codec(4, tmp_path / "run.pt", seed=3, progress=False, width=16, batch=4)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_batches_hold_training_voices_only():
    batches, corpus = recipe.CodecBatches(humans=False), load_speech(progress=False)
    assert len(batches.clips) == len(corpus.select())
    sound, n_levels = batches(np.random.default_rng(0))
    assert sound.shape == (32, 7680) and sound.isfinite().all() and set(n_levels.tolist()) <= {1, 2, 3, 4}
