"""The one training loop: exact resume, Ctrl-C, bad losses, schedules, Muon."""
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import training
from mmcourse.optim import EMA, Muon, Optim, make_optimizers, orthogonalize, schedule
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss


class Tiny(nn.Module):
    """A net with everything that a resume can forget: dropout noise, a buffer, matrices and vectors."""

    def __init__(self):
        super().__init__()
        self.config = {}
        self.embed = nn.Linear(3, 8)
        self.hidden = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen += len(x)
        return self.head(self.drop(torch.tanh(self.hidden(torch.tanh(self.embed(x))))))


def make(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def batch(rng):
    x = torch.from_numpy(rng.standard_normal((16, 3), dtype=np.float32))
    return x, x.sum(1, keepdim=True)


def loss(model, x, y):
    error = (model(x) - y).square().mean()
    return {"loss": error, "root": error.detach().sqrt()}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def at(step: int, action):
    """An `after_step` that does something once `step` is done."""
    def after(model, done):
        if done == step:
            action()
    return after


def raise_interrupt():
    raise KeyboardInterrupt


QUIET = {"progress": False, "log_every": 1, "warmup": 3, "lr": 0.01}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_is_bit_identical(tmp_path, optimizer):
    straight = make()
    whole = train(straight, batch, loss, steps=20, optim=Optim(optimizer), **QUIET)
    part = make()
    first = train(part, batch, loss, steps=20, optim=Optim(optimizer), run=Run(resume=tmp_path / "run.pt"),
                  after_step=at(7, raise_interrupt), **QUIET)
    assert first.interrupted and len(first.rows) == 7 and not same(part, straight)
    resumed = make(seed=99)                                            # other weights: all must come from the file
    second = train(resumed, batch, loss, steps=20, optim=Optim(optimizer),
                   run=Run(resume=tmp_path / "run.pt"), **QUIET)
    assert not second.interrupted and same(resumed, straight)
    assert [r for r in whole.rows if r["step"] != 7] == second.rows    # step 7 was done, but interrupted before its row


def test_a_resumed_vqvae_is_bit_identical(tmp_path):
    def pictures(rng):
        return (torch.from_numpy(rng.random((2, 3, 64, 64), dtype=np.float32)),)

    def fresh(seed):
        torch.manual_seed(seed)
        return VQVAE(codebook_size=32, dim=4, width=16)

    straight, resumed = fresh(0), fresh(1)
    train(straight, pictures, vqvae_loss, steps=8, **QUIET)
    train(fresh(0), pictures, vqvae_loss, steps=8, run=Run(resume=tmp_path / "v.pt"),
          after_step=at(3, raise_interrupt), **QUIET)
    train(resumed, pictures, vqvae_loss, steps=8, run=Run(resume=tmp_path / "v.pt"), **QUIET)
    assert same(resumed, straight)


def test_a_crash_loses_only_what_came_after_the_last_save(tmp_path):
    def crash():
        raise RuntimeError("power cut")

    straight, resumed = make(), make(99)
    train(straight, batch, loss, steps=20, **QUIET)
    with pytest.raises(RuntimeError, match="power cut"):
        train(make(), batch, loss, steps=20, run=Run(save_every=5, resume=tmp_path / "run.pt"),
              after_step=at(13, crash), **QUIET)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 10
    train(resumed, batch, loss, steps=20, run=Run(save_every=5, resume=tmp_path / "run.pt"), **QUIET)
    assert same(resumed, straight)


@pytest.mark.parametrize("where", ["batch", "loss", "clip"])
def test_ctrl_c_in_the_middle_of_a_step_finishes_the_step_and_resumes_exactly(tmp_path, monkeypatch, where):
    """A real signal, at the worst moments: a half-done step must not be done twice after the resume."""
    straight = make()
    train(straight, batch, loss, steps=12, **QUIET)
    pressed = []

    def press():
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    def my_batch(rng):
        data = batch(rng)
        if where == "batch" and np.allclose(data[0], batch(np.random.default_rng((0, 5)))[0]):
            press()
        return data

    def my_loss(model, x, y):
        out = loss(model, x, y)
        if where == "loss" and model.seen == 16 * 6:
            press()
        return out

    model = make()
    if where == "clip":
        clip = nn.utils.clip_grad_norm_
        monkeypatch.setattr(nn.utils, "clip_grad_norm_",
                            lambda p, c: (press() if model.seen == 16 * 6 else None, clip(p, c))[1])
    history = train(model, my_batch, my_loss, steps=12, run=Run(resume=tmp_path / "run.pt"), **QUIET)
    assert pressed and history.interrupted and len(history.rows) == 6
    assert not model.training and torch.isfinite(model(torch.ones(1, 3))).all()        # usable as it is
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = train(model, batch, loss, steps=12, run=Run(resume=tmp_path / "run.pt"), **QUIET)   # the same model, the same call
    assert not again.interrupted and len(again.rows) == 12 and same(model, straight)


def test_gradients_left_over_from_elsewhere_do_not_leak_into_the_first_step():
    clean, dirty = make(), make()
    dirty(torch.ones(1, 3)).sum().backward()
    with torch.no_grad():
        dirty.seen.zero_()
    for model in (clean, dirty):
        train(model, batch, loss, steps=3, **QUIET)
    assert same(clean, dirty)


def test_ctrl_c_without_a_file_says_that_the_model_is_usable(capsys):
    model = make()
    history = train(model, batch, loss, steps=10, after_step=at(4, raise_interrupt), **QUIET)
    assert history.interrupted and not model.training
    assert "stopped at step 5 of 10; the model is usable as it is" in capsys.readouterr().out


def test_a_finished_run_is_not_trained_again(tmp_path):
    model = make()
    train(model, batch, loss, steps=5, run=Run(resume=tmp_path / "run.pt"), **QUIET)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    history = train(model, batch, loss, steps=5, run=Run(resume=tmp_path / "run.pt"), **QUIET)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert len(history.rows) == 5 and not list(tmp_path.glob("*.part"))


def test_a_file_of_another_run_is_refused(tmp_path):
    train(make(), batch, loss, steps=2, run=Run(resume=tmp_path / "run.pt"), **QUIET)
    with pytest.raises(ValueError, match="seed 0"):
        train(make(), batch, loss, steps=2, run=Run(seed=1, resume=tmp_path / "run.pt"), **QUIET)
    with pytest.raises(ValueError, match="another model"):
        train(VQVAE(codebook_size=8, dim=2, width=16), batch, loss, steps=2, run=Run(resume=tmp_path / "run.pt"),
              **QUIET)
    (tmp_path / "run.pt").write_bytes(b"not a run")
    with pytest.raises(ValueError, match="not a saved run"):
        train(make(), batch, loss, steps=2, run=Run(resume=tmp_path / "run.pt"), **QUIET)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(value):
    def bad(model, x, y):
        return loss(model, x, y)["loss"] * (value if int(model.seen) == 16 * 4 else 1.0)

    model = make()
    with pytest.raises(FloatingPointError, match=r"at step 3.*learning rate"):
        train(model, batch, bad, steps=10, **QUIET)
    assert all(torch.isfinite(p).all() for p in model.parameters())    # the bad step was not taken


def test_the_run_depends_on_the_seed():
    models = [make(), make(), make()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        train(model, batch, loss, steps=5, run=Run(seed=seed), **QUIET)
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_history_columns_and_minutes():
    history = train(make(), batch, loss, steps=10, **{**QUIET, "log_every": 4})
    assert [r["step"] for r in history.rows] == [0, 4, 8, 9]           # the last step is always there
    assert len(history.column("root")) == 4 and history.column("nothing") == []
    assert history.column("loss")[0] == pytest.approx(history.column("root")[0] ** 2, rel=1e-5)
    assert 0 < history.cpu_minutes < 1


def test_training_learns():
    for optimizer in ("adamw", "muon"):
        history = train(make(), batch, loss, steps=300, optim=Optim(optimizer), **QUIET)
        assert np.mean(history.column("loss")[-20:]) < 0.5 * history.column("loss")[0]


def test_the_schedule_warms_up_then_falls_to_its_floor():
    factors = [schedule(s, 100, 10) for s in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:])) and factors[100] == pytest.approx(0.05)
    assert schedule(1000, 100, 10) == pytest.approx(0.05)


# ---- Muon

@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7)])
def test_orthogonalize_drives_the_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = orthogonalize(matrix)
    assert out.shape == matrix.shape
    values = torch.linalg.svdvals(out)
    # quintic Newton-Schulz with these coefficients overshoots on purpose; tiny singular values may lag behind
    assert values.max() < 1.3 and values.median() > 0.6
    U, _, V = torch.linalg.svd(matrix, full_matrices=False)
    assert nn.functional.cosine_similarity(out.flatten(), (U @ V).flatten(), dim=0) > 0.95


def test_orthogonalize_ignores_scale_and_survives_zero():
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonalize(matrix), orthogonalize(1000 * matrix), atol=1e-3)
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = make()
    adamw, muon = make_optimizers(model, "muon", 1e-3, 0.1, 0.02)
    assert isinstance(muon, Muon)
    assert [id(p) for g in muon.param_groups for p in g["params"]] == [id(model.hidden.weight)]
    decays = {id(p): g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert decays[id(model.embed.weight)] == 0.1 and decays[id(model.hidden.bias)] == 0.0
    assert len(decays) + 1 == len(list(model.parameters()))
    with pytest.raises(ValueError, match="'adamw' or 'muon'"):
        make_optimizers(model, "sgd", 1e-3, 0.1, 0.02)


def test_saving_is_atomic(tmp_path, monkeypatch):
    train(make(), batch, loss, steps=2, run=Run(resume=tmp_path / "run.pt"), **QUIET)
    good = (tmp_path / "run.pt").read_bytes()

    def half(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(training.torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        train(make(), batch, loss, steps=4, run=Run(resume=tmp_path / "run.pt"), **QUIET)
    assert (tmp_path / "run.pt").read_bytes() == good


def test_muon_takes_the_kernels_of_convolutions_as_matrices():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3)
    before, (_, muon) = conv.weight.detach().clone(), make_optimizers(conv, "muon", 1e-3, 0.0, 0.02)
    conv(torch.randn(2, 3, 6, 6)).square().sum().backward()
    gradient = conv.weight.grad.clone()
    muon.step()
    moved = (conv.weight.detach() - before).flatten(1)
    expected = -0.02 * orthogonalize(gradient.lerp(gradient * 0.05, 0.95).flatten(1))
    assert torch.allclose(moved, expected, atol=1e-6)


# ---- the average of the weights

def test_the_average_follows_the_weights_quickly_at_first_then_calmly():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    mean, expected = EMA(model, 0.2), 0.0
    for k, value in enumerate((1.0, 3.0, 2.0), 1):
        nn.init.constant_(model.weight, value)
        mean.update(model)
        decay = min(0.2, k / (k + 9))
        expected = decay * expected + (1 - decay) * value
        assert mean.weights["weight"].item() == pytest.approx(expected)
    mean.copy_to(model)
    assert model.weight.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="between 0 and 1"):
        EMA(model, 1.0)


def test_a_resumed_run_has_the_same_average(tmp_path):
    whole, halves = make(), make()
    train(whole, batch, loss, steps=6, optim=Optim(ema_decay=0.9), **QUIET)
    train(halves, batch, loss, steps=6, optim=Optim(ema_decay=0.9),
          run=Run(until=3, resume=tmp_path / "run.pt"), **QUIET)
    train(halves, batch, loss, steps=6, optim=Optim(ema_decay=0.9), run=Run(resume=tmp_path / "run.pt"),
          **QUIET)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
    plain = make()
    train(plain, batch, loss, steps=6, **QUIET)
    assert not torch.equal(plain.hidden.weight, whole.hidden.weight), "the average is not the last step"


def test_a_run_without_an_average_cannot_go_on_with_one(tmp_path):
    train(make(), batch, loss, steps=4, run=Run(until=2, resume=tmp_path / "run.pt"), **QUIET)
    with pytest.raises(ValueError, match="without an average"):
        train(make(), batch, loss, steps=4, optim=Optim(ema_decay=0.9), run=Run(resume=tmp_path / "run.pt"),
              **QUIET)
