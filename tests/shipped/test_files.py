"""Everything that is shipped is there, is what its manifest records, and belongs together."""
import pytest

import mmcourse as mm
from mmcourse import checkpoints
from mmcourse.paths import CHECKPOINTS, DATA

SHIPPED = ("bpe", "codec", "decoder", "decoder128", "picture_judge", "second_listener", "sound_decoder", "transformer", "vqvae",
           "word_judge")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_checkpoint_is_the_file_that_its_manifest_records(name):
    path, entry = checkpoints.verify(name)
    assert {"config", "seed"} <= set(entry) or name == "bpe"
    assert path.stat().st_size < 10_000_000 and checkpoints.load(name) is not None


def test_there_is_no_other_file_and_no_other_entry():
    """What lies there unrecorded would be shipped and never checked."""
    entries = checkpoints.manifest()
    assert set(entries) >= set(SHIPPED)
    files = {path.name for path in CHECKPOINTS.iterdir() if path.suffix in (".safetensors", ".json")}
    assert files == {entry["file"] for entry in entries.values()} | {"manifest.json"}


@pytest.mark.parametrize(("name", "key", "part"), [
    ("transformer", "tokenizers", "bpe"), ("transformer", "tokenizers", "vqvae"), ("transformer", "tokenizers", "codec"),
    ("decoder", "vqvae", "vqvae"), ("decoder128", "vqvae", "vqvae"), ("sound_decoder", "codec", "codec")])
def test_what_was_trained_on_a_tokenizer_was_trained_on_the_shipped_one(name, key, part):
    entry = checkpoints.manifest()[name][key]
    assert (entry[part] if isinstance(entry, dict) else entry) == checkpoints.identity(part)


def test_the_shipped_model_loads_whole():
    model = mm.load()
    assert model.decoder is not None and model.decoder128 is not None
    assert model.vocabulary.size == model.transformer.vocab_size


def test_the_repository_stays_small():
    """Of 47 MB six are the model that converses and its listener."""
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 48_000_000
