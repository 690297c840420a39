"""The vocabulary's recipe makes the shipped vocabulary."""
import platform

import pytest

from mmcourse import checkpoints
from mmcourse.paths import CHECKPOINTS
from mmcourse.recipes.bpe import train_vocabulary


@pytest.mark.slow
def test_the_shipped_vocabulary_is_the_recipes():
    shipped = checkpoints.load("bpe")
    path, entry = checkpoints.verify("bpe")
    assert path == CHECKPOINTS / "bpe.json" and shipped.vocab_size == entry["config"]["vocab_size"] == 1024
    if entry["config"]["python"] != platform.python_version():
        pytest.skip("Python's manual, part of the corpus, differs between versions of Python")
    assert train_vocabulary().merges == shipped.merges
