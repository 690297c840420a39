"""What limits moved pictures: the search among codes, the best vectors, tokenizers without codes."""
import pytest
import torch

from mmcourse.studies import ch03_limits, ch03_moved
from mmcourse.vqvae import VQVAE


@pytest.fixture
def small() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(codebook_size=32, dim=8, width=32).eval().requires_grad_(False)


def test_a_search_makes_no_picture_worse_and_finds_better_codes(small):
    x = torch.rand(3, 3, 64, 64)
    ids = small.encode(x)

    def errors(tokens):
        return (small.decode(tokens) - x).square().sum((1, 2, 3))
    better = ch03_limits.search(small, x, ids, near=4)
    assert (errors(better) <= errors(ids) + 1e-4).all() and errors(better).sum() < errors(ids).sum()
    assert (errors(ch03_limits.search(small, x, ids, sweeps=2, near=4)) <= errors(better) + 1e-4).all()
    assert torch.equal(ch03_limits.search(small, x, ids, near=1), ids)               # nothing but itself to try
    with pytest.raises(ValueError, match="multiples of 4 tokens, got 8x5"):
        ch03_limits.search(small, x[:, :, :, :40], ids[:, :, :5])


def test_a_window_is_the_patches_around_a_place():
    errors = torch.zeros(1, 8, 8)
    errors[0, 3, 6] = 1.0
    found = [(top, left) for top in range(4) for left in range(4) if ch03_limits.windows(errors, top, left)[0, 0, 1] == 1]
    # the window of place (top, left + 4) spans rows top - 2 .. top + 1 and columns left + 2 .. left + 5
    assert found == [(top, left) for top in range(4) for left in range(4)
                     if top - 2 <= 3 <= top + 1 and left + 2 <= 6 <= left + 5]
    assert all(ch03_limits.windows(errors, top, left).sum() == 1 for top in range(4) for left in range(4))


def test_patch_errors_add_up_to_the_pictures(small):
    x, ids = torch.rand(2, 3, 64, 64), torch.randint(32, (2, 8, 8))
    found = ch03_limits.patch_errors(small, x, ids)
    assert found.shape == (2, 8, 8)
    torch.testing.assert_close(found.sum((1, 2)), (small.decode(ids) - x).square().sum((1, 2, 3)))


def test_free_vectors_paint_better_than_the_encoders(small):
    x = torch.rand(2, 3, 64, 64)
    z = small.vectors(x)
    free = ch03_limits.free(small, x, z, steps=20)
    assert free.shape == z.shape

    def error(vectors):
        return (ch03_limits.paint_vectors(small, vectors) - x).square().mean()
    assert error(free) < 0.95 * error(z)


def test_vectors_of_codes_are_painted_as_the_codes(small):
    ids = torch.randint(32, (2, 8, 8))
    painted = ch03_limits.paint_vectors(small, small.quantizer.codebook[ids])
    torch.testing.assert_close(painted, small.decode(ids))


def test_the_larger_book_depends_on_the_plan_alone(monkeypatch, small):
    plan = ch03_limits.Plan(codes=16, fitted_on=100)
    first = ch03_limits.larger_book(small, plan)
    torch.randn(7)                                      # whatever dice were thrown in between
    assert first.shape == (16, 8) and torch.equal(first, ch03_limits.larger_book(small, plan))


def test_without_codes_the_vectors_pass_as_they_are():
    model, x = ch03_moved.make(None, 3), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(x)[0], model.decoder(model.vectors(x).permute(0, 3, 1, 2)) + 0.5)


def test_an_arm_is_what_its_name_says():
    for name, arm in ch03_moved.ARMS.items():
        assert name.startswith(f"{arm.codes or 'no'} codes, context {arm.context}")
        assert ("four times" in name) == (arm.times == 4) and ("twice" in name) == (arm.times == 2)
    model = ch03_moved.make(8192, 3, seed=1)
    assert model.vocab_size == 8192 and model.config["context"] == 3
    assert torch.equal(ch03_moved.make(8192, 3, seed=1).encoder[0].weight, model.encoder[0].weight)


def test_a_training_that_was_stopped_goes_on_and_leaves_no_file(tmp_path, monkeypatch):
    plan, name, measured = ch03_moved.Plan(steps=2, batch=2, pictures=2), "512 codes, context 1", []
    monkeypatch.setattr(ch03_moved, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(ch03_moved, "measure", lambda model, plan: measured.append(model) or {})
    whole = ch03_moved.row(plan, name)
    train = ch03_moved.train

    def stopped(*args, run, **more):
        history = train(*args, run=type(run)(**{**run.__dict__, "until": 1}), **more)
        history.interrupted = True
        return history
    monkeypatch.setattr(ch03_moved, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        ch03_moved.row(plan, name)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    monkeypatch.setattr(ch03_moved, "train", train)
    assert set(ch03_moved.row(plan, name)) == set(whole) and not list((tmp_path / "runs").iterdir())
    assert torch.equal(measured[0].encoder[0].weight, measured[1].encoder[0].weight)
