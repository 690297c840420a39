"""Exercises of chapter 07: noise and velocity, the perfect denoiser, samplers, guidance, FD of numbers."""
import torch

from mmcourse.diffusion import euler, heun
from mmcourse.exercises import register


def posterior_mean(x: torch.Tensor, t: float, data: torch.Tensor) -> torch.Tensor:
    """The perfect denoiser of a finite set: x (N, D), time t < 1, data (M, D) -> the expected
    data point (N, D)."""
    distances = torch.cdist(x, t * data).square()                      # (N, M)
    weights = torch.softmax(-distances / (2 * (1 - t) ** 2), dim=1)
    return weights @ data


def _ignores_time(x, t, data):
    return torch.softmax(-torch.cdist(x, data).square() / (2 * (1 - t) ** 2), dim=1) @ data


def _not_squared(x, t, data):
    return torch.softmax(-torch.cdist(x, t * data) / (2 * (1 - t) ** 2), dim=1) @ data


def _normalises_over_points(x, t, data):
    return torch.softmax(-torch.cdist(x, t * data).square() / (2 * (1 - t) ** 2), dim=0) @ data


@register("07.posterior_mean", reference=posterior_mean,
          wrong=[_ignores_time, _not_squared, _normalises_over_points], minutes=12, difficulty=2,
          hint="softmax over -|x - t d|^2 / (2 (1 - t)^2), then a weighted mean of the data")
def check_posterior_mean(fn):
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    out = fn(torch.zeros(1, 2), 0.5, data)
    assert out.shape == (1, 2), (
        f"for one point in the plane the answer has shape (1, 2), not {tuple(out.shape)}")
    assert torch.allclose(out, torch.zeros(1, 2), atol=1e-5), (
        "half-way between two data points the answer is their mean")
    out = fn(torch.randn(4, 2), 0.0, data + 3)
    assert torch.allclose(out, (data + 3).mean(0).expand(4, 2), atol=1e-4), \
        "at t = 0 there is only noise: wherever x is, the answer is the mean of all data"
    x = torch.tensor([[0.3, 0.0], [-0.2, 0.5]])
    expected = torch.tanh(x[:, 0] * 0.5 / 0.25)                        # two points: the softmax is a tanh
    out = fn(x, 0.5, data)
    assert torch.allclose(out[:, 0], expected, atol=1e-4), \
        f"x = 0.3, -0.2 at t = 0.5, data at -1, 1: {expected.tolist()} is right, {out[:, 0].tolist()} came"
    x, many = torch.randn(5, 3), torch.randn(40, 3)
    weights = torch.exp(-(x[:, None] - 0.7 * many[None]).square().sum(2) / (2 * 0.3**2))
    expected = weights @ many / weights.sum(1, keepdim=True)
    assert torch.allclose(fn(x, 0.7, many), expected, atol=1e-3), (
        "wrong for 5 random points and 40 data points at t = 0.7")


def noise_and_velocity(x: torch.Tensor, t: float, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a prediction of the data says of the rest: x = t data + (1 - t) noise, velocity = data - noise."""
    noise = (x - t * data) / (1 - t)
    return noise, data - noise


def _forgets_to_divide(x, t, data):
    noise = x - t * data
    return noise, data - noise


def _runs_backwards(x, t, data):
    noise = (x - t * data) / (1 - t)
    return noise, noise - data


@register("07.noise_and_velocity", reference=noise_and_velocity, wrong=[_forgets_to_divide, _runs_backwards],
          minutes=5,
          hint="solve x = t data + (1 - t) noise for the noise; the velocity is the line's derivative by t")
def check_noise_and_velocity(fn):
    data, noise = torch.randn(6, 2), torch.randn(6, 2)
    for t in (0.0, 0.25, 0.9):
        got = fn(t * data + (1 - t) * noise, t, data)
        assert len(got) == 2, "return two tensors: the noise, then the velocity"
        assert torch.allclose(got[0], noise, atol=1e-4), (
            f"at t = {t} the noise is not the one that was mixed in")
        assert torch.allclose(got[1], data - noise, atol=1e-4), f"at t = {t} the velocity is not data - noise"


def _late(velocity, x, steps):
    states = [x]
    for i in range(steps):
        states.append(states[-1] + velocity(states[-1], (i + 1) / steps) / steps)
    return states


def _one_too_few(velocity, x, steps):
    states = [x]
    for i in range(steps - 1):
        states.append(states[-1] + velocity(states[-1], i / steps) / steps)
    return states


def _never_moves_on(velocity, x, steps):
    return [x] + [x + velocity(x, i / steps) * (i + 1) / steps for i in range(steps)]


def _in_place(velocity, x, steps):
    states = [x]
    for i in range(steps):
        x += velocity(x, i / steps) / steps
        states.append(x)
    return states


@register("07.euler", reference=euler, wrong=[_late, _one_too_few, _never_moves_on, _in_place], minutes=8,
          hint="start with [x]; steps times: append the last state plus velocity(last, i / steps) / steps")
def check_euler(fn):
    for steps in (1, 4):
        times = []
        states = fn(lambda x, t, times=times: times.append(t) or torch.ones_like(x), torch.zeros(3), steps)
        assert len(states) == steps + 1, (
            f"{steps} steps visit {steps + 1} states, the start among them; got {len(states)}")
        assert torch.allclose(torch.tensor(times), torch.arange(steps) / steps), \
            f"{steps} steps ask for the velocity at {[i / steps for i in range(steps)]}, yours at {times}"
        assert torch.allclose(states[-1], torch.ones(3)), (
            f"velocity 1 for one unit of time leads from 0 to 1, not {states[-1]}")
    start = torch.ones(2)
    states = fn(lambda x, t: x, start, 4)
    assert torch.equal(start, torch.ones(2)), (
        "your function changed the tensor that it was given: add, but not in place")
    expected = torch.tensor([1.25**i for i in range(5)])
    got = torch.stack([s[0] for s in states])
    assert torch.allclose(got, expected), (
        f"velocity x from 1 in 4 steps: {expected.tolist()} is right, {got.tolist()} came")


def _two_eulers(velocity, x, steps):
    return euler(velocity, x, steps)


def _looks_at_the_old_place(velocity, x, steps):
    states = [x]
    for i in range(steps):
        first = velocity(states[-1], i / steps)
        second = velocity(states[-1], (i + 1) / steps) if i + 1 < steps else first
        states.append(states[-1] + (first + second) / (2 * steps))
    return states


def _forgets_the_half(velocity, x, steps):
    states = [x]
    for i in range(steps):
        first = velocity(states[-1], i / steps)
        second = velocity(states[-1] + first / steps, (i + 1) / steps) if i + 1 < steps else first
        states.append(states[-1] + (first + second) / steps)
    return states


def _asks_at_the_end(velocity, x, steps):
    states = [x]
    for i in range(steps):
        first = velocity(states[-1], i / steps)
        second = velocity(states[-1] + first / steps, (i + 1) / steps)
        states.append(states[-1] + (first + second) / (2 * steps))
    return states


@register("07.heun", reference=heun, minutes=10, difficulty=2,
          wrong=[_two_eulers, _looks_at_the_old_place, _forgets_the_half, _asks_at_the_end],
          hint="walk as Euler would, look at the arrow there, then walk by the mean of the two")
def check_heun(fn):
    times = []
    states = fn(lambda x, t: times.append(t) or torch.ones_like(x), torch.zeros(2), 3)
    assert len(states) == 4, f"3 steps visit 4 states, the start among them; got {len(states)}"
    assert max(times) < 1, "the velocity is not defined at t = 1: let the last step be Euler's"
    assert len(times) == 5, (
        f"3 steps ask for the velocity 5 times, the last step only once; yours asked {len(times)} times")
    assert torch.allclose(states[-1], torch.ones(2)), (
        f"velocity 1 for one unit of time leads from 0 to 1, not {states[-1]}")
    got = [s.item() for s in fn(lambda x, t: x, torch.ones(1), 2)]
    expected = [1.0, 1.625, 2.4375]  # 1 + (1 + 1.5) / 4, then one step of Euler
    assert torch.allclose(torch.tensor(got), torch.tensor(expected)), (
        f"velocity x from 1 in 2 steps: {expected}, {got} came")


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): from the velocity without the condition
    towards that with it."""
    if guidance < 0:
        raise ValueError(f"guidance is 0 (without the condition), 1 (with it) or more, got {guidance}")
    return unconditional + guidance * (conditional - unconditional)


def _starts_at_conditional(conditional, unconditional, guidance):
    if guidance < 0:
        raise ValueError("negative")
    return conditional + guidance * (conditional - unconditional)


def _wrong_way(conditional, unconditional, guidance):
    if guidance < 0:
        raise ValueError("negative")
    return conditional + guidance * (unconditional - conditional)


def _takes_anything(conditional, unconditional, guidance):
    return unconditional + guidance * (conditional - unconditional)


@register("07.guided", reference=guided, wrong=[_starts_at_conditional, _wrong_way, _takes_anything],
          minutes=5, hint="begin at `unconditional` and go `guidance` times the way to `conditional`")
def check_guided(fn):
    conditional, unconditional = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    for guidance, expected in ((0.0, unconditional), (1.0, conditional), (3.0, torch.tensor([4.0, -2.0]))):
        got = fn(conditional, unconditional, guidance)
        assert torch.allclose(got, expected), \
            (f"conditional (2, 0), unconditional (1, 1), guidance {guidance}: {expected.tolist()} is right, "
             f"{got.tolist()} came")
    try:
        fn(conditional, unconditional, -1.0)
    except ValueError:
        return
    raise AssertionError("guidance below 0 would run away from the condition: raise a ValueError")


def frechet_line(a: torch.Tensor, b: torch.Tensor) -> float:
    """The Frechet distance of two sets of numbers, (N,) and (M,), each seen as a bell curve."""
    return ((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2).item()


def _means_alone(a, b):
    return ((a.mean() - b.mean()) ** 2).item()


def _variances(a, b):
    return ((a.mean() - b.mean()) ** 2 + (a.var() - b.var()) ** 2).item()


def _paired(a, b):
    n = min(len(a), len(b))
    return (a[:n] - b[:n]).square().mean().item()


@register("07.frechet_line", reference=frechet_line, wrong=[_means_alone, _variances, _paired], minutes=5,
          hint="the square of the difference of the means, plus the square of the difference of the standard "
               "deviations")
def check_frechet_line(fn):
    a = torch.randn(1000)
    assert abs(fn(a, a.flip(0))) < 1e-6, (
        "the same numbers in another order are at distance 0: it compares sets, not pairs")
    assert abs(fn(a, a + 3) - 9) < 1e-3, "a shift by 3 is at distance 9"
    expected = (a.std() * 2).item() ** 2 + (a.mean() * 2).item() ** 2
    assert abs(fn(a, 3 * a) - expected) < 1e-3, (
        f"three times as wide: {expected:.3f} is right, {fn(a, 3 * a):.3f} came")
    assert abs(fn(a, torch.randn(300)) - fn(torch.randn(300), a)) < 1, (
        "sets of different sizes must be allowed")
