"""`--device`, `--bf16`, `--compile`: what is taken, what is refused with which sentence, what a manifest says."""
from types import SimpleNamespace

import pytest
import torch

from mmcourse import __main__ as cli
from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.recipes import _device, options, vqvae
from mmcourse.training import Hardware


@pytest.fixture(autouse=True)
def as_before():
    """What an option sets for the process ends with the test."""
    before = Hardware.now
    yield
    Hardware.now = before


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many cards of a compute capability, with mps or not."""
    def make(cards=0, capability=(9, 0), mps=False, triton=True, built="13.0"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(_device.importlib.util, "find_spec", lambda name: SimpleNamespace() if triton else None)
    return make


def refused(capsys, *argv, together=False) -> str:
    before = Hardware.now
    with pytest.raises(SystemExit) as ended:
        options("vqvae", [*argv], 7, together)
    assert ended.value.code == 2 and Hardware.now is before
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("has, asked, device", [
    ({}, "cpu", None), ({}, "auto", None), ({"cards": 1}, "cuda", "cuda:0"), ({"cards": 2}, "cuda:1", "cuda:1"),
    ({"cards": 2, "mps": True}, "auto", "cuda:0"), ({"mps": True}, "auto", "mps"), ({"mps": True}, "mps", "mps"), ({"cards": 1}, "cpu", None)])
def test_a_device_that_is_there(machine, capsys, has, asked, device):
    machine(**has)
    args = options("x", ["--device", asked], 7)
    assert Hardware.now == Hardware(device) and args.device == (device or "cpu")
    said = capsys.readouterr().out
    assert said == ("" if device is None else f"training on {device}{' (NVIDIA H100 80GB HBM3)' if 'cuda' in device else ''}\n")


@pytest.mark.parametrize("has, asked, said", [
    ({}, "cuda", "there is no cuda here, only cpu: PyTorch sees no card (does nvidia-smi?); leave --device out to train on the CPU"),
    ({"built": None}, "cuda:0", "there is no cuda:0 here, only cpu: this PyTorch was built without CUDA; install one with it "
                                "(pytorch.org, Get Started), or leave --device out to train on the CPU"),
    ({"cards": 2}, "cuda:2", "there is no cuda:2 here, only cuda:0, cuda:1, cpu: choose one of these"),
    ({"cards": 1}, "mps", "there is no mps here, only cuda:0, cpu: mps is the GPU of a Mac with Apple silicon; leave --device out"),
    ({}, "tpu", "'tpu' is no device: choose cpu, cuda, cuda:1, mps or auto, the best there is"),
    ({}, "cuda:x", "'cuda:x' is no device: choose"), ({}, "", "'' is no device: choose")])
def test_a_device_that_is_not_there(machine, capsys, has, asked, said):
    machine(**has)
    assert f"mmcourse train vqvae: error: argument --device: {said}" in refused(capsys, "--device", asked)


@pytest.mark.parametrize("has, argv, said", [
    ({}, ["--bf16"], "--bf16 needs an NVIDIA card from 2020 or later (compute capability 8.0), and this would train on cpu: leave --bf16 "
                     "out, or add --device cuda where there is such a card"),
    ({"cards": 1}, ["--bf16"], "and this would train on cpu"),
    ({"cards": 1, "capability": (7, 5)}, ["--bf16", "--device", "cuda"], "and this would train on cuda:0"),
    ({"mps": True}, ["--bf16", "--device", "auto"], "and this would train on mps"),
    ({}, ["--compile"], "--compile needs an NVIDIA card from 2017 or later (compute capability 7.0) and the package triton, and this would "
                        "train on cpu: leave --compile out"),
    ({"cards": 1, "capability": (6, 1)}, ["--compile", "--device", "cuda"], "and this would train on cuda:0: leave --compile out"),
    ({"cards": 1, "triton": False}, ["--compile", "--device", "cuda"], "train on cuda:0 without triton: leave --compile out")])
def test_numbers_that_the_device_lacks(machine, capsys, has, argv, said):
    machine(**has)
    assert said in refused(capsys, *argv)


def test_numbers_that_it_has(machine, capsys):
    machine(cards=1)
    options("x", ["--device", "auto", "--bf16", "--compile"], None)
    assert Hardware.now == Hardware("cuda:0", True, True)
    assert capsys.readouterr().out == "training on cuda:0 (NVIDIA H100 80GB HBM3), bf16, compiled\n"
    assert _device.trained_on() == {"device": "cuda:0 (NVIDIA H100 80GB HBM3), bf16, compiled"}
    options("x", [], None)                              # the next recipe of `train all` asks again
    assert Hardware.now == Hardware() and _device.trained_on() == {}


def place(monkeypatch, local_rank, processes):
    """As torchrun would have it; nobody is there to meet."""
    for name, n in (("RANK", local_rank), ("WORLD_SIZE", processes), ("LOCAL_RANK", local_rank), ("LOCAL_WORLD_SIZE", processes)):
        monkeypatch.setenv(name, str(n))


@pytest.mark.parametrize("has, asked, local_rank, device", [
    ({"cards": 2}, "cuda", 0, "cuda:0"), ({"cards": 2}, "cuda", 1, "cuda:1"), ({"cards": 3, "mps": True}, "auto", 1, "cuda:1"),
    ({}, "auto", 1, "cpu"), ({"cards": 2}, "cpu", 1, "cpu")])
def test_each_of_several_processes_has_its_card(machine, monkeypatch, has, asked, local_rank, device):
    machine(**has)
    place(monkeypatch, local_rank, 2)
    assert _device.device(asked) == device


@pytest.mark.parametrize("has, asked, said", [
    ({"cards": 1}, "cuda", "2 processes on this machine need as many cards, and there is 1: --nproc-per-node 1"),
    ({"cards": 1}, "auto", "2 processes on this machine need as many cards, and there is 1"),
    ({"cards": 2}, "cuda:1", "several processes train on the CPU, or on an NVIDIA card each (--device cuda), not on cuda:1"),
    ({"mps": True}, "mps", "or on an NVIDIA card each (--device cuda), not on mps; PyTorch sees no such card here"),
    ({"mps": True}, "auto", "not on auto; PyTorch sees no such card here"),
    ({}, "cuda", "there is no cuda here, only cpu")])
def test_a_card_that_a_process_cannot_have(machine, monkeypatch, capsys, has, asked, said):
    machine(**has)
    place(monkeypatch, 1, 2)
    assert said in refused(capsys, "--device", asked, together=True)


def test_what_is_trained_in_one_process_says_so(monkeypatch, capsys):
    place(monkeypatch, 0, 2)
    assert "this is trained in one process, and torchrun started 2: leave torchrun out" in refused(capsys)
    monkeypatch.delenv("WORLD_SIZE")
    assert "the environment says half of where this process stands among others" in refused(capsys)


def test_micro_batches(capsys):
    options("vqvae", ["--micro-batches", "4"], 7, together=True)
    assert Hardware.now == Hardware(micro_batches=4) and capsys.readouterr().out == ""
    assert _device.trained_on() == {"device": "cpu, 4 micro-batches"}
    assert "unrecognized arguments: --micro-batches 4" in refused(capsys, "--micro-batches", "4")
    with pytest.raises(SystemExit):
        options("vqvae", ["--micro-batches", "0"], 7, together=True)
    assert "--micro-batches is a whole number from 1 on, got 0" in capsys.readouterr().err


def test_an_option_refused_costs_nothing(capsys):
    """On this machine as it is, by the command line."""
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    for argv in (["--device", "cuda"], ["--bf16"], ["--device", "auto", "--compile"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", "vqvae", *argv])
        assert ended.value.code == 2 and "error" in capsys.readouterr().err


def test_the_manifest_says_the_device_unless_it_was_the_cpu(monkeypatch, tmp_path):
    """On the CPU, called by another name; the model is measured and saved where it was made."""
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(vqvae, "measures", lambda model: {"device": str(model.quantizer.codebook.device)})
    monkeypatch.setattr(vqvae, "BATCH", 2)
    vqvae.main(["--steps", "1"], tmp_path)
    assert "device" not in checkpoints.manifest(tmp_path)["vqvae"]
    monkeypatch.setattr(_device, "use", lambda parser, args: setattr(Hardware, "now", Hardware("cpu", bf16=True)))
    vqvae.main(["--steps", "1", "--fresh"], tmp_path)
    entry = checkpoints.manifest(tmp_path)["vqvae"]
    assert entry["device"] == "cpu, bf16" and entry["metrics"] == {"device": "cpu"}
    assert checkpoints.load("vqvae", tmp_path).config == vqvae.make().config
