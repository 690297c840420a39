"""Two processes and one train the same model, by hand, by torch and in shards; and what is refused.

The processes are started once, as a user starts them; what they found is looked at here (two_processes.py).
"""
import json
import math
import socket
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import codec, dataset, diffusion, distributed, transformer, vqvae
from mmcourse.codec import AudioCodec, codec_loss
from mmcourse.dataset import mixture_loss
from mmcourse.diffusion import FlowDecoder, decoder_loss
from mmcourse.distributed import (
    OTHER_DICE,
    Divided,
    Place,
    add_gradients,
    agree,
    divided,
    first_alone,
    from_first,
    gathered,
    join,
    leave,
    processes,
    rank,
    rows,
    same_start,
    share,
    summed,
)
from mmcourse.experiments.processes import launch
from mmcourse.experiments.sharding import load_shards, make_adamw, to_safetensors, train_sharded
from mmcourse.quantize import VectorQuantizer
from mmcourse.recipes import vqvae as vqvae_recipe
from mmcourse.training import Hardware, Run, train
from mmcourse.transformer import next_token_loss
from mmcourse.vqvae import vqvae_loss
from tests.core import two_processes as they

START = "python -m torch.distributed.run --standalone --nproc-per-node 2 ..."


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found, and the folder that they left."""
    if sys.platform == "win32":
        pytest.skip("a process is sent Ctrl-C as POSIX does it")
    folder = tmp_path_factory.mktemp("two")
    train(they.transformer(), they.mixture, mixture_loss, steps=6, optim=they.OPTIM,
          run=Run(progress=False, resume=folder / "one.pt", until=3))
    train_sharded(they.transformer(), they.mixture, mixture_loss, steps=6, optim=they.ADAMW, folder=folder / "one", until=3)
    script = Path(they.__file__).read_text("utf-8")
    launch(f"import sys; sys.argv[1:] = [{str(folder)!r}]\n" + script, timeout=100)
    return [json.loads((folder / f"rank{i}.json").read_text()) for i in range(2)], folder


def assert_close(found: dict, model: nn.Module, atol: float) -> None:
    """Weights that another process wrote down."""
    expected = model.state_dict()
    for name in found:
        x = torch.tensor(found[name])
        assert torch.allclose(x, expected[name].flatten().float(), atol=atol), f"{name}: {(x - expected[name].flatten()).abs().max()}"


# ---- two processes

def test_what_each_has_and_all_know(two):
    for i, found in enumerate(each["messages"] for each in two[0]):
        assert (found["processes"], found["rank"]) == (2, i)
        assert found["sum"] == [[3, 6]] and found["first"] == [[1, 2]] and found["all"] == [[1, 2], [2, 4]]
        assert "do not agree on colour: red in rank 0, blue in rank 1; start all of them" in found["disagree"]
        assert "do not agree on rows: 1 in rank 0, 2 in rank 1" in found["unequal"]


def test_a_gradient_is_nowhere_or_everywhere(two):
    assert [each["unused"] for each in two[0]] == 2 * [{"both": 2.0, "one": 1.0, "none": None}]


def test_by_hand_is_the_union_batch_and_torchs_ddp_and_fsdp2(two):
    """Gradients to 1e-6, and weights after four steps to 1e-5; the mean of two means is something else."""
    found = two[0][0]["gradients"]
    assert found == two[0][1]["gradients"]
    model = they.transformer()
    torch.manual_seed(0)
    batch = torch.randint(2, 40, (8, 12))
    batch[5:, 6:] = 0
    next_token_loss(model, batch).backward()
    distance = {}
    for way in ("by hand", "DDP", "FSDP2", "naive"):
        there = {name.removeprefix("model."): torch.tensor(x) for name, x in found[f"{way}: gradients"].items()}
        assert len(there) > 10
        distance[way] = max(float((x - model.get_parameter(name).grad.flatten()).abs().max()) for name, x in there.items())
        weights = {name.removeprefix("model."): x for name, x in found[f"{way}: weights"].items()}
        if way != "naive":
            assert all(x == pytest.approx(found["by hand: weights"][name], abs=1e-5) for name, x in weights.items())
    assert max(distance["by hand"], distance["DDP"], distance["FSDP2"]) < 1e-6 < 1e-2 < distance["naive"]


def test_a_run_in_two_processes_is_the_run_in_one(two):
    found = two[0][0]["trained"]
    model = they.transformer()
    history = train(model, they.mixture, mixture_loss, steps=6, optim=they.OPTIM, run=they.QUIET)
    assert found["losses"] == pytest.approx(history.column("loss"), abs=1e-5)
    assert found["norms"] == pytest.approx(history.column("grad_norm"), rel=1e-4)
    assert_close(found["weights"], model, 1e-4)
    other = two[0][1]["trained"]
    assert other["weights"] == found["weights"] and other["losses"] == found["losses"], "they are the same in both, to the last bit"
    assert found["minutes"] > 0 and found["files"] == ["mixture.pt"]


def test_a_stopped_run_goes_on_exactly_in_as_many_processes_and_nearly_so_in_one(two, capsys):
    (found, other), folder = two
    assert found["trained"]["resumed"] and found["trained"]["resumed losses"] and other["trained"]["resumed"]
    model = they.transformer(seed=5)
    history = train(model, they.mixture, mixture_loss, steps=6, optim=they.OPTIM, run=Run(progress=False, resume=folder / "half.pt"))
    assert_close(found["trained"]["weights"], model, 1e-4)
    assert history.rows[0]["loss"] == found["trained"]["losses"][0]
    assert "half.pt was made with device cpu, 2 processes; from here on: device cpu" in capsys.readouterr().out


def test_what_one_process_began_two_go_on_with(two):
    (found, other), _ = two
    assert found["going_on"] == other["going_on"]
    for name, expected in (("train", found["trained"]["weights"]), ("shards", found["dealt"]["weights"])):
        for key, x in expected.items():
            assert found["going_on"][name][key] == pytest.approx(x, abs=1e-4), (name, key)


def test_micro_batches_are_the_batch(two, monkeypatch):
    """Two of them in one process are what two processes have, to the last bit: the same parts, added up."""
    monkeypatch.setattr(Hardware, "now", Hardware(micro_batches=2))
    model = they.transformer()
    history = train(model, they.mixture, mixture_loss, steps=6, optim=they.OPTIM, run=they.QUIET)
    assert history.column("loss") == pytest.approx(two[0][0]["trained"]["losses"], abs=1e-6)
    assert_close(two[0][0]["trained"]["weights"], model, 1e-5)


def test_one_codebook_for_all(two):
    """Alike in both, and that of one process which sees all vectors, dead codes and their restarts included."""
    found = [each["codebooks"]["together"] for each in two[0]]
    assert found[0] == found[1]
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 2)
    for step in range(20):
        torch.manual_seed(step)
        quantizer(they.vectors(step))
    assert_close(found[0], quantizer, 1e-3)
    model = they.vqvae()
    history = train(model, they.pictures, vqvae_loss, steps=3, optim=they.OPTIM, run=they.QUIET)
    trained = [each["codebooks"] for each in two[0]]
    assert trained[0]["trained"] == trained[1]["trained"]
    assert trained[0]["losses"] == pytest.approx(history.column("loss"), abs=1e-5)
    assert_close(trained[0]["trained"], model, 1e-3)


def test_the_naive_codebooks_drift_apart(two):
    """What happened before: nobody says a word, and the two processes have two tokenizers."""
    first, second = (torch.tensor(each["codebooks"]["naive"]["codebook"]).view(-1, 2) for each in two[0])
    apart = (first - second).norm(dim=1)
    assert apart.median() > 1, apart


def test_other_rows_have_other_noise(two):
    drawn = [tuple(draw) for each in two[0] for draw in each["noise"]]
    assert len(drawn) == 8 and len({*drawn}) == 8
    torch.manual_seed(0)
    assert torch.rand(2).tolist() == list(drawn[0]), "the first part has the noise of one process"


def test_shards_are_the_whole_model(two, tmp_path):
    """Weights that no process holds whole: as in one process, resumed exactly, on another number nearly, and one file of them."""
    from safetensors.torch import load_file
    (found, other), folder = two
    assert found["dealt"]["weights"] == other["dealt"]["weights"] and found["dealt"]["resumed"] and other["dealt"]["resumed"]
    model = they.transformer()
    history = train(model, they.mixture, mixture_loss, steps=6, optim=they.ADAMW, run=they.QUIET)
    assert_close(found["dealt"]["weights"], model, 1e-5)
    assert found["dealt"]["losses"] == pytest.approx(history.column("loss"), abs=1e-5)
    resumed = they.transformer(seed=9)
    result = train_sharded(resumed, they.mixture, mixture_loss, steps=6, optim=they.ADAMW, folder=folder / "half")
    assert_close(found["dealt"]["weights"], resumed, 1e-5)
    assert result["losses"] == pytest.approx(found["dealt"]["losses"][3:], abs=1e-5)
    to_safetensors(folder / "shards", tmp_path / "whole.safetensors")
    assert {name: x.flatten().tolist() for name, x in load_file(tmp_path / "whole.safetensors").items()} == found["dealt"]["weights"]


def test_the_bytes_of_shards_add_up(two):
    """What the two hold is what one holds, but for the step that AdamW counts for each parameter in each process."""
    model = they.transformer()
    alone = train_sharded(model, they.mixture, mixture_loss, steps=2, optim=they.ADAMW)["bytes"]
    n = sum(p.numel() for p in model.parameters())
    steps = 4 * len([*model.parameters()])
    assert alone == {"parameters": 4 * n, "gradients": 4 * n, "optimizer": 8 * n + steps}
    held = [each["dealt"]["bytes"] for each in two[0]]
    together = {name: held[0][name] + held[1][name] for name in alone}
    assert together == {**alone, "optimizer": 8 * n + 2 * steps}
    assert all(0.4 < each[name] / alone[name] < 0.6 for each in held for name in ("parameters", "gradients"))


def test_what_is_refused_of_shards(two, tmp_path):
    (found, other), folder = two
    found = found["dealt"]
    assert {name: found[name] for name in ("broken", "muon", "other")} == {name: other["dealt"][name] for name in ("broken", "muon", "other")}
    assert "broken is not whole: of 2 files __1_0.distcp is missing; copy those of all machines into it, or delete it" in found["broken"]
    assert "ValueError: sharded weights are trained by AdamW" in found["muon"] and "Muon orthogonalizes whole matrices" in found["muon"]
    assert "half belongs to another model: token_embed.weight is (40, 16) in it, not (40, 32)" in found["other"]
    model = they.transformer()
    with pytest.raises(ValueError, match="is no checkpoint in shards .*delete it to begin anew"):
        load_shards(tmp_path, model, make_adamw(model, they.ADAMW))


@pytest.mark.parametrize("what, said", [
    ("seed", "ValueError: the processes do not agree on seed: 0 in rank 0, 1 in rank 1; start all of them with the same command, and give "
             "all of them the same files"),
    ("rate", "ValueError: the processes do not agree on lr: 0.1 in rank 0, 1.1 in rank 1"),
    ("until", "ValueError: the processes do not agree on until: 1 in rank 0, 2 in rank 1"),
    ("model", "ValueError: the processes do not agree on the shape of blocks.1.norm1.weight: none in rank 0, (16,) in rank 1"),
    ("batch", "ValueError: the processes do not agree on the first batch (SHA-256)"),
    ("file", "ValueError: the processes do not agree on file"),
    ("loss", "ValueError: silent does not say what it is the mean of"),
    ("nan", "FloatingPointError: the loss is nan"),
    ("rows", "ValueError: a batch of 7 rows cannot be divided into 2 parts alike"),
    ("few", "ValueError: a batch of 1 rows cannot be divided into 2 parts: take another number of processes, times micro-batches")])
def test_what_is_refused_is_refused_by_both_in_the_same_words(two, what, said):
    first, second = (each["refused"][what] for each in two[0])
    assert first == second and first.startswith(said)


def test_ctrl_c_in_one_process_stops_both_after_the_same_step(two, capsys):
    (first, second), folder = two
    assert first["stopped"] == second["stopped"] | {"file": first["stopped"]["file"]}
    assert first["stopped"]["interrupted"] and first["stopped"]["steps"] == [0, 1, 2]
    model = they.transformer(seed=3)
    train(model, they.mixture, mixture_loss, steps=6, optim=they.OPTIM, run=Run(progress=False, resume=folder / "stopped.pt"))
    assert_close(first["trained"]["weights"], model, 1e-4)


# ---- one process

def test_alone_nothing_is_done():
    x = torch.ones(2, 3)
    assert summed(x) is x and from_first(x) is x and gathered(x) is x and (processes(), rank()) == (1, 0)
    agree(anything=1)
    leave()
    with first_alone():
        model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    before = [x.clone() for x in (*model.parameters(), *(p.grad for p in model.parameters()))]
    same_start(model)
    add_gradients(model)
    assert all(map(torch.equal, before, (*model.parameters(), *(p.grad for p in model.parameters()))))
    assert divided(mixture_loss, mixture_loss) is mixture_loss
    assert join() == Place() and processes() == 1


def environment(*numbers):
    return {name: str(n) for name, n in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), numbers) if n is not None}


@pytest.mark.parametrize("numbers, place", [
    ((), Place()), ((0, 1, 0, 1), Place()), ((1, 2, 1, 2), Place(1, 2, 1, 2)), ((9, 16, 1, 8), Place(9, 16, 1, 8))])
def test_a_place_is_what_torchrun_says(numbers, place):
    assert Place.of(environment(*numbers)) == place


@pytest.mark.parametrize("numbers, said", [
    ((1, None, None, None), "half of where this process stands among others (RANK=1, WORLD_SIZE=nothing, LOCAL_RANK=nothing, LOCAL_WORLD_SIZE=nothing)"),
    ((0, 2, None, None), "LOCAL_RANK=nothing"), ((2, 2, 0, 2), "RANK=2, WORLD_SIZE=2"), ((0, 2, 2, 2), "LOCAL_RANK=2"),
    ((0, 2, 0, 4), "LOCAL_WORLD_SIZE=4"), (("first", 2, 0, 2), "RANK=first"), ((-1, 2, 0, 2), "RANK=-1"), ((0, 0, 0, 0), "WORLD_SIZE=0")])
def test_a_place_that_does_not_exist(numbers, said):
    with pytest.raises(ValueError) as raised:
        Place.of(environment(*numbers))
    assert said in str(raised.value) and START in str(raised.value)


def test_who_does_not_come_is_not_waited_for_for_ever(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {**environment(0, 2, 0, 2), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=1))
    with pytest.raises(TimeoutError, match="rank 0 has waited 0:00:01 for the others, and not all 2 came: start all of them"):
        join()
    assert processes() == 1


def test_a_share_is_rows_in_order_and_shares_are_the_batch():
    ids, weights, few = torch.arange(10).view(5, 2), torch.arange(5.0), torch.ones(1, 2)
    parts = [share((ids, weights, few), i, 3) for i in range(3)]
    assert [len(part[0]) for part in parts] == [2, 2, 1] and [len(part) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part[0] for part in parts]), ids) and torch.equal(torch.cat([part[1] for part in parts]), weights)


def cases():
    """Every loss that says what it is the mean of: the model and a batch. (In eval mode codebooks do not move.)"""
    generator = np.random.default_rng(0)
    sound = torch.from_numpy(generator.normal(0, 0.1, (4, 1600)).astype(np.float32))
    return {
        "mixture_loss": (mixture_loss, they.transformer(), they.mixture(generator)),
        "next_token_loss": (next_token_loss, they.transformer(), (torch.randint(0, 40, (8, 9)),)),
        "next_token_loss, weighted": (next_token_loss, they.transformer(), (torch.randint(0, 40, (8, 9)), torch.rand(8, 9))),
        "vqvae_loss": (vqvae_loss, they.vqvae().eval(), they.pictures(generator)),
        "vqvae_loss, weighted": (vqvae_loss, they.vqvae().eval(), (*they.pictures(generator), torch.rand(8, 1, 16, 16))),
        "the recipe's": (vqvae_recipe.loss, vqvae_recipe.make().eval(), (torch.rand(4, 3, 64, 64),)),
        "codec_loss": (codec_loss, AudioCodec(bands=16, width=16, dim=8, codebook_size=8, levels=2).eval(), (sound, torch.tensor([1, 2, 2, 1])))}


def test_every_loss_that_says_it_is_a_case():
    said = {id(loss.mean_over) and name for module in (codec, dataset, diffusion, transformer, vqvae) for name, loss in vars(module).items()
            if hasattr(loss, "mean_over")}
    assert said == {loss.__name__ for loss, _, _ in cases().values()} - {"loss"} | {"decoder_loss"}


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("n", [2, 4])
def test_the_parts_of_a_loss_weigh_what_they_count(name, n):
    """Each part with its weight is the loss of the whole, and so are the gradients."""
    torch.manual_seed(0)
    loss, model, batch = cases()[name]
    whole = loss(model, *batch)
    whole = whole["loss"] if isinstance(whole, dict) else whole
    whole.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    result = Divided(loss, loss.mean_over, n)(model, *batch)["loss"]
    result.backward()                                   # adds nothing
    assert result.item() == pytest.approx(whole.item(), rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(model.get_parameter(name).grad, gradient, atol=1e-6 + 1e-4 * float(gradient.abs().max())), name


def test_the_parts_of_a_loss_with_noise():
    """Each part draws its own; the first what one process would."""
    model, batch = FlowDecoder(code_dim=4, width=16), (torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), torch.rand(4, 4, 2, 2))
    expected = 0.0
    for i in range(2):
        torch.manual_seed(7 + OTHER_DICE * i)
        expected += decoder_loss(model, *share(batch, i, 2)).item() / 2
    torch.manual_seed(7)
    assert Divided(decoder_loss, rows, 2)(model, *batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_a_mean_of_means_is_not_the_mean():
    """What gradient accumulation did in many libraries until October 2024."""
    model, batch = they.transformer(), they.mixture(np.random.default_rng(0))
    with torch.no_grad():
        model.head.weight.mul_(20)
        whole = mixture_loss(model, *batch)["loss"]
        means = [mixture_loss(model, *share(batch, i, 2))["loss"] for i in range(2)]
    assert abs(sum(means) / 2 - whole) > 0.01
    assert math.isclose(Divided(mixture_loss, mixture_loss.mean_over, 2)(model, *batch)["loss"].item(), whole.item(), rel_tol=1e-5)


def test_numbers_beside_the_loss_are_means_too():
    def loss(model, x):
        return {"loss": model(x).mean(), "first": x[:, 0].mean(), "rows": len(x), "two": 2.0}
    x = torch.randn(6, 2)
    found = Divided(loss, rows, 3)(nn.Linear(2, 1), x)
    assert found["first"].item() == pytest.approx(x[:, 0].mean().item()) and found["rows"] == 2 and found["two"] == 2


def test_a_buffer_that_moves_forbids_micro_batches(monkeypatch):
    monkeypatch.setattr(Hardware, "now", Hardware(micro_batches=2))
    with pytest.raises(ValueError, match="quantizer.codebook moves whenever the model sees a batch"):
        train(they.vqvae(), they.pictures, vqvae_loss, steps=1, run=they.QUIET)


@pytest.mark.parametrize("loss, batch, said", [
    (lambda model, x: x.mean(), (torch.ones(2, 1),), "<lambda> does not say what it is the mean of"),
    (vqvae_loss, (torch.ones(3, 3, 8, 8),), "a batch of 3 rows cannot be divided into 2 parts alike"),
    (vqvae_loss, (torch.ones(4, 3, 8, 8), torch.ones(2, 1)), "a batch of 4 and 2 rows cannot be divided"),
    (vqvae_loss, (torch.ones(4, 3, 8, 8), [1, 2, 3, 4]), "is made of tensors, a row for each example; got Tensor, list"),
    (mixture_loss, (torch.ones(1, 4).long(), torch.ones(1, 4)), "a batch of 1 rows cannot be divided into 2 parts: take")])
def test_a_batch_that_cannot_be_divided(monkeypatch, loss, batch, said):
    monkeypatch.setattr(Hardware, "now", Hardware(micro_batches=2))
    with pytest.raises(ValueError, match=said):
        train(they.transformer(), lambda rng: batch, loss, steps=1, run=they.QUIET)
