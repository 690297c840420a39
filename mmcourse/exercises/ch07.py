"""Exercises of chapter 07: noise and velocity, the perfect denoiser, samplers, the two losses, guidance, FD of numbers."""
import torch

from mmcourse.diffusion import decoder_loss, enlarge, euler, flow_loss, heun, interpolate
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
          wrong=[_ignores_time, _not_squared, _normalises_over_points], minutes=8, difficulty=2,
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
          minutes=3,
          hint="solve x = t data + (1 - t) noise for the noise; the velocity is the line's derivative by t")
def check_noise_and_velocity(fn):
    data, noise = torch.randn(6, 2), torch.randn(6, 2)
    for t in (0.0, 0.25, 0.9):
        got = fn(t * data + (1 - t) * noise, t, data)
        assert isinstance(got, tuple | list) and len(got) == 2, "return two tensors: the noise, then the velocity"
        assert torch.allclose(got[0], noise, atol=1e-4), (
            f"at t = {t} the noise is not the one that was mixed in: put yours into interpolate, and x must come out")
        assert torch.allclose(noise + got[1], data, atol=1e-4), (
            f"at t = {t}: walking from the noise with your velocity for one unit of time does not end at the data")


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


@register("07.euler", reference=euler, wrong=[_late, _one_too_few, _never_moves_on, _in_place], minutes=4,
          hint="start with [x]; steps times: append the last state plus velocity(last, i / steps) / steps")
def check_euler(fn):
    for steps in (1, 4):
        times = []
        states = fn(lambda x, t, times=times: times.append(t) or torch.ones_like(x), torch.zeros(3), steps)
        assert len(states) == steps + 1, (
            f"with steps = {steps} there are {steps + 1} states, the start among them; got {len(states)}")
        assert torch.allclose(torch.tensor(times), torch.arange(steps) / steps), \
            f"with steps = {steps} ask for the velocity at {[i / steps for i in range(steps)]}, yours at {times}"
        assert torch.allclose(states[-1], torch.ones(3)), (
            f"velocity 1 for one unit of time leads from 0 to 1, not to {states[-1][0]:.3f}")
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


def _looks_at_the_old_time(velocity, x, steps):
    states = [x]
    for i in range(steps):
        first = velocity(states[-1], i / steps)
        ahead = states[-1] + first / steps
        if i + 1 < steps:
            ahead = states[-1] + (first + velocity(ahead, i / steps)) / (2 * steps)
        states.append(ahead)
    return states


@register("07.heun", reference=heun, minutes=6, difficulty=2,
          wrong=[_two_eulers, _looks_at_the_old_place, _looks_at_the_old_time, _forgets_the_half, _asks_at_the_end],
          hint="walk as Euler would, look at the arrow there, then walk by the mean of the two")
def check_heun(fn):
    times = []
    states = fn(lambda x, t: times.append(t) or torch.ones_like(x), torch.zeros(2), 3)
    assert len(states) == 4, f"3 steps visit 4 states, the start among them; got {len(states)}"
    assert max(times) < 1, "the velocity is not defined at t = 1: let the last step be Euler's"
    assert len(times) == 5, (
        f"3 steps ask for the velocity 5 times, the last step only once; yours asked {len(times)} times")
    assert torch.allclose(torch.tensor(times), torch.tensor([0, 1, 1, 2, 2]) / 3), (
        "the second arrow of step i is that of time (i + 1) / steps, where the step ends: 3 steps ask at "
        f"0, 1/3, 1/3, 2/3, 2/3, yours at {', '.join(f'{t:.2f}' for t in times)}")
    assert torch.allclose(states[-1], torch.ones(2)), (
        f"velocity 1 for one unit of time leads from 0 to 1, not to {states[-1][0]:.3f}: each step begins at the last "
        "state and goes by the mean of two arrows, not by their sum")
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
          minutes=2, hint="begin at `unconditional` and go `guidance` times the way to `conditional`")
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


def _divides_by_n(a, b):
    return ((a.mean() - b.mean()) ** 2 + (a.std(correction=0) - b.std(correction=0)) ** 2).item()


@register("07.frechet_line", reference=frechet_line, wrong=[_means_alone, _variances, _paired, _divides_by_n],
          minutes=3, hint="the square of the difference of the means, plus the square of the difference of the standard "
                          "deviations (`torch.std`)")
def check_frechet_line(fn):
    a = torch.randn(40)
    assert abs(fn(a, a.flip(0))) < 1e-6, (
        "the same numbers in another order are at distance 0: it compares sets, not pairs")
    assert abs(fn(a, a + 3) - 9) < 1e-3, (
        f"a shift by 3 is at distance 9, the square of the means' difference: {fn(a, a + 3):.3f} came")
    got, expected = fn(a, 3 * a), (a.std() * 2).item() ** 2 + (a.mean() * 2).item() ** 2
    why = "" if abs(got - _divides_by_n(a, 3 * a)) > 1e-3 else " (use `torch.std`, which divides by n - 1)"
    why = " (compare standard deviations, not variances)" if abs(got - _variances(a, 3 * a)) < 1e-3 else why
    assert abs(got - expected) < 1e-3, f"three times as wide: {expected:.3f} is right, {got:.3f} came{why}"
    assert abs(fn(a, torch.randn(300)) - fn(torch.randn(300), a)) < 1, (
        "sets of different sizes must be allowed")


# ---------------------------------------------------------------- the losses

class _Watched:
    """A model that notes what it is asked, and answers with half of x plus a weight that is 0."""

    def __init__(self, scale: int = 1):
        self.residual_std, self.scale, self.asked = 0.2, scale, []
        self.weight = torch.zeros((), requires_grad=True)

    def __call__(self, x, t, *condition):
        self.asked.append((x, t, condition))
        return 0.5 * x + self.weight

    def noise(self, data: torch.Tensor) -> torch.Tensor:
        """That of the first call, if its x lies on the road to these data; where t < 0.9."""
        x, t, _ = self.asked[0]
        early = t < 0.9
        t = t[early].view(-1, *[1] * (data.ndim - 1))
        return (x[early] - t * data[early]) / (1 - t)

    def reaches(self, data: torch.Tensor) -> bool:
        """Whether x = t data + (1 - t) noise, noise of variance 1 that has nothing to do with the data."""
        noise, early = self.noise(data), self.asked[0][1] < 0.9
        together = (noise * (data[early] - data[early].mean())).mean().abs()
        return abs(noise.std() - 1) < 0.05 and noise.mean().abs() < 0.05 and together < 0.1 * data.std() + 0.02


def _check_the_call(model: _Watched, data: torch.Tensor) -> None:
    assert model.asked, "your loss never calls the model"
    x, t, _ = model.asked[0]
    assert isinstance(t, torch.Tensor) and t.shape == data.shape[:1], (
        f"the model takes a time for each example, t of shape ({len(data)},), not {tuple(getattr(t, 'shape', ()))}")
    assert x.shape == data.shape, f"the model takes x of the shape of the data, {tuple(data.shape)}, not {tuple(x.shape)}"
    assert 0 <= t.min() and t.max() <= 1, "times lie between 0 and 1"
    assert t.std() > 0.2, "draw a time for each example, uniform between 0 and 1 (torch.rand)"


def _check_the_value(model: _Watched, data: torch.Tensor, loss: torch.Tensor) -> None:
    x, t, _ = model.asked[0]
    error = (0.5 * x - data).flatten(1)
    left = (1 - t)[:, None]
    assert isinstance(loss, torch.Tensor) and loss.ndim == 0, "return one number, a tensor of shape (): take the mean"
    held = left.clamp(min=0.25)
    noise = (x - t.view(-1, *[1] * (x.ndim - 1)) * data).flatten(1) / left
    slipped = (((0.5 * x).flatten(1) - noise) / held).square().mean()
    slips = {"every error counts the same: divide it by 1 - t, held at 0.25 or more": error.square().mean(),
             "hold 1 - t at 0.25 or more (clamp), or the last moments rule the loss": (error / left).square().mean(),
             "divide the error first and square then": (error.square() / held).mean(),
             "you divide by t: it is 1 - t, the time that is left": (error / t[:, None].clamp(min=0.25)).square().mean(),
             "compare the prediction with the data, not with the noise": slipped,
             "take the mean, not the sum": (error / held).square().sum(),
             "take the squared error, not the absolute one": (error / held).abs().mean()}
    expected = (error / held).square().mean()
    if not torch.allclose(loss, expected, rtol=1e-3):
        slip = next((why for why, value in slips.items() if torch.allclose(loss, value, rtol=1e-3)),
                    "square(error / (1 - t).clamp(min=0.25)), and then the mean")
        raise AssertionError(f"the loss is {expected.item():.4f}, not {loss.item():.4f}: {slip}")
    assert loss.requires_grad, "the loss must lead back to the model's weights: no `no_grad`, `detach` or `item`"


def _one_time_for_all(model, data, *condition):
    t, noise = torch.rand(1).expand(len(data)), torch.randn_like(data)
    error = model(interpolate(data, noise, t), t, *condition) - data
    return (error / (1 - t).clamp(min=0.25).view(-1, *[1] * (data.ndim - 1))).square().mean()


def _weighs_nothing(model, data, *condition):
    t, noise = torch.rand(len(data)), torch.randn_like(data)
    return (model(interpolate(data, noise, t), t, *condition) - data).square().mean()


def _lets_the_end_rule(model, data, *condition):
    t, noise = torch.rand(len(data)), torch.randn_like(data)
    error = model(interpolate(data, noise, t), t, *condition) - data
    return (error / (1 - t).view(-1, *[1] * (data.ndim - 1))).square().mean()


def _goes_the_other_way(model, data, *condition):
    t, noise = torch.rand(len(data)), torch.randn_like(data)
    error = model(interpolate(noise, data, t), t, *condition) - data
    return (error / (1 - t).clamp(min=0.25).view(-1, *[1] * (data.ndim - 1))).square().mean()


def _shows_the_answer(model, data, *condition):
    t = torch.rand(len(data))
    error = model(data, t, *condition) - data
    return (error / (1 - t).clamp(min=0.25).view(-1, *[1] * (data.ndim - 1))).square().mean()


def _compares_with_the_noise(model, data, *condition):
    t, noise = torch.rand(len(data)), torch.randn_like(data)
    error = model(interpolate(data, noise, t), t, *condition) - noise
    return (error / (1 - t).clamp(min=0.25).view(-1, *[1] * (data.ndim - 1))).square().mean()


def _tells_nothing(model, data, *condition):
    return flow_loss(model, data)


def _adds_up(model, data, *condition):
    return flow_loss(model, data, *condition) * data.numel()


def _draws_from_a_box(model, data, *condition):
    t, noise = torch.rand(len(data)), torch.rand_like(data)
    error = model(interpolate(data, noise, t), t, *condition) - data
    return (error / (1 - t).clamp(min=0.25).view(-1, *[1] * (data.ndim - 1))).square().mean()


@register("07.flow_loss", reference=flow_loss, minutes=10, difficulty=2,
          wrong=[_one_time_for_all, _weighs_nothing, _lets_the_end_rule, _goes_the_other_way, _shows_the_answer,
                 _compares_with_the_noise, _tells_nothing, _adds_up, _draws_from_a_box],
          hint="t = torch.rand(B), noise = torch.randn_like(data); error = model(interpolate(...), t, *condition) - data; "
               "divide it by (1 - t).clamp(min=0.25), with as many axes as the data")
def check_flow_loss(fn):
    for shape in ((4000, 2), (600, 3, 4, 4)):
        model, data = _Watched(), torch.randn(shape) * 2 + 3
        told = torch.randn(5), torch.randn(7)
        loss = fn(model, data, *told)
        _check_the_call(model, data)
        condition = model.asked[0][2]
        assert len(condition) == 2 and all(a is b or torch.equal(a, b) for a, b in zip(condition, told)), (
            "hand the condition on: model(x, t, *condition)")
        assert not torch.allclose(model.asked[0][0], data), "you show the model the clean data: mix them with noise first"
        assert model.reaches(data), (
            "the model must see x = interpolate(data, noise, t): noise at t = 0, data at t = 1, noise from torch.randn_like")
        _check_the_value(model, data, loss)


def _paints_whole_pictures(model, images, plain, codes):
    return flow_loss(model, images / model.residual_std, plain, codes)


def _forgets_the_unit(model, images, plain, codes):
    return flow_loss(model, images - enlarge(plain, model.scale), plain, codes)


def _multiplies_by_the_unit(model, images, plain, codes):
    return flow_loss(model, (images - enlarge(plain, model.scale)) * model.residual_std, plain, codes)


def _from_true_to_plain(model, images, plain, codes):
    return flow_loss(model, (enlarge(plain, model.scale) - images) / model.residual_std, plain, codes)


def _tells_no_picture(model, images, plain, codes):
    return flow_loss(model, (images - enlarge(plain, model.scale)) / model.residual_std, codes)


def _tells_the_truth(model, images, plain, codes):
    return flow_loss(model, (images - enlarge(plain, model.scale)) / model.residual_std, images, codes)


def _enlarges_what_it_tells(model, images, plain, codes):
    large = enlarge(plain, model.scale)
    return flow_loss(model, (images - large) / model.residual_std, large, codes)


def _knows_one_size(model, images, plain, codes):
    return flow_loss(model, (images - plain) / model.residual_std, plain, codes)


def _no_noise(model, images, plain, codes):
    data = (images - enlarge(plain, model.scale)) / model.residual_std
    t = torch.rand(len(data))
    return (model(torch.zeros_like(data), t, plain, codes) - data).square().mean()


@register("07.decoder_loss", reference=decoder_loss, minutes=8, difficulty=2,
          wrong=[_paints_whole_pictures, _forgets_the_unit, _multiplies_by_the_unit, _from_true_to_plain,
                 _tells_no_picture, _tells_the_truth, _enlarges_what_it_tells, _knows_one_size, _no_noise],
          hint="the data are what the plain picture, enlarged by model.scale, lacks, divided by model.residual_std; then "
               "flow_loss with plain and codes as the condition")
def check_decoder_loss(fn):
    for scale in (1, 2):
        model, plain, codes = _Watched(scale), torch.rand(300, 3, 8, 8), torch.randn(300, 16, 1, 1)
        images = torch.rand(300, 3, 8 * scale, 8 * scale)
        error = images - enlarge(plain, scale)
        try:
            loss = fn(model, images, plain, codes)
        except RuntimeError as problem:
            if scale == 1:
                raise
            raise AssertionError(f"with model.scale = 2 the images are twice as large as the plain picture: enlarge(plain, "
                                 f"model.scale) before you subtract ({problem})") from None
        data = error / model.residual_std
        _check_the_call(model, data)
        condition = model.asked[0][2]
        assert len(condition) == 2, f"the model is told two things, plain and codes, not {len(condition)}"
        if condition[0].shape == images.shape:
            assert not torch.equal(condition[0], images), "you tell the model the true picture: when it paints, nobody has that"
        assert condition[0].shape == plain.shape and torch.equal(condition[0], plain), (
            "the model is told the plain picture as it is, not enlarged and not changed")
        assert torch.equal(condition[1], codes), "the second condition is `codes`"
        slips = {"the flow paints what the plain picture lacks, images - plain, not whole pictures": images / model.residual_std,
                 "divide the error by model.residual_std": error,
                 "divide by model.residual_std, do not multiply": error * model.residual_std,
                 "images minus plain, not plain minus images: what must be *added* to the plain picture": -data}
        if not model.reaches(data):
            why = next((why for why, other in slips.items() if model.reaches(other)),
                       "x = interpolate(data, noise, t) with data = (images - enlarged plain) / residual_std")
            raise AssertionError(f"the model does not stand on the road to the right data: {why}")
        _check_the_value(model, data, loss)
