"""The diffusion decoder: samplers against exact solutions, the loss, the U-Net, determinism, bad input, the shipped one."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse import checkpoints
from mmcourse.diffusion import (
    FlowDecoder,
    decoder_loss,
    enlarge,
    euler,
    flow_loss,
    heun,
    interpolate,
    paint_flow,
    plain_and_codes,
    time_features,
    velocity_of,
)
from mmcourse.judges.metrics import measure_decoders
from mmcourse.optim import Optim
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene


@pytest.fixture(scope="module")
def vqvae() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(codebook_size=32, dim=8, width=32).eval()


@pytest.fixture(scope="module")
def model() -> FlowDecoder:
    torch.manual_seed(0)
    model = FlowDecoder(code_dim=8, width=16, depth=1, time=16)
    nn.init.normal_(model.conv_out[-1].weight, std=0.05)                  # as if it had learned something
    return model.eval()


def scenes(n: int, seed: int = 0) -> list:
    """Scenes whose combinations nothing was trained on."""
    return [sample_scene(np.random.default_rng((seed, i)), "held-out") for i in range(n)]


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(32, (3, 8, 8), generator=torch.Generator().manual_seed(1))


# ---- paths and samplers

def test_the_path_goes_from_noise_to_data_in_a_straight_line():
    data, noise = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    assert torch.equal(interpolate(data, noise, torch.zeros(4)), noise)
    assert torch.equal(interpolate(data, noise, torch.ones(4)), data)
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    for i in range(4):
        assert torch.allclose(interpolate(data, noise, t)[i], t[i] * data[i] + (1 - t[i]) * noise[i])


@pytest.mark.parametrize("sampler", [euler, heun])
def test_a_constant_velocity_is_followed_exactly(sampler):
    x, v = torch.zeros(2, 3), torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    for steps in (1, 3, 8):
        states = sampler(lambda x, t: v, x, steps)
        assert len(states) == steps + 1 and torch.equal(states[0], x)
        assert torch.allclose(states[-1], v)


def test_euler_is_of_first_order_and_heun_of_second():
    def errors(sampler):
        x = torch.ones(1, dtype=torch.float64)
        return [abs(sampler(lambda x, t: x * (1 + t), x, n)[-1].item() - math.exp(1.5)) for n in (32, 64)]
    for sampler, order in ((euler, 1), (heun, 2)):
        coarse, fine = errors(sampler)
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_the_samplers_call_the_network_as_often_as_they_say():
    for sampler, steps, expected in ((euler, 5, 5), (heun, 5, 9), (heun, 1, 1)):
        calls = []
        sampler(lambda x, t, calls=calls: calls.append(t) or x, torch.zeros(1), steps)
        assert len(calls) == expected and max(calls) < 1


class GaussianOracle(nn.Module):
    """The perfect denoiser of numbers from N(mean, std^2): Bayes' rule for two Gaussians."""
    mean, std = 3.0, 0.5

    def forward(self, x, t):
        t = t.view(-1, 1)
        gain = t * self.std**2 / (t**2 * self.std**2 + (1 - t) ** 2)
        return self.mean + gain * (x - t * self.mean)


@pytest.mark.parametrize("sampler", [euler, heun])
def test_the_perfect_denoiser_turns_noise_into_its_distribution(sampler):
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    made = sampler(velocity_of(GaussianOracle()), noise, 100)[-1]
    assert made.mean().item() == pytest.approx(3.0, abs=0.02)
    assert made.std().item() == pytest.approx(0.5, abs=0.02)


def test_one_euler_step_gives_the_prediction_itself():
    noise = torch.randn(5, 1)
    assert torch.allclose(euler(velocity_of(GaussianOracle()), noise, 1)[-1], torch.full((5, 1), 3.0))


def test_the_loss_is_zero_for_who_knows_the_answer_and_lowest_for_the_oracle():
    data = 3 + 0.5 * torch.randn(20_000, 1)
    assert flow_loss(lambda x, t: data, data).item() == 0

    def loss(model):
        torch.manual_seed(1)
        return flow_loss(model, data).item()
    oracle = GaussianOracle()
    for other in (lambda x, t: torch.full_like(x, 3.0), lambda x, t: oracle(x, t) + 0.05, lambda x, t: x):
        assert loss(other) > loss(oracle)


def test_times_can_be_told_apart():
    t = torch.linspace(0, 1, 101)
    features = time_features(t)
    assert features.shape == (101, 64)
    distance = torch.cdist(features, features) + 10 * torch.eye(101)
    assert distance.min() > 0.1


# ---- the network

def test_an_untrained_decoder_gives_the_plain_picture(vqvae, ids):
    fresh = FlowDecoder(code_dim=8, width=16, depth=1, time=16)
    for steps in (1, 4):
        assert torch.allclose(fresh.decode(ids, vqvae, steps, seed=steps), vqvae.decode(ids), atol=1e-6)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(vqvae, model, ids):
    first = model.decode(ids, vqvae, 3, 5)
    assert first.shape == (3, 3, 64, 64) and 0 <= first.min() and first.max() <= 1
    torch.manual_seed(123)                                             # the global generator does not matter
    assert torch.equal(first, model.decode(ids, vqvae, 3, 5))
    assert not torch.allclose(first, model.decode(ids, vqvae, 3, 6), atol=1e-3)
    assert torch.allclose(first[:1], model.decode(ids[:1], vqvae, 3, 5), atol=1e-5)    # nor what else is in the batch


def test_decoding_does_not_touch_the_global_generator(vqvae, model, ids):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model.decode(ids, vqvae, 2, 0)
    assert torch.equal(torch.rand(3), expected)


def test_the_path_is_a_film_that_ends_in_the_picture(vqvae, model, ids):
    for sampler in ("euler", "heun"):
        film = paint_flow(model, ids, vqvae, 4, 1, sampler)
        assert len(film) == 5 and torch.equal(film[-1], model.decode(ids, vqvae, 4, 1, sampler))
    noise = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    start = (vqvae.decode(ids) + model.residual_std * noise).clamp(0, 1)
    assert torch.allclose(film[0], start, atol=1e-6), "it begins with noise on the plain picture"


def test_it_decodes_wide_pictures_too(vqvae, model):
    assert model.decode(torch.zeros(1, 4, 12, dtype=torch.int64), vqvae, 2).shape == (1, 3, 32, 96)


def test_every_weight_is_reached_by_the_gradient(vqvae, model, ids):
    plain, codes = plain_and_codes(vqvae, ids)
    decoder_loss(model, torch.rand_like(plain), plain, codes).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    model.zero_grad()


def test_the_codes_and_the_plain_picture_both_matter(vqvae, model, ids):
    plain, codes = plain_and_codes(vqvae, ids)
    x, t = torch.randn_like(plain), torch.full((3,), 0.5)
    with torch.no_grad():
        usual = model(x, t, plain, codes)
        assert not torch.allclose(usual, model(x, t, plain, codes.flip(0)), atol=1e-4)
        assert not torch.allclose(usual, model(x, t, plain.flip(0), codes), atol=1e-4)
        assert not torch.allclose(usual, model(x, t * 0.2, plain, codes), atol=1e-4)


def test_its_data_is_what_the_plain_picture_got_wrong(vqvae, model, ids):
    images, (plain, codes) = torch.rand(3, 3, 64, 64), plain_and_codes(vqvae, ids)
    torch.manual_seed(1)
    found = decoder_loss(model, images, plain, codes)
    torch.manual_seed(1)
    assert torch.equal(found, flow_loss(model, (images - plain) / model.residual_std, plain, codes))


def test_it_learns(vqvae):
    small = FlowDecoder(code_dim=8, width=24, depth=1, time=32, residual_std=0.3)
    images = draw_batch(scenes(8))
    fixed = (images, *plain_and_codes(vqvae, vqvae.encode(images)))
    history = train(small, lambda rng: fixed, decoder_loss, steps=60, optim=Optim(lr=3e-3, warmup=5),
                    run=Run(log_every=1, progress=False))
    losses = history.column("loss")
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_a_checkpoint_comes_back_whole(tmp_path, model, vqvae, ids):
    checkpoints.save("decoder", model, seed=0, steps=1, cpu_minutes=0, metrics={}, folder=tmp_path)
    again = checkpoints.load("decoder", tmp_path)
    assert torch.equal(again.decode(ids, vqvae, 2, 0), model.decode(ids, vqvae, 2, 0))


# ---- larger than the tokens

def test_enlarging_keeps_flat_colours_and_the_range():
    flat = torch.tensor([0.1, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert torch.allclose(enlarge(flat, 2), flat[..., :1, :1].expand(1, 3, 16, 16), atol=1e-6)
    wild = (torch.rand(1, 3, 8, 8) > 0.5).float()                      # a cubic curve overshoots at an edge
    assert 0 <= enlarge(wild, 2).min() and enlarge(wild, 2).max() <= 1
    assert enlarge(wild, 1) is wild


def test_a_decoder_of_scale_two_paints_twice_as_large_and_begins_as_the_enlarged_picture(vqvae, ids):
    fresh = FlowDecoder(code_dim=8, width=16, depth=1, time=16, scale=2)
    assert fresh.config["scale"] == 2
    made = fresh.decode(ids, vqvae, 2)
    assert made.shape == (3, 3, 128, 128)
    assert torch.allclose(made, enlarge(vqvae.decode(ids), 2), atol=1e-6)


def test_every_weight_of_the_large_one_is_reached_by_the_gradient(vqvae, ids):
    large = FlowDecoder(code_dim=8, width=16, depth=1, time=16, scale=2)
    nn.init.normal_(large.conv_out[-1].weight, std=0.05)
    plain, codes = plain_and_codes(vqvae, ids)
    decoder_loss(large, torch.rand(3, 3, 128, 128), plain, codes).backward()
    assert [name for name, p in large.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


# ---- bad input

@pytest.mark.parametrize("steps", [0, -1, 2.5, "8", True, None])
def test_bad_numbers_of_steps(vqvae, model, ids, steps):
    with pytest.raises(ValueError, match="steps is a whole number of 1 or more"):
        model.decode(ids, vqvae, steps, 0)


@pytest.mark.parametrize("bad, said", [
    (torch.zeros(8, 8, dtype=torch.int64), "shape"),
    (torch.zeros(0, 8, 8, dtype=torch.int64), "shape"), ([[1, 2]], "shape"),
    (torch.full((1, 8, 8), 32), "0..31"), (torch.full((1, 8, 8), -1), "0..31")])
def test_bad_ids(vqvae, model, bad, said):
    with pytest.raises(ValueError, match=said):
        model.decode(bad, vqvae, 2, 0)


def test_bad_sampler_and_another_tokenizer(vqvae, model, ids):
    with pytest.raises(ValueError, match="'euler' or 'heun'"):
        model.decode(ids, vqvae, 2, 0, sampler="ddim")
    with pytest.raises(ValueError, match="tokenizer"):
        model.decode(ids, VQVAE(codebook_size=32, dim=4, width=32).eval(), 2)


# ---- the shipped decoders

@pytest.mark.parametrize("name", ["decoder", "decoder128"])
def test_a_shipped_decoder_fits_the_shipped_tokenizer_and_is_small(name):
    assert checkpoints.manifest()[name]["vqvae"] == checkpoints.identity("vqvae"), "trained with another tokenizer: train it again"
    assert sum(p.numel() for p in checkpoints.load(name).parameters()) <= 2_000_000


@pytest.mark.slow
def test_the_shipped_decoder_on_held_out_scenes():
    got = measure_decoders(*(checkpoints.load(name) for name in ("vqvae", "decoder", "picture_judge")), n=128, seed=3)
    recorded = checkpoints.manifest()["decoder"]["metrics"]
    assert got["psnr_diffusion"] == pytest.approx(recorded["psnr_diffusion"], abs=1.0)
    assert got["nouns_diffusion"] > got["nouns_plain"] - 0.05
    assert got["nouns_true"] > 0.95
    assert got["fd_same_diffusion"] < got["fd_same_blur"]


def test_the_shipped_large_decoder_finds_detail_that_enlarging_lacks():
    tokenizer, large = checkpoints.load("vqvae"), checkpoints.load("decoder128")
    asked = scenes(12, seed=9)
    truth, tokens = draw_batch(asked, 128), tokenizer.encode(draw_batch(asked))
    plain = enlarge(tokenizer.decode(tokens), 2)
    painted = large.decode(tokens, tokenizer, steps=2)
    assert (painted - truth).square().mean() < 0.7 * (plain - truth).square().mean()
