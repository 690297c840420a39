"""The one training loop: a step by hand, exact resume, Ctrl-C, bad losses, what is logged."""
import errno
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import training
from mmcourse.optim import Optim, make_optimizers, set_rates
from mmcourse.training import Run, step, train
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


def fill_the_disk(patch):
    """From here on a file can be begun, and no more."""
    def half(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")
    patch.setattr(Path, "write_bytes", half)


OPTIM = Optim(lr=0.01, warmup=3)
QUIET = Run(progress=False, log_every=1)


def saved(path, **settings) -> Run:
    """A quiet run that is kept in a file."""
    return replace(QUIET, resume=path, **settings)


# ---- one step

def test_one_step_is_forward_backward_step_and_forget_written_by_hand():
    """AdamW's first moves in its own formulas (Loshchilov & Hutter 2019), gradients clipped together to a norm of 1."""
    model, other = make().eval(), make().eval()
    optim = Optim(lr=0.01, weight_decay=0.1, clip=1.0)
    optimizers = make_optimizers(model, optim)
    set_rates(optimizers, 0.5)
    first, second = ({name: torch.zeros_like(p) for name, p in other.named_parameters()} for _ in range(2))
    rate, (beta1, beta2) = 0.5 * 0.01, (0.9, 0.98)
    for count in (1, 2, 3):
        data = [20 * part for part in batch(np.random.default_rng(count))]          # large errors: there is something to clip
        result = step(model, optimizers, data, loss, clip=optim.clip)
        error = (other(data[0]) - data[1]).square().mean()
        gradients = dict(zip(first, torch.autograd.grad(error, list(other.parameters()))))
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        assert norm > 1
        with torch.no_grad():
            for name, p in other.named_parameters():
                g = gradients[name] / norm
                first[name] = beta1 * first[name] + (1 - beta1) * g
                second[name] = beta2 * second[name] + (1 - beta2) * g**2
                p *= 1 - rate * (0.1 if p.ndim >= 2 else 0.0)
                p -= rate * (first[name] / (1 - beta1**count)) / ((second[name] / (1 - beta2**count)).sqrt() + 1e-8)
        assert set(result) == {"loss", "root", "grad_norm"}
        assert result["loss"].item() == pytest.approx(error.item(), rel=1e-5)
        assert result["grad_norm"].item() == pytest.approx(norm.item(), rel=1e-4)
        for (name, a), b in zip(model.named_parameters(), other.parameters()):
            assert a.grad is None, "gradients are forgotten"
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_takes_a_bare_loss_and_leaves_the_dict_of_a_loss_alone():
    model = make()
    assert set(step(model, make_optimizers(model, OPTIM), batch(np.random.default_rng(0)),
                    lambda *a: loss(*a)["loss"])) == {"loss", "grad_norm"}
    kept = {}
    step(model, make_optimizers(model, OPTIM), batch(np.random.default_rng(0)), lambda *a: kept.update(loss(*a)) or kept)
    assert set(kept) == {"loss", "root"}


def test_a_step_on_a_loss_that_is_not_finite_is_not_taken():
    model, clean = make(), make()
    with pytest.raises(FloatingPointError, match="the loss is nan: lower the learning rate"):
        step(model, make_optimizers(model, OPTIM), batch(np.random.default_rng(0)), lambda *a: loss(*a)["loss"] * math.nan)
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(model.parameters(), clean.parameters()))


# ---- resume

@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_is_bit_identical(tmp_path, optimizer):
    optim = replace(OPTIM, name=optimizer)
    straight, part, resumed = make(), make(), make(seed=99)            # other weights: all must come from the file
    whole = train(straight, batch, loss, steps=20, optim=optim, run=QUIET)
    first = train(part, batch, loss, steps=20, optim=optim, run=saved(tmp_path / "run.pt"), after_step=at(7, raise_interrupt))
    assert first.interrupted and len(first.rows) == 8 and not same(part, straight)
    second = train(resumed, batch, loss, steps=20, optim=optim, run=saved(tmp_path / "run.pt"))
    assert not second.interrupted and same(resumed, straight)
    assert whole.rows == second.rows                                   # the step that was interrupted is there, once


def test_a_resumed_vqvae_is_bit_identical(tmp_path):
    def pictures(rng):
        return (torch.from_numpy(rng.random((2, 3, 64, 64), dtype=np.float32)),)

    def fresh(seed):
        torch.manual_seed(seed)
        return VQVAE(codebook_size=32, dim=4, width=16)

    straight, resumed, run = fresh(0), fresh(1), saved(tmp_path / "v.pt")
    train(straight, pictures, vqvae_loss, steps=8, optim=OPTIM, run=QUIET)
    train(fresh(0), pictures, vqvae_loss, steps=8, optim=OPTIM, run=run, after_step=at(3, raise_interrupt))
    train(resumed, pictures, vqvae_loss, steps=8, optim=OPTIM, run=run)
    assert same(resumed, straight)


@pytest.mark.parametrize("where", ["batch", "after the step"])
def test_an_error_between_two_steps_loses_none_of_them(tmp_path, where):
    """A batch or a look that fails (a reward may be any code) leaves what was learned until then in the file."""
    def crash():
        raise RuntimeError("power cut")

    def cut(rng):
        if broken and next(count) == 14:
            crash()
        return batch(rng)

    count, broken = itertools.count(), where == "batch"
    straight, resumed, run = make(), make(99), saved(tmp_path / "run.pt", save_every=5)
    train(straight, batch, loss, steps=20, optim=OPTIM, run=QUIET)
    with pytest.raises(RuntimeError, match="power cut"):
        train(make(), cut, loss, steps=20, optim=OPTIM, run=run, after_step=None if broken else at(13, crash))
    assert training._read_state(tmp_path / "run.pt", "cpu")["step"] == 14
    broken = False
    train(resumed, batch, loss, steps=20, optim=OPTIM, run=run)
    assert same(resumed, straight)


def test_an_error_within_a_step_loses_only_what_came_after_the_last_save(tmp_path):
    def broken(model, *data):
        if next(count) == 13:
            raise RuntimeError("power cut")
        return loss(model, *data)

    count, run = itertools.count(), saved(tmp_path / "run.pt", save_every=5)
    with pytest.raises(RuntimeError, match="power cut"):
        train(make(), batch, broken, steps=20, optim=OPTIM, run=run)
    assert training._read_state(tmp_path / "run.pt", "cpu")["step"] == 10


def test_a_resumed_run_keeps_the_rates_of_this_call(tmp_path):
    """A smaller learning rate for the rest of a run is obeyed, though the file holds the optimizers of the larger one."""
    path, low = tmp_path / "run.pt", Optim("muon", lr=1e-4, muon_lr=1e-3, warmup=0)
    train(make(), batch, loss, steps=20, optim=Optim("muon", lr=0.01, muon_lr=0.02, warmup=0), run=saved(path, until=5))
    state = training.State.start(make(99), low, saved(path))
    adamw, muon = state.optimizers
    assert state.step == 5 and len(muon.state) == 1, "the momentum comes from the file"
    assert [g["initial_lr"] for o in (adamw, muon) for g in o.param_groups] == [1e-4, 1e-4, 1e-3]
    frozen = make(99)
    still = Optim("muon", lr=0.0, muon_lr=0.0, weight_decay=0.0, warmup=0)
    train(frozen, batch, loss, steps=20, optim=still, run=saved(path))
    weights = torch.load(path, weights_only=True)
    assert weights["step"] == 20 and not same(frozen, make(99))
    train(again := make(), batch, loss, steps=20, optim=Optim("muon", lr=0.01, muon_lr=0.02, warmup=0), run=replace(QUIET, until=5))
    assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), again.parameters())), "a rate of 0 moved nothing"


def pressing(where: str, press, monkeypatch):
    """A `batch` and a `loss` that call `press` in step 5: while the batch is made, with the loss, or at the clipping."""
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

    if where == "clip":
        clip, count = nn.utils.clip_grad_norm_, iter(range(99))
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda p, c: (press() if next(count) == 5 else None, clip(p, c))[1])
    return my_batch, my_loss


@pytest.mark.parametrize("where", ["batch", "loss", "clip"])
def test_ctrl_c_in_the_middle_of_a_step_finishes_the_step_and_resumes_exactly(tmp_path, monkeypatch, where):
    """A real signal, at the worst moments: a half-done step must not be done twice after the resume."""
    straight = make()
    train(straight, batch, loss, steps=12, optim=OPTIM, run=QUIET)
    pressed = []

    def press():
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    model, run = make(), saved(tmp_path / "run.pt")
    my_batch, my_loss = pressing(where, press, monkeypatch)
    history = train(model, my_batch, my_loss, steps=12, optim=OPTIM, run=run)
    assert pressed and history.interrupted and len(history.rows) == 6
    assert not model.training and torch.isfinite(model(torch.ones(1, 3))).all()        # usable as it is
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = train(model, batch, loss, steps=12, optim=OPTIM, run=run)                  # the same model, the same call
    assert not again.interrupted and len(again.rows) == 12 and same(model, straight)


def test_ctrl_c_without_a_file_says_that_the_model_is_usable(capsys):
    model = make()
    history = train(model, batch, loss, steps=10, optim=OPTIM, run=QUIET, after_step=at(4, raise_interrupt))
    assert history.interrupted and not model.training
    assert "stopped at step 5 of 10; the model is usable as it is" in capsys.readouterr().out


def test_a_finished_run_is_not_trained_again(tmp_path):
    model, run = make(), saved(tmp_path / "run.pt")
    train(model, batch, loss, steps=5, optim=OPTIM, run=run)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    history = train(model, batch, loss, steps=5, optim=OPTIM, run=run)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert len(history.rows) == 5 and [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_a_file_of_another_run_is_refused(tmp_path):
    run = saved(tmp_path / "run.pt")
    train(make(), batch, loss, steps=2, optim=OPTIM, run=run)
    with pytest.raises(ValueError, match="seed 0"):
        train(make(), batch, loss, steps=2, optim=OPTIM, run=replace(run, seed=1))
    with pytest.raises(ValueError, match="another model"):
        train(VQVAE(codebook_size=8, dim=2, width=16), batch, loss, steps=2, optim=OPTIM, run=run)
    (tmp_path / "run.pt").write_bytes(b"not a run")
    with pytest.raises(ValueError, match="not a saved run"):
        train(make(), batch, loss, steps=2, optim=OPTIM, run=run)


def test_saving_is_atomic(tmp_path, monkeypatch):
    run = saved(tmp_path / "run.pt")
    train(make(), batch, loss, steps=2, optim=OPTIM, run=run)
    good = (tmp_path / "run.pt").read_bytes()

    fill_the_disk(monkeypatch)
    model = make()
    with pytest.raises(OSError, match=r"run.pt could not be written \(No space left on device\); make room"):
        train(model, batch, loss, steps=4, optim=OPTIM, run=run)
    assert (tmp_path / "run.pt").read_bytes() == good and [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    assert not model.training and torch.isfinite(model(torch.ones(1, 3))).all(), "the model is usable all the same"


def test_a_full_disk_on_the_way_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    run, model, straight = saved(tmp_path / "run.pt", save_every=2), make(), make()
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        history = train(model, batch, loss, steps=10, optim=OPTIM, run=run, after_step=at(8, patch.undo))
    assert "No space left on device); make room on that disk; the training goes on, unsaved" in capsys.readouterr().out
    train(straight, batch, loss, steps=10, optim=OPTIM, run=QUIET)
    assert not history.interrupted and same(model, straight) and [p.name for p in tmp_path.iterdir()] == ["run.pt"]


# ---- what a stranger, a second kernel, a second press of stop does to a run

def press_twice():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("where, said", [
    ("batch", "stopped at step 5 of 12; the model is usable as it is, and the same call goes on from"),
    ("loss", "stopped in the middle of step 5 of 12: the model is half moved; .*run.pt is as it was last saved"),
    ("clip", "stopped in the middle of step 5 of 12: the model is half moved; .*run.pt is as it was last saved")])
def test_two_presses_of_stop_never_save_a_step_that_was_cut(tmp_path, monkeypatch, capsys, where, said):
    straight, model, run = make(), make(), saved(tmp_path / "run.pt", save_every=2)
    train(straight, batch, loss, steps=12, optim=OPTIM, run=QUIET)
    with monkeypatch.context() as patch:
        my_batch, my_loss = pressing(where, press_twice, patch)
        assert train(model, my_batch, my_loss, steps=12, optim=OPTIM, run=run).interrupted
    assert re.search(said, capsys.readouterr().out) and not model.training
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == (5 if where == "batch" else 4)
    train(again := make(99), batch, loss, steps=12, optim=OPTIM, run=run)
    assert same(again, straight)


def test_ctrl_c_while_the_run_is_saved_or_begun_leaves_the_model_usable(tmp_path, monkeypatch):
    model, run, real = make(), saved(tmp_path / "run.pt"), training.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(training, "write_bytes", lambda *args: (os.kill(os.getpid(), signal.SIGINT), real(*args)))
        history = train(model, batch, loss, steps=4, optim=OPTIM, run=run)
    assert history.interrupted and not model.training and torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 4
    with monkeypatch.context() as patch:
        patch.setattr(training, "make_optimizers", lambda *args: os.kill(os.getpid(), signal.SIGINT) or make_optimizers(*args))
        history = train(model, batch, loss, steps=9, optim=OPTIM, run=run)
    assert history.interrupted and not model.training and history.rows[-1]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_damaged_file_is_refused_whichever_bit_has_flipped(tmp_path):
    run, path = saved(tmp_path / "run.pt"), tmp_path / "run.pt"
    train(make(), batch, loss, steps=2, optim=OPTIM, run=run)
    good = path.read_bytes()
    places = [0, len(good) - 1, *np.random.default_rng(0).integers(len(good), size=40).tolist()]
    for changed in [good[:-1], good[:30], b"", good + b"\n", *(flip(good, place) for place in places)]:
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="run.pt is not a saved run .* delete it to begin anew"):
            train(make(), batch, loss, steps=4, optim=OPTIM, run=run)
    path.write_bytes(good)
    assert len(train(make(), batch, loss, steps=4, optim=OPTIM, run=run).rows) == 4


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1:]


@pytest.mark.parametrize("other, said", [
    ({"optim": replace(OPTIM, lr=0.5)}, "made with lr 0.01; from here on: lr 0.5"),
    ({"optim": replace(OPTIM, weight_decay=0.5)}, "made with weight_decay 0.01; from here on: weight_decay 0.5"),
    ({"optim": replace(OPTIM, clip=2.0, warmup=1)}, "made with clip 1.0, warmup 3; from here on: clip 2.0, warmup 1"),
    ({"steps": 9}, "made with steps 6; from here on: steps 9")])
def test_other_settings_hold_from_here_on_and_are_said(tmp_path, capsys, other, said):
    call = {"steps": 6, "optim": OPTIM}
    train(make(), batch, loss, **call, run=saved(tmp_path / "run.pt", until=3))
    capsys.readouterr()
    train(make(), batch, loss, **{**call, **other}, run=saved(tmp_path / "run.pt"))
    assert said in capsys.readouterr().out
    state = training.State.start(make(), {**call, **other}["optim"], saved(tmp_path / "run.pt"))
    decays = [group["weight_decay"] for group in state.optimizers[0].param_groups]
    assert decays == [{**call, **other}["optim"].weight_decay, 0.0]


def test_other_threads_are_said_and_the_same_call_says_nothing(tmp_path, monkeypatch, capsys):
    call = {"steps": 6, "optim": OPTIM}
    train(make(), batch, loss, **call, run=saved(tmp_path / "run.pt", until=2))
    train(make(), batch, loss, **call, run=saved(tmp_path / "run.pt", until=4))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(training.torch, "get_num_threads", lambda: 7)
    train(make(), batch, loss, **call, run=saved(tmp_path / "run.pt"))
    assert "from here on: threads 7" in capsys.readouterr().out


def test_another_optimizer_and_a_mean_that_is_left_out_are_refused(tmp_path):
    train(make(), batch, loss, steps=4, optim=replace(OPTIM, ema_decay=0.9), run=saved(tmp_path / "run.pt", until=2))
    for optim, said in ((replace(OPTIM, name="muon", ema_decay=0.9), "with the optimizer adamw"), (OPTIM, "with a running mean")):
        with pytest.raises(ValueError, match=said):
            train(make(), batch, loss, steps=4, optim=optim, run=saved(tmp_path / "run.pt"))


def test_two_trainings_on_one_file_do_not_meet(tmp_path):
    """While one is at work the other is told so; nothing of the first is lost."""
    run, refused, straight, model = saved(tmp_path / "run.pt", save_every=1), [], make(), make()

    def second():
        try:
            train(make(), batch, loss, steps=8, optim=OPTIM, run=run)
        except OSError as error:
            refused.append(str(error))

    def start():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    train(model, batch, loss, steps=8, optim=OPTIM, run=run, after_step=at(3, start))
    assert len(refused) == 1 and re.search("run.pt is in use by another process", refused[0])
    train(straight, batch, loss, steps=8, optim=OPTIM, run=QUIET)
    assert same(model, straight) and [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_nothing_to_train_is_said(tmp_path, capsys):
    for _ in range(2):
        before = capsys.readouterr().out
        train(make(), batch, loss, steps=3, optim=OPTIM, run=saved(tmp_path / "run.pt"))
    assert before == "" and "nothing to train: " in (said := capsys.readouterr().out) and "run.pt holds 3 steps already" in said


def test_an_error_leaves_the_model_in_eval_mode_and_the_file_free(tmp_path):
    def broken(rng):
        raise RuntimeError("no data")
    model = make()
    with pytest.raises(RuntimeError, match="no data"):
        train(model, broken, loss, steps=3, optim=OPTIM, run=saved(tmp_path / "run.pt"))
    assert not model.training and not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_kept_is_refused_before_it_begins(tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OSError, match="could not be written"):
        train(make(), lambda rng: 1 / 0, loss, steps=3, optim=OPTIM, run=saved(tmp_path / "a" / "run.pt"))
    for settings in ({"save_every": 0}, {"log_every": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="at least"):
            Run(**settings)


KILLED = """
import os, signal, sys
from test_training import OPTIM, at, batch, loss, make, saved, train
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
train(make(), batch, loss, steps=12, optim=OPTIM, run=saved(sys.argv[1], save_every=2), after_step=at(7, kill))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_a_run_that_was_killed_goes_on_exactly(tmp_path):
    path, straight, resumed = tmp_path / "run.pt", make(), make(99)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
    train(straight, batch, loss, steps=12, optim=OPTIM, run=QUIET)
    train(resumed, batch, loss, steps=12, optim=OPTIM, run=saved(path))
    assert same(resumed, straight) and [p.name for p in tmp_path.iterdir()] == ["run.pt"], "its lock died with it"


# ---- the loop

def test_gradients_left_over_from_elsewhere_do_not_leak_into_the_first_step():
    clean, dirty = make(), make()
    dirty(torch.ones(1, 3)).sum().backward()
    with torch.no_grad():
        dirty.seen.zero_()
    for model in (clean, dirty):
        train(model, batch, loss, steps=3, optim=OPTIM, run=QUIET)
    assert same(clean, dirty)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(value):
    def bad(model, x, y):
        return loss(model, x, y)["loss"] * (value if int(model.seen) == 16 * 4 else 1.0)

    model = make()
    with pytest.raises(FloatingPointError, match=r"learning rate.*\(at step 3\)"):
        train(model, batch, bad, steps=10, optim=OPTIM, run=QUIET)
    assert all(torch.isfinite(p).all() for p in model.parameters())    # the bad step was not taken


def test_the_run_depends_on_the_seed():
    models = [make(), make(), make()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        train(model, batch, loss, steps=5, optim=OPTIM, run=replace(QUIET, seed=seed))
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_history_columns_and_minutes():
    history = train(make(), batch, loss, steps=10, optim=OPTIM, run=replace(QUIET, log_every=4))
    assert [r["step"] for r in history.rows] == [0, 4, 8, 9]           # the last step is always there
    assert len(history.column("root")) == 4 and history.column("nothing") == []
    assert history.column("loss")[0] == pytest.approx(history.column("root")[0] ** 2, rel=1e-5)
    assert 0 < history.cpu_minutes < 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_learns(optimizer):
    history = train(make(), batch, loss, steps=300, optim=replace(OPTIM, name=optimizer), run=QUIET)
    assert np.mean(history.column("loss")[-20:]) < 0.5 * history.column("loss")[0]


def test_the_rates_of_every_optimizer_follow_the_schedule(monkeypatch):
    """Rates are set before each step: the warm-up, then the cosine, in units of each optimizer's own rate."""
    rates, real = [], training.step

    def note(model, optimizers, *rest):
        rates.append([group["lr"] for optimizer in optimizers for group in optimizer.param_groups])
        return real(model, optimizers, *rest)
    monkeypatch.setattr(training, "step", note)
    train(make(), batch, loss, steps=6, optim=Optim("muon", lr=0.01, muon_lr=0.02, warmup=2), run=QUIET)
    expected = [training.schedule(k, 6, 2) for k in range(6)]
    assert np.allclose(rates, np.outer(expected, [0.01, 0.01, 0.02])) and expected[:3] == [0.5, 1.0, 1.0]


# ---- the running mean of the weights

def test_a_resumed_run_has_the_same_mean(tmp_path):
    whole, halves, plain, optim = make(), make(), make(), replace(OPTIM, ema_decay=0.9)
    train(whole, batch, loss, steps=6, optim=optim, run=QUIET)
    train(halves, batch, loss, steps=6, optim=optim, run=saved(tmp_path / "run.pt", until=3))
    train(halves, batch, loss, steps=6, optim=optim, run=saved(tmp_path / "run.pt"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
    train(plain, batch, loss, steps=6, optim=OPTIM, run=QUIET)
    assert not torch.equal(plain.hidden.weight, whole.hidden.weight), "the mean is not the last step"


def test_a_run_without_a_mean_cannot_go_on_with_one(tmp_path):
    train(make(), batch, loss, steps=4, optim=OPTIM, run=saved(tmp_path / "run.pt", until=2))
    with pytest.raises(ValueError, match="without a running mean"):
        train(make(), batch, loss, steps=4, optim=replace(OPTIM, ema_decay=0.9), run=saved(tmp_path / "run.pt"))
