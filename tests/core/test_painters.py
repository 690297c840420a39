"""The painters of chapter 08: what a causal trunk sees, caches change nothing, losses and scores are what they say."""
import math

import pytest
import torch
import torch.nn.functional as F

from mmcourse.diffusion import euler, velocity_of
from mmcourse.painters import (
    FlowPainter,
    TokenPainter,
    early,
    from_noise_loss,
    from_patches,
    guided,
    in_order_loss,
    masked_loss,
    paint_from_noise,
    paint_in_order,
    paint_surest_first,
    score_from_noise,
    score_in_order,
    score_masked,
    shifted,
    to_patches,
)

PROMPT, PLACES, CODES = 3, 6, 5
TRUNK = {"prompt": PROMPT, "places": PLACES, "width": 16, "layers": 2, "heads": 2}


def loud(model):
    """With weights so large that its answers differ."""
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    return model.eval()


@pytest.fixture
def asked():
    torch.manual_seed(0)
    return torch.randint(1, 9, (4, PROMPT)), torch.randint(CODES, (4, PLACES))


@pytest.fixture(params=[True, False], ids=["causal", "sees all"])
def painter(request):
    torch.manual_seed(1)
    return loud(TokenPainter(9, CODES, causal=request.param, **TRUNK))


def flow(dim=4):
    torch.manual_seed(2)
    return loud(FlowPainter(9, dim, **TRUNK))


# ---------------------------------------------------------------- what a place sees

def test_a_causal_place_sees_those_before_it_and_the_other_kind_all(painter, asked):
    prompts, ids = asked
    for place in range(PLACES):
        other = ids.clone()
        other[:, place] = (other[:, place] + 1) % CODES
        changed = (painter(ids, prompts) - painter(other, prompts)).abs().amax((0, 2)) > 1e-6
        assert changed.tolist() == ([i >= place for i in range(PLACES)] if painter.config["causal"] else [True] * PLACES)


def test_every_place_hears_the_whole_prompt(painter, asked):
    prompts, ids = asked
    for i in range(PROMPT):
        other = prompts.clone()
        other[:, i] = 0
        assert ((painter(ids, prompts) - painter(ids, other)).abs().amax((0, 2)) > 1e-6).all()


def test_equal_seeds_begin_equally_and_a_config_makes_the_same_net_again(painter, asked):
    again = TokenPainter(**painter.config)
    again.load_state_dict(painter.state_dict())
    assert torch.equal(again.eval()(*asked[::-1]), painter(*asked[::-1]))
    twin = FlowPainter(**flow().config)
    twin.load_state_dict(flow().state_dict())
    x, t = torch.randn(4, PLACES, 4), torch.rand(4)
    assert torch.equal(twin(x, t, asked[0]), flow()(x, t, asked[0]))


# ---------------------------------------------------------------- in order

def test_shifted_shows_each_place_what_stands_before_it():
    assert shifted(torch.tensor([[7, 8, 9]]), 256).tolist() == [[256, 7, 8]]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_painting_with_caches_is_painting_without(asked, guidance):
    """Oracle: all places go through the net again for each id; the likeliest id is taken."""
    torch.manual_seed(1)
    model, prompts, known = loud(TokenPainter(9, CODES, causal=True, **TRUNK)), asked[0], torch.full((4, 1), CODES)
    for _ in range(PLACES):
        with torch.no_grad():
            logits = guided(model, prompts, guidance)(known)[:, -1]
        known = torch.cat([known, logits.argmax(-1, keepdim=True)], 1)
    assert torch.equal(paint_in_order(model, prompts, guidance, temperature=0), known[:, 1:])


def test_the_loss_in_order_is_the_score(asked):
    prompts, ids = asked
    model = loud(TokenPainter(9, CODES, causal=True, **TRUNK))
    assert in_order_loss(model, prompts, ids).item() == pytest.approx(-score_in_order(model, prompts, ids).mean().item() / PLACES,
                                                                      abs=1e-5)


def test_scores_in_order_are_probabilities(asked):
    """All pictures of two ids at three places together have the probability 1."""
    model = loud(TokenPainter(9, 2, causal=True, **TRUNK | {"places": 3}))
    all_ = torch.cartesian_prod(*[torch.arange(2)] * 3)
    assert score_in_order(model, asked[0][:1].expand(8, -1), all_).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_same_dice_paint_the_same(asked):
    model = loud(TokenPainter(9, CODES, causal=True, **TRUNK))
    one, two, other = (paint_in_order(model, asked[0], generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


# ---------------------------------------------------------------- the surest first

class Fixed(torch.nn.Module):
    """A painter that says the same of each place whatever is known, and counts how often it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.codes, self.calls, self.shown = logits, logits.shape[-1], 0, []
        self.trunk = torch.nn.Module()
        self.trunk.places = logits.shape[1]

    def forward(self, ids, prompts):
        self.calls += 1
        self.shown.append(ids)
        return self.logits.expand(len(ids), -1, -1)


def test_the_masked_loss_of_all_hidden_is_the_mean_of_all(monkeypatch, asked):
    prompts, ids = asked
    model = loud(TokenPainter(9, CODES, causal=False, **TRUNK))
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.zeros(*(a[0] if isinstance(a[0], torch.Size) else a)))
    logits = model(torch.full_like(ids, CODES), prompts)
    assert torch.allclose(masked_loss(model, prompts, ids), F.cross_entropy(logits.flatten(0, 1), ids.flatten()))


def test_the_masked_loss_counts_what_is_hidden(asked):
    torch.manual_seed(3)
    model = Fixed(torch.randn(1, PLACES, CODES))
    ids = torch.randint(CODES, (500, PLACES))
    loss = masked_loss(model, torch.ones(500, PROMPT, dtype=torch.long), ids)
    hidden = model.shown[0] == CODES
    assert hidden.any(1).all() and torch.equal(model.shown[0][~hidden], ids[~hidden])
    assert torch.allclose(loss, F.cross_entropy(model.logits.expand(500, -1, -1)[hidden], ids[hidden]))
    assert 0.55 < hidden.float().mean() < 0.75                          # 2 / pi, and one at least


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 32, 50])
def test_every_place_is_filled_and_none_twice(steps):
    logits = torch.zeros(1, 32, 7)
    logits[..., 3] = 30                                                # it draws nothing but 3
    model = Fixed(logits)
    assert (paint_surest_first(model, torch.ones(2, PROMPT, dtype=torch.long), steps) == 3).all() and model.calls == steps
    open_ = [(shown == 7).sum(1) for shown in model.shown]
    assert [(o[0] == o[1]).item() for o in open_] == [True] * steps
    expected = [int(32 * math.cos(math.pi / 2 * s / steps) + 1e-9) for s in range(steps)]
    assert [o[0].item() for o in open_] == expected
    for before, after in zip(model.shown, model.shown[1:]):
        assert torch.equal(before[before != 7], after[before != 7])


def test_without_noise_the_surest_place_is_first():
    logits = torch.zeros(1, 8, 2)
    logits[0, :, 0] = torch.arange(8.0)                                # the last place is the surest
    model = Fixed(logits)
    paint_surest_first(model, torch.ones(1, PROMPT, dtype=torch.long), 4, temperature=0.0, generator=torch.Generator().manual_seed(0))
    known = [(shown[0] != 2).nonzero()[:, 0].tolist() for shown in model.shown]
    assert known[1] == [7] and known[2] == [6, 7] or known[2] == [5, 6, 7]


def test_guidance_of_one_is_what_was_told_and_asks_once():
    model = Fixed(torch.randn(1, 4, 3))
    prompts, ids = torch.ones(2, PROMPT, dtype=torch.long), torch.full((2, 4), 3)
    assert torch.equal(guided(model, prompts, 1)(ids), model(ids, prompts)) and model.calls == 2
    guided(model, prompts, 2)(ids)
    assert model.calls == 4


def test_guidance_goes_on_from_silence_through_what_was_told():
    def model(prompts):
        return prompts.float()
    assert guided(model, torch.tensor([[2]]), 3.0)().item() == 6.0 and guided(model, torch.tensor([[2]]), 0.0)().item() == 0.0


def test_the_pseudo_likelihood_asks_each_place_once(asked):
    prompts, ids = asked
    model = loud(TokenPainter(9, CODES, causal=False, **TRUNK))
    by_hand = torch.zeros(4)
    for place in range(PLACES):
        hidden = ids.clone()
        hidden[:, place] = CODES
        by_hand += model(hidden, prompts).log_softmax(-1)[:, place].gather(1, ids[:, place:place + 1])[:, 0].detach()
    assert torch.allclose(score_masked(model, prompts, ids, passes=PLACES), by_hand, atol=1e-4)


# ---------------------------------------------------------------- from noise

def test_early_times_keep_the_ends_and_halve_at_a_quarter():
    assert early(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.0, 0.25, 1.0]
    times = early(torch.linspace(0, 1, 50))
    assert (times.diff() > 0).all() and torch.equal(early(torch.linspace(0, 1, 5), shift=1), torch.linspace(0, 1, 5))


def test_a_painter_that_knows_the_answer_has_no_loss_and_paints_it():
    class Knows(torch.nn.Module):
        dim, trunk = 4, torch.nn.Module()

        def forward(self, x, t, prompts):
            return torch.full_like(x, 0.5)
    model, prompts = Knows(), torch.ones(3, PROMPT, dtype=torch.long)
    model.trunk.places = PLACES
    assert from_noise_loss(model, prompts, torch.full((3, PLACES, 4), 0.5)).item() == 0
    for steps in (1, 4):
        assert torch.allclose(paint_from_noise(model, prompts, steps), torch.full((3, PLACES, 4), 0.5), atol=1e-5)


def test_equal_steps_would_be_eulers(monkeypatch, asked):
    monkeypatch.setattr("mmcourse.painters.early", lambda u: u)
    model, prompts = flow(), asked[0]
    with torch.no_grad():
        noise = torch.randn(4, PLACES, 4, generator=torch.Generator().manual_seed(7))
        expected = euler(velocity_of(lambda x, t: model(x, t, prompts)), noise, 3)[-1]
    assert torch.allclose(paint_from_noise(model, prompts, 3, generator=torch.Generator().manual_seed(7)), expected, atol=1e-4)


def test_the_flows_score_prefers_what_it_would_paint(asked):
    class Knows(torch.nn.Module):
        def forward(self, x, t, prompts):
            return torch.full_like(x, 0.5)
    values = torch.stack([torch.full((PLACES, 4), v) for v in (0.5, 0.4, -1.0)])
    said = score_from_noise(Knows(), asked[0][:3], values, generator=torch.Generator().manual_seed(0))
    assert said[0] == 0 and said[0] > said[1] > said[2]


# ---------------------------------------------------------------- pictures <-> places

def test_patches_are_cut_in_reading_order_and_go_back():
    images = torch.rand(3, 3, 32, 64)
    values = to_patches(images)
    assert values.shape == (3, 32, 192) and torch.allclose(from_patches(values), images, atol=1e-6)
    for place in (0, 7, 8, 31):
        y, x = 8 * (place // 8), 8 * (place % 8)
        patch = images[:, :, y:y + 8, x:x + 8] * 2 - 1
        assert torch.allclose(values[:, place], patch.flatten(1))
    assert from_patches(values * 5).min() >= 0 and from_patches(values * 5).max() <= 1


@pytest.mark.parametrize("make, loss", [(lambda: TokenPainter(9, CODES, causal=True, **TRUNK), in_order_loss),
                                        (lambda: TokenPainter(9, CODES, causal=False, **TRUNK), masked_loss)])
def test_a_painter_learns_what_its_prompt_says(make, loss, asked):
    """Two prompts, two pictures: after a little training each prompt gives its own."""
    torch.manual_seed(0)
    model, prompts = make(), torch.tensor([[1, 1, 1], [2, 2, 2]]).repeat(8, 1)
    ids = torch.tensor([[0, 1, 2, 3, 4, 0], [4, 4, 0, 0, 1, 3]]).repeat(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss(model, prompts, ids).backward()
        optimizer.step()
    model.eval()
    painted = (paint_in_order(model, prompts[:2], temperature=0) if loss is in_order_loss
               else paint_surest_first(model, prompts[:2], 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(painted, ids[:2])
