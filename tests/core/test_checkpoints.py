"""Shipped models: what comes back is what was saved, or a clear refusal; never half a file."""
import json

import pytest
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.bpe import BPETokenizer
from mmcourse.transformer import Transformer
from mmcourse.vqvae import VQVAE


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    checkpoints.save("small", make(), seed=3, steps=7, cpu_minutes=1.23456, metrics={"psnr_db": 12.3}, folder=tmp_path)
    return tmp_path


def make(codes: int = 16) -> VQVAE:
    return VQVAE(codebook_size=codes, dim=4, width=16)


def edit(folder, **changes) -> None:
    entries = checkpoints.manifest(folder)
    entries["small"].update(changes)
    (folder / "manifest.json").write_text(json.dumps(entries))


def test_what_is_loaded_is_what_was_saved(folder):
    torch.manual_seed(0)
    model, loaded = make(), checkpoints.load("small", folder)
    assert type(loaded) is VQVAE and not loaded.training and loaded.config == model.config
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_manifest_says_how_it_was_made(folder):
    entry = checkpoints.manifest(folder)["small"]
    assert entry["config"] == make().config and entry["model"] == "VQVAE"
    assert (entry["seed"], entry["steps"], entry["cpu_minutes"]) == (3, 7, 1.23)
    assert entry["metrics"] == {"psnr_db": 12.3} and entry["file"] == "small.safetensors"
    assert entry["sha256"] == checkpoints.sha256(folder / "small.safetensors") and len(entry["sha256"]) == 64


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_changed_byte_is_refused(folder, where):
    path = folder / "small.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="contents have changed.*train small"):
        checkpoints.load("small", folder)


def test_a_file_cut_short_or_empty_is_refused(folder):
    path = folder / "small.safetensors"
    for content in (path.read_bytes()[:-10], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="contents have changed"):
            checkpoints.load("small", folder)


@pytest.mark.parametrize("config", [
    {"codebook_size": 32, "dim": 4, "width": 16, "context": 1},                # other shapes
    {"codebook_size": 16, "dim": 4, "width": 16, "context": 3},                # a convolution of another size
    {"codebook_size": 16, "dim": 4, "width": 16, "depth": 3},                  # a keyword that the class does not have
])
def test_another_config_is_refused(folder, config):
    edit(folder, config=config)
    with pytest.raises(ValueError, match="config in the manifest"):
        checkpoints.load("small", folder)


def test_missing_and_additional_weights_are_refused(folder):
    from safetensors.torch import load_file, save_file
    path = folder / "small.safetensors"
    state = load_file(path)
    missing = {k: v for k, v in state.items() if k != "encoder.0.bias"}
    for changed in (missing, {**state, "more": torch.zeros(1)}):
        save_file(changed, path)
        edit(folder, sha256=checkpoints.sha256(path))                  # even though the hash is right
        with pytest.raises(ValueError, match="does not fit the config"):
            checkpoints.load("small", folder)


def test_a_file_that_is_no_safetensors_is_refused_even_if_the_hash_is_right(folder):
    path = folder / "small.safetensors"
    path.write_bytes(b"PK not a model")
    edit(folder, sha256=checkpoints.sha256(path))
    with pytest.raises(ValueError, match="small.safetensors"):
        checkpoints.load("small", folder)


def test_a_missing_file_an_unknown_name_and_an_empty_folder(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'other'.*it has: small.*train other"):
        checkpoints.load("other", folder)
    (folder / "small.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="missing though the manifest names it"):
        checkpoints.load("small", folder)
    with pytest.raises(FileNotFoundError, match="it has: none"):
        checkpoints.load("small", tmp_path_factory.mktemp("empty"))
    assert checkpoints.manifest(folder / "nowhere") == {}


def test_a_manifest_that_is_no_json_is_refused(folder):
    (folder / "manifest.json").write_text("<<<<<<< HEAD")
    with pytest.raises(ValueError, match="manifest.json"):
        checkpoints.load("small", folder)


@pytest.mark.parametrize("model", ["os.system", "torch.nn.Linear", "mmcourse.vqvae.Nothing", "VQVAE.load", ""])
def test_only_classes_of_this_package_are_built(folder, model):
    edit(folder, model=model)
    with pytest.raises(ValueError, match="not of this package"):
        checkpoints.load("small", folder)


def test_the_registry_knows_where_each_class_is_and_a_module_may_move(folder):
    for name in checkpoints.CLASSES:
        assert checkpoints.class_of(name, "x").__name__ == name
    assert {entry["model"].rpartition(".")[2] for entry in checkpoints.manifest().values()} <= set(checkpoints.CLASSES)
    edit(folder, model="mmcourse.where_it_once_was.VQVAE")              # as the first edition wrote it
    assert type(checkpoints.load("small", folder)) is VQVAE


def test_what_a_file_first_held_stands_for_it_when_it_is_written_anew(folder):
    first = checkpoints.manifest(folder)["small"]["sha256"]
    assert checkpoints.identity("small", folder) == first
    edit(folder, sha256="f" * 64, identity=first)
    assert checkpoints.identity("small", folder) == first


def test_a_save_that_fails_leaves_the_old_checkpoint_whole(folder, monkeypatch):
    import safetensors.torch

    def half(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    before = checkpoints.load("small", folder).state_dict()
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save("small", make(32), seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    after = checkpoints.load("small", folder).state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "small.safetensors"]


def test_a_crash_between_file_and_manifest_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "record", lambda *args, **more: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        checkpoints.save("small", make(), seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    with pytest.raises(ValueError, match="contents have changed"):     # new weights, old hash: not silently mixed
        checkpoints.load("small", folder)


def test_saving_again_replaces_and_other_entries_stay(folder):
    checkpoints.save("second", make(32), seed=0, steps=1, cpu_minutes=0, metrics={}, folder=folder, note="x")
    checkpoints.save("small", make(64), seed=0, steps=1, cpu_minutes=0, metrics={}, folder=folder)
    assert checkpoints.load("small", folder).vocab_size == 64 and checkpoints.load("second", folder).vocab_size == 32
    assert checkpoints.manifest(folder)["second"]["note"] == "x"
    assert not list(folder.glob("*.part"))


def test_a_file_of_another_kind_is_recorded_and_verified(folder):
    (folder / "words.json").write_text("{}")
    checkpoints.record("words", folder / "words.json", folder=folder, vocab_size=5)
    path, entry = checkpoints.verify("words", folder)
    assert path.name == "words.json" and entry["vocab_size"] == 5
    (folder / "words.json").write_text("{ }")
    with pytest.raises(ValueError, match="contents have changed"):
        checkpoints.verify("words", folder)


def test_weights_that_lie_transposed_in_memory_survive(folder):
    model = make()
    weight = model.encoder[0].weight.detach()
    model.encoder[0].weight = nn.Parameter(weight.transpose(0, 1).contiguous().transpose(0, 1))
    checkpoints.save("strided", model, seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    loaded = checkpoints.load("strided", folder)
    assert torch.equal(loaded.encoder[0].weight, model.encoder[0].weight)


def test_the_tokenizer_of_text_is_loaded_by_name_and_hash_like_the_others(folder):
    bpe = checkpoints.load("bpe")
    assert type(bpe) is BPETokenizer and bpe.vocab_size == 1024
    path = bpe.save(folder / "bpe.json")
    checkpoints.record("bpe", path, folder=folder, model="BPETokenizer")
    assert checkpoints.load("bpe", folder).merges == bpe.merges
    path.write_text(path.read_text("utf-8") + " ", "utf-8")
    with pytest.raises(ValueError, match="contents have changed"):
        checkpoints.load("bpe", folder)


def test_eight_bits_a_weight_are_nearly_the_same_weights(tmp_path):
    torch.manual_seed(0)
    model = Transformer(20, width=16, layers=1, heads=2, context=8)
    model.state_dict()["head.weight"][3] = 0                          # a row of nothing has no largest number
    path = checkpoints.save("small", model, seed=0, steps=0, cpu_minutes=0, metrics={}, folder=tmp_path, dtype=torch.int8)
    loaded = checkpoints.load("small", tmp_path).state_dict()
    for name, weight in model.state_dict().items():
        assert loaded[name].dtype == torch.float32
        step = weight.abs().amax(1, keepdim=True) / 127 if weight.ndim == 2 else torch.zeros(())
        assert ((loaded[name] - weight).abs() <= step / 2 + 1e-7).all(), name
    full = checkpoints.save("full", model, seed=0, steps=0, cpu_minutes=0, metrics={}, folder=tmp_path)
    assert path.stat().st_size < 0.5 * full.stat().st_size


def test_scales_that_are_missing_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file
    model = Transformer(20, width=16, layers=1, heads=2, context=8)
    path = checkpoints.save("small", model, seed=0, steps=0, cpu_minutes=0, metrics={}, folder=tmp_path, dtype=torch.int8)
    state = load_file(path)
    del state["head.weight|scale"]
    save_file(state, path)
    edit(tmp_path, sha256=checkpoints.sha256(path))
    with pytest.raises(ValueError, match="no scale"):
        checkpoints.load("small", tmp_path)
