"""Shipped models: what comes back is what was saved, or a clear refusal; never half a file."""
import errno
import importlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import checkpoints, files
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
    """As one who knows how an entry is sealed."""
    entries = checkpoints.manifest(folder)
    entries["small"].update(changes)
    checkpoints.write_manifest(entries, folder)


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
    def half(path, content):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = checkpoints.load("small", folder).state_dict()
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"small.safetensors could not be written \(No space left"):
        patch.setattr(Path, "write_bytes", half)
        checkpoints.save("small", make(32), seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    unchanged(folder, before)


def unchanged(folder, before: dict) -> None:
    after = checkpoints.load("small", folder).state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "small.safetensors"]


@pytest.mark.parametrize("metrics, error", [({"psnr": math.nan}, ValueError), ({"psnr": object()}, TypeError), ({"a": {1, 2}}, TypeError)])
def test_a_save_that_cannot_be_recorded_touches_no_weights(folder, metrics, error):
    before = checkpoints.load("small", folder).state_dict()
    with pytest.raises(error):
        checkpoints.save("small", make(32), seed=0, steps=0, cpu_minutes=0, metrics=metrics, folder=folder)
    unchanged(folder, before)


def test_a_save_beside_a_manifest_that_cannot_be_written_touches_no_weights(folder, monkeypatch):
    before = checkpoints.load("small", folder).state_dict()
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(checkpoints, "write_manifest", lambda *args: (_ for _ in ()).throw(PermissionError("read-only")))
        checkpoints.save("small", make(32), seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    unchanged(folder, before)


def test_numbers_of_numpy_and_torch_are_recorded_as_numbers(folder):
    metrics = {"psnr": np.float32(2), "n": np.int64(3), "loss": torch.tensor(0.5), "curve": np.arange(3)}
    checkpoints.save("small", make(), seed=np.int64(1), steps=0, cpu_minutes=0, metrics=metrics, folder=folder)
    entry = checkpoints.manifest(folder)["small"]
    assert entry["metrics"] == {"psnr": 2.0, "n": 3, "loss": 0.5, "curve": [0, 1, 2]} and entry["seed"] == 1
    assert checkpoints.load("small", folder).vocab_size == 16


def test_a_model_that_is_not_finite_is_neither_saved_nor_loaded(folder):
    from safetensors.torch import load_file, save_file
    before, broken = checkpoints.load("small", folder).state_dict(), make()
    with torch.no_grad():
        broken.encoder[0].weight[0, 0, 0, 0] = math.inf
    with pytest.raises(ValueError, match="small is not saved: it holds NaN or infinity in encoder.0.weight"):
        checkpoints.save("small", broken, seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    unchanged(folder, before)
    path = folder / "small.safetensors"
    save_file({name: value * math.nan for name, value in load_file(path).items()}, path)
    edit(folder, sha256=checkpoints.sha256(path))
    with pytest.raises(ValueError, match="it holds NaN or infinity"):
        checkpoints.load("small", folder)


def test_weights_of_another_kind_of_number_are_refused(folder):
    from safetensors.torch import load_file, save_file
    path = folder / "small.safetensors"
    save_file({name: value.int() for name, value in load_file(path).items()}, path)
    edit(folder, sha256=checkpoints.sha256(path))
    with pytest.raises(ValueError, match="is of another kind of number"):
        checkpoints.load("small", folder)


def test_a_crash_between_file_and_manifest_is_noticed(folder, monkeypatch):
    real = files.os.replace

    def power_cut(source, target):
        if str(target).endswith(".safetensors"):
            raise OSError("power cut")
        real(source, target)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(files.os, "replace", power_cut)
        checkpoints.save("small", make(), seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    with pytest.raises(ValueError, match="contents have changed"):     # new entry, old weights: not silently mixed
        checkpoints.load("small", folder)


# ---- a manifest that was damaged, or that somebody wrote to do harm

def test_a_manifest_with_a_flipped_bit_is_refused_or_reads_the_same(folder):
    path = folder / "manifest.json"
    good, entries = path.read_bytes(), checkpoints.manifest(folder)
    for place in range(0, len(good), 3):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 7]) + good[place + 1:])
        try:
            assert checkpoints.manifest(folder) == entries, place       # white space may change
        except ValueError as error:
            assert "manifest.json" in str(error) and "restore" in str(error), place


@pytest.mark.parametrize("model", ["mmcourse.cli.test.test", "test", "mmcourse.__main__", "BPETokenizer.load", "__import__",
                                   "mmcourse.checkpoints.load", "builtins.exec", "VQVAE.__init__"])
def test_a_folder_runs_nothing_that_its_manifest_names(folder, model, monkeypatch):
    """The attack of the first edition: `model` named a function of the package, `config` its arguments."""
    asked, real = [], importlib.import_module
    monkeypatch.setattr(checkpoints.importlib, "import_module", lambda name: asked.append(name) or real(name))
    edit(folder, model=model, config={"argv": ["--co", "attack.py"]})
    with pytest.raises(ValueError):
        checkpoints.load("small", folder)
    assert set(asked) <= set(checkpoints.CLASSES.values())


@pytest.mark.parametrize("config", [{"argv": ["x"]}, {"codebook_size": "16"}, {"codebook_size": 16, "dim": -4}, {"self": 1}, {"width": None},
                                    {"codebook_size": 10**15}])
def test_a_config_is_the_arguments_of_its_class(folder, config):
    edit(folder, config=config)
    with pytest.raises(ValueError, match="config in the manifest is not one of VQVAE: .*restore data/checkpoints with git|does not fit"):
        checkpoints.load("small", folder)


@pytest.mark.parametrize("changes, said", [
    ({"file": "../small.safetensors"}, "'small' lies in small.safetensors or small.json beside it, not in '../small.safetensors'"),
    ({"file": "/etc/passwd"}, "beside it, not in '/etc/passwd'"), ({"file": "other.safetensors"}, "beside it"), ({"file": None}, "beside it"),
    ({"config": [1]}, "config of 'small' is no dict"), ({"model": {}}, "model of 'small' is no str"), ({"tokenizers": "x"}, "is no dict"),
    ({"sha256": 5}, "sha256 of 'small' is no str"), ({"file": "small.json"}, "missing though the manifest names it"),
    ({"model": "BPETokenizer"}, "BPETokenizer, which is in no such file")])
def test_an_entry_stays_in_its_folder_and_in_its_shape(folder, changes, said):
    edit(folder, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        checkpoints.load("small", folder)


@pytest.mark.parametrize("text", ["[]", "3", '{"a": 1}', '{"small": {}}', "[" * 100_000, '{"a": {"file": "a.json"}}'])
def test_a_manifest_of_another_shape_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="manifest.json"):
        checkpoints.load("small", folder)
    with pytest.raises(ValueError, match="manifest.json"):              # and nothing is recorded over it
        checkpoints.save("small", make(), seed=0, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    assert (folder / "manifest.json").read_text() == text


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "a\n"])
def test_a_name_is_a_name(folder, name):
    with pytest.raises(ValueError, match="is no name of a checkpoint"):
        checkpoints.record(name, f"{name}.json", folder=folder, content=b"{}")
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "small.safetensors"]


def test_what_was_trained_on_another_tokenizer_is_refused(folder):
    """`train vqvae` without `train decoder`: the decoder would paint from codes that mean something else."""
    other = Transformer(20, width=16, layers=1, heads=2, context=8)
    made = {"seed": 0, "steps": 0, "cpu_minutes": 0, "metrics": {}, "folder": folder}
    checkpoints.save("vqvae", make(), **made)
    checkpoints.save("decoder", other, vqvae=checkpoints.identity("vqvae", folder), **made)
    checkpoints.save("talker", other, tokenizers={"vqvae": checkpoints.identity("vqvae", folder), "codec": "not here"}, **made)
    assert checkpoints.load("decoder", folder).width == 16 and checkpoints.strangers(folder) == {}
    torch.manual_seed(5)
    checkpoints.save("vqvae", make(), **made)
    assert checkpoints.strangers(folder) == {"decoder": "vqvae", "talker": "vqvae"}
    for name in ("decoder", "talker"):
        with pytest.raises(ValueError, match=f"the {name} was trained on another vqvae: .* `python -m mmcourse train {name} --ship`"):
            checkpoints.load(name, folder)


def test_an_installation_without_data_says_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks the data of the course; clone the course and run `pip install -e .`"):
        checkpoints.load("bpe", tmp_path / "data" / "checkpoints")


RECORD = """
import sys
from mmcourse import checkpoints
for i in range(int(sys.argv[3])):
    checkpoints.record(f"{sys.argv[2]}{i}", f"{sys.argv[2]}{i}.json", folder=sys.argv[1], content=b"{}")
"""


def test_records_made_at_once_are_all_there(tmp_path):
    running = [subprocess.Popen([sys.executable, "-c", RECORD, str(tmp_path), name, "25"]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(checkpoints.manifest(tmp_path)) == 75 and len(list(tmp_path.iterdir())) == 76


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
