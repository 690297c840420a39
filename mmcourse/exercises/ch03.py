"""Exercises of chapter 03: the nearest code, a gradient through a step, a codebook that follows, how many codes
are in use, FSQ, pictures of any size."""
import math

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from mmcourse import quantize
from mmcourse.exercises import register

# ---------------------------------------------------------------- the nearest code

class _Counted(TorchFunctionMode):
    """Counts what is asked of torch: an answer that goes from vector to vector asks often."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def _squares(x, codebook):
    """All squared distances in float64: (N, d), (K, d) -> (N, K)."""
    return (x.double()[:, None] - codebook.double()).square().sum(2)


def _by_inner_product(x, codebook):
    return (x @ codebook.T).argmax(1)


def _by_angle(x, codebook):
    return (F.normalize(x, dim=1) @ F.normalize(codebook, dim=1).T).argmax(1)


def _farthest(x, codebook):
    return torch.cdist(x, codebook).argmax(1)


def _the_wrong_way_round(x, codebook):
    return torch.cdist(x, codebook).argmin(0)


def _half_the_square(x, codebook):
    return (codebook.square().sum(1) - x @ codebook.T).argmin(1)


def _plus_for_minus(x, codebook):
    return (codebook.square().sum(1) + 2 * x @ codebook.T).argmin(1)


def _length_without_square(x, codebook):
    return (codebook.norm(dim=1) - 2 * x @ codebook.T).argmin(1)


def _sum_of_absolute_differences(x, codebook):
    return (x[:, None] - codebook).abs().sum(2).argmin(1)


def _the_distances(x, codebook):
    return torch.cdist(x, codebook).min(1).values


def _the_codes(x, codebook):
    return codebook[torch.cdist(x, codebook).argmin(1)]


def _one_after_another(x, codebook):
    return torch.stack([(codebook - vector).square().sum(1).argmin() for vector in x])


@register("03.nearest_code", reference=quantize.nearest_code, minutes=10, difficulty=2,
          wrong=[_by_inner_product, _by_angle, _farthest, _the_wrong_way_round, _half_the_square,
                 _plus_for_minus, _length_without_square, _sum_of_absolute_differences, _the_distances,
                 _the_codes, _one_after_another],
          hint="|e|^2 is codebook.square().sum(1), of shape (K,); all the products x.e at once are x @ "
               "codebook.T, of shape (N, K). Add what the formula says, and take argmin over the codes.")
def check_nearest_code(fn):
    cases = [("one vector, three codes", torch.tensor([[1.0, 1.0]]), torch.tensor([[4.0, 4], [1, 0], [-6, 0]])),
             ("200 random vectors, 128 codes of 16 numbers", torch.randn(200, 16), torch.randn(128, 16)),
             ("200 random vectors, 64 codes of different lengths", torch.randn(200, 4),
              torch.randn(64, 4) * torch.linspace(0.2, 3, 64)[:, None]),
             ("20 random vectors, 300 codes of one number", torch.randn(20, 1), torch.randn(300, 1))]
    for name, x, codebook in cases:
        with _Counted() as counted:
            found = fn(x.clone(), codebook.clone())
        assert getattr(found, "dtype", None) == torch.int64, (
            "give whole numbers back, the codes' places in the codebook: a tensor of int64, not "
            f"{getattr(found, 'dtype', type(found).__name__)} (argmin gives it)")
        assert found.shape == (len(x),), (
            f"{name}: one id for each of the {len(x)} vectors, shape ({len(x)},), not {tuple(found.shape)}"
            + ("; you have one for each code: choose along the other axis" if found.shape == (len(codebook),)
               else ""))
        assert len(x) < 100 or counted.calls < 100, (
            f"{name}: right or not, that asks torch {counted.calls} times; without a Python loop a few "
            "operations do it for all vectors")
        squares = _squares(x, codebook)
        best, chosen = squares.min(1), squares.gather(1, found[:, None].clamp(0, len(codebook) - 1))[:, 0]
        slack = 8 * torch.finfo(torch.float32).eps * (x.double().square().sum(1)
                                                      + codebook.double().square().sum(1).max())
        wrong = (chosen > best.values + slack).nonzero().flatten().tolist()
        if wrong:
            i, why = wrong[0], ""
            if torch.equal(found, squares.argmax(1)):
                why = ": you choose the farthest"
            elif torch.equal(found, _by_inner_product(x, codebook)):
                why = ": the largest product x.e, and |e|^2 is missing: long codes win though they are far"
            elif torch.equal(found, _half_the_square(x, codebook)):
                why = ": there is 2 x.e in the formula, not x.e"
            raise AssertionError(
                f"{name}: vector {i} lies at a squared distance of {best.values[i]:.4g} from code "
                f"{int(best.indices[i])}, and you give it code {int(found[i])} at {chosen[i]:.4g}{why}")

# ---------------------------------------------------------------- the straight-through gradient

def straight_through(x: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """The value of `quantized`, the gradient of `x` (Bengio et al. 2013)."""
    return x + (quantized - x).detach()


def _forgets_it(x, quantized):
    return quantized


def _stops_everything(x, quantized):
    return (x + quantized - x).detach()


def _detaches_the_wrong_one(x, quantized):
    return quantized + (x - quantized).detach()


def _detaches_x_only(x, quantized):
    return x + quantized - x.detach()


@register("03.straight_through", reference=straight_through, minutes=4, difficulty=2,
          wrong=[_forgets_it, _stops_everything, _detaches_the_wrong_one, _detaches_x_only],
          hint="x + (something) has the gradient of x if the something is a constant: .detach() makes it "
               "one.")
def check_straight_through(fn):
    codebook = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, -1.0]], requires_grad=True)
    x = torch.tensor([[0.2, 0.1], [2.5, -0.4]], requires_grad=True)
    quantized = codebook[[0, 2]]
    out = fn(x, quantized)
    assert torch.allclose(out, quantized), (
        f"the values must be those of the codes, {quantized.tolist()}, not {out.tolist()}")
    assert out.requires_grad, "no gradient flows out of it: only the difference may be detached, not all"
    weight = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
    to_x, to_codes = torch.autograd.grad((out * weight).sum(), (x, codebook), allow_unused=True)
    assert to_x is not None, "no gradient reaches x: the encoder would never learn"
    assert torch.equal(to_x, weight), (
        f"the gradient must reach x unchanged, {weight.tolist()}, not {to_x.tolist()}")
    assert to_codes is None or not to_codes.any(), (
        "a gradient reaches the codebook too: it follows by averages, not by this path")


# ---------------------------------------------------------------- a codebook that follows

def ema_update(cluster_size: torch.Tensor, embed_sum: torch.Tensor, x: torch.Tensor, indices: torch.Tensor,
               decay: float = 0.98):
    """One step of the moving averages: (K,), (K, d), vectors (N, d), their codes (N,) -> the new (K,), (K, d), and
    the codebook (K, d), which is their quotient (van den Oord et al. 2017, appendix A.1)."""
    count = torch.bincount(indices, minlength=len(cluster_size))
    total = torch.zeros_like(embed_sum).index_add_(0, indices, x)
    cluster_size = decay * cluster_size + (1 - decay) * count
    embed_sum = decay * embed_sum + (1 - decay) * total
    return cluster_size, embed_sum, embed_sum / cluster_size.clamp(min=1e-5)[:, None]


def _parts(cluster_size, indices, x, embed_sum):
    """What this step brings: how many vectors chose each code, and their sums."""
    count = torch.bincount(indices, minlength=len(cluster_size))
    return count, torch.zeros_like(embed_sum).index_add_(0, indices, x)


def _weights_exchanged(cluster_size, embed_sum, x, indices, decay=0.98):
    return ema_update(cluster_size, embed_sum, x, indices, 1 - decay)


def _no_new_weight(cluster_size, embed_sum, x, indices, decay=0.98):
    count, total = _parts(cluster_size, indices, x, embed_sum)
    a, b = decay * cluster_size + count, decay * embed_sum + total
    return a, b, b / a.clamp(min=1e-5)[:, None]


def _only_the_last_of_equals(cluster_size, embed_sum, x, indices, decay=0.98):
    total = torch.zeros_like(embed_sum)
    total[indices] += x
    a = decay * cluster_size + (1 - decay) * torch.bincount(indices, minlength=len(cluster_size))
    b = decay * embed_sum + (1 - decay) * total
    return a, b, b / a.clamp(min=1e-5)[:, None]


def _means_for_sums(cluster_size, embed_sum, x, indices, decay=0.98):
    count, total = _parts(cluster_size, indices, x, embed_sum)
    a = decay * cluster_size + (1 - decay) * count
    b = decay * embed_sum + (1 - decay) * total / count.clamp(min=1)[:, None]
    return a, b, b / a.clamp(min=1e-5)[:, None]


def _the_rest_stands_still(cluster_size, embed_sum, x, indices, decay=0.98):
    a, b, book = ema_update(cluster_size, embed_sum, x, indices, decay)
    chosen = torch.bincount(indices, minlength=len(cluster_size)) > 0
    a, b = torch.where(chosen, a, cluster_size), torch.where(chosen[:, None], b, embed_sum)
    return a, b, b / a.clamp(min=1e-5)[:, None]


def _plain_k_means(cluster_size, embed_sum, x, indices, decay=0.98):
    a, b, _ = ema_update(cluster_size, embed_sum, x, indices, decay)
    count, total = _parts(cluster_size, indices, x, embed_sum)
    return a, b, total / count.clamp(min=1)[:, None]


def _averages_the_codes(cluster_size, embed_sum, x, indices, decay=0.98):
    a, b, _ = ema_update(cluster_size, embed_sum, x, indices, decay)
    count, total = _parts(cluster_size, indices, x, embed_sum)
    old = embed_sum / cluster_size.clamp(min=1e-5)[:, None]
    return a, b, decay * old + (1 - decay) * total / count.clamp(min=1)[:, None]


def _forgets_to_divide(cluster_size, embed_sum, x, indices, decay=0.98):
    a, b, _ = ema_update(cluster_size, embed_sum, x, indices, decay)
    return a, b, b


def _divides_by_nothing(cluster_size, embed_sum, x, indices, decay=0.98):
    a, b, _ = ema_update(cluster_size, embed_sum, x, indices, decay)
    return a, b, b / a[:, None]


def _too_few_counts(cluster_size, embed_sum, x, indices, decay=0.98):
    a = decay * cluster_size + (1 - decay) * torch.bincount(indices)
    b = decay * embed_sum + (1 - decay) * _parts(cluster_size, indices, x, embed_sum)[1]
    return a, b, b / a.clamp(min=1e-5)[:, None]


def _show(values: torch.Tensor) -> str:
    return str([round(v, 4) for v in values.flatten().tolist()])


def _why(name: str, what: str, got: torch.Tensor, right: torch.Tensor) -> str:
    """Both values if they are few, and the likeliest cause."""
    text = f", {_show(right)}, not {_show(got)}" if right.numel() < 5 else ""
    if name.startswith("two vectors") and what == "embed_sum":
        text += ("; the sum, not the mean" if torch.allclose(got, torch.tensor([[2.0], [5.75]])) else
                 "; `a[indices] += x` keeps one of the vectors that chose the same code: index_add_ adds all")
    if "nobody chose" in name and what != "codebook":
        text += "; a code that nobody chose adds 0 in this step, and what it had shrinks all the same"
        text += " (does bincount know how many codes there are? minlength)" if what == "cluster_size" else ""
    return text


@register("03.ema_update", reference=ema_update, minutes=12, difficulty=2,
          wrong=[_weights_exchanged, _no_new_weight, _only_the_last_of_equals, _means_for_sums,
                 _the_rest_stands_still, _plain_k_means, _averages_the_codes, _forgets_to_divide,
                 _divides_by_nothing, _too_few_counts],
          hint="torch.bincount(indices, minlength=K) counts; torch.zeros_like(embed_sum).index_add_(0, indices, x) "
               "adds each vector to the row of its code. Then new = decay * old + (1 - decay) * this step's.")
def check_ema_update(fn):
    def case(cluster_size, embed_sum, x, indices, decay):
        parts = [torch.tensor(v) for v in (cluster_size, embed_sum, x)]
        return *parts, torch.tensor(indices), decay

    many = (torch.rand(32) + 0.1, torch.randn(32, 4), torch.randn(500, 4), torch.randint(0, 32, (500,)), 0.98)
    cases = [("one vector, one code, decay 0.5", case([2.0], [[4.0, 0.0]], [[4.0, 2.0]], [0], 0.5)),
             ("two vectors that chose the same code", case([2.0, 2.0], [[2.0], [6.0]], [[1.0], [3.0], [5.0]], [0, 0, 1], 0.75)),
             ("a code that nobody chose", case([4.0, 1.0], [[4.0], [5.0]], [[3.0]], [0], 0.75)),
             ("the last code, which nobody chose", case([1.0, 2.0, 1.0], [[1.0], [2.0], [3.0]], [[1.0]], [1], 0.9)),
             ("a code whose use has sunk to zero", case([1.0, 0.0], [[1.0], [0.0]], [[3.0]], [0], 0.9)),
             ("500 vectors, 32 codes", many)]
    for name, (cluster_size, embed_sum, x, indices, decay) in cases:
        expected = ema_update(cluster_size, embed_sum, x, indices, decay)
        found = fn(cluster_size.clone(), embed_sum.clone(), x.clone(), indices.clone(), decay)
        assert isinstance(found, tuple | list) and len(found) == 3, (
            "give three tensors back: the new cluster_size, the new embed_sum, and the codebook")
        wanted = ("cluster_size", "decay * old + (1 - decay) * how many vectors chose the code in this step"), \
            ("embed_sum", "decay * old + (1 - decay) * the sum of the vectors that chose the code in this step"), \
            ("codebook", "the new embed_sum divided by the new cluster_size")
        for (what, rule), got, right in zip(wanted, found, expected, strict=True):
            assert isinstance(got, torch.Tensor) and got.shape == right.shape, (
                f"{name}: {what} has the shape {tuple(right.shape)}, not {tuple(getattr(got, 'shape', ()))}")
            assert bool(torch.isfinite(got).all()), (
                f"{name}: {what} is {_show(got)}: 0 / 0 is no number; .clamp(min=1e-5) what you divide by")
            if not torch.allclose(got.float(), right, atol=1e-5):
                raise AssertionError(f"{name}: {what} must be {rule}" + _why(name, what, got, right))


# ---------------------------------------------------------------- how many codes are really in use

def perplexity(ids: torch.Tensor, codebook_size: int) -> float:
    """exp(entropy) of the codes' frequencies: K if all K are used alike, 1 if only one is used."""
    counts = torch.bincount(ids.flatten(), minlength=codebook_size).double()
    p = counts[counts > 0] / counts.sum()
    return float((-(p * p.log()).sum()).exp())


def _counts_the_living(ids, codebook_size):
    return float(len(ids.unique()))


def _two_to_the_nats(ids, codebook_size):
    p = torch.bincount(ids.flatten(), minlength=codebook_size).double() / ids.numel()
    p = p[p > 0]
    return float(2 ** -(p * p.log()).sum())


def _log_of_zero(ids, codebook_size):
    p = torch.bincount(ids.flatten(), minlength=codebook_size).double() / ids.numel()
    return float((-(p * p.log()).sum()).exp())


def _entropy_only(ids, codebook_size):
    p = torch.bincount(ids.flatten(), minlength=codebook_size).double() / ids.numel()
    p = p[p > 0]
    return float(-(p * p.log()).sum())


@register("03.perplexity", reference=perplexity, minutes=5, difficulty=2,
          wrong=[_counts_the_living, _two_to_the_nats, _log_of_zero, _entropy_only],
          hint="Count with torch.bincount(ids.flatten()), divide by the sum, drop the zeros, exp(-sum p log p).")
def check_perplexity(fn):
    cases = [("eight codes used alike", torch.arange(64).reshape(1, 8, 8) % 8, 512, 8.0),
             ("one code only", torch.full((2, 8, 8), 3), 512, 1.0),
             ("all of four codes", torch.arange(4).reshape(1, 2, 2), 4, 4.0),
             ("frequencies 1/2, 1/4, 1/4", torch.tensor([[[0, 0], [5, 7]]]), 16, 2 ** 1.5)]
    for name, ids, codebook_size, expected in cases:
        got = float(fn(ids, codebook_size))
        assert abs(got - expected) < 1e-3, (
            f"for {name} the perplexity is {expected:.4g}, but you say {got:.4g}"
            + (": 0 times log 0; leave out the codes that do not occur" if got != got else
               ": that is the entropy; the perplexity is exp of it" if abs(got - math.log(expected)) < 1e-3 else ""))
    ids = torch.randint(0, 64, (5, 8, 8)) ** 2 // 64
    got, expected = float(fn(ids, 64)), perplexity(ids, 64)
    assert abs(got - expected) < 1e-3 * expected, (
        f"for random ids the answer is {expected:.4g}, but it is {got:.4g}")


# ---------------------------------------------------------------- rounding instead of a codebook

def fsq_ids(x: torch.Tensor, levels: tuple[int, ...]) -> torch.Tensor:
    """Each number squashed by tanh into 0 .. level - 1 and rounded; the digits make one id, the first counts
    least: (N, d), d levels -> (N,) int64 (Mentzer et al. 2023)."""
    sizes = torch.tensor(levels)
    digits = ((x.tanh() + 1) / 2 * (sizes - 1)).round().long()
    return (digits * (sizes.cumprod(0) // sizes)).sum(1)


def _one_level_too_many(x, levels):
    sizes = torch.tensor(levels)
    digits = ((x.tanh() + 1) / 2 * sizes).round().long()
    return (digits * (sizes.cumprod(0) // sizes)).sum(1)


def _no_squashing(x, levels):
    sizes = torch.tensor(levels)
    digits = ((x + 1) / 2 * (sizes - 1)).round().long()
    return (digits * (sizes.cumprod(0) // sizes)).sum(1)


def _cuts_instead_of_rounding(x, levels):
    sizes = torch.tensor(levels)
    digits = ((x.tanh() + 1) / 2 * (sizes - 1)).long()
    return (digits * (sizes.cumprod(0) // sizes)).sum(1)


def _first_counts_most(x, levels):
    return fsq_ids(x.flip(1), tuple(reversed(levels)))


def _one_base_for_all(x, levels):
    sizes = torch.tensor(levels)
    digits = ((x.tanh() + 1) / 2 * (sizes - 1)).round().long()
    return (digits * max(levels) ** torch.arange(len(levels))).sum(1)


@register("03.fsq", reference=fsq_ids, minutes=10, difficulty=2,
          wrong=[_one_level_too_many, _no_squashing, _cuts_instead_of_rounding, _first_counts_most,
                 _one_base_for_all],
          hint="(tanh(x) + 1) / 2 lies in 0 .. 1; times level - 1, rounded, it is a digit. With levels 8, 8, "
               "8 the digits are worth 1, 8 and 64: torch.tensor(levels).cumprod(0) // torch.tensor(levels).")
def check_fsq(fn):
    cases = [("x = (-9, -9, -9), levels 8, 8, 8", torch.full((1, 3), -9.0), (8, 8, 8)),
             ("x = (9, 9, 9), levels 8, 8, 8", torch.full((1, 3), 9.0), (8, 8, 8)),
             ("x = (9, -9, -9), levels 8, 8, 8", torch.tensor([[9.0, -9, -9]]), (8, 8, 8)),
             ("x = (-9, 9, 9), levels 5, 3, 2", torch.tensor([[-9.0, 9, 9]]), (5, 3, 2)),
             ("x = (1, 0.2), levels 5, 4", torch.tensor([[1.0, 0.2]]), (5, 4)),
             ("100 random vectors, levels 8, 8, 8, 4, 4", 1.5 * torch.randn(100, 5), (8, 8, 8, 4, 4))]
    for name, x, levels in cases:
        expected, got = fsq_ids(x, levels), fn(x, levels)
        assert getattr(got, "dtype", None) == torch.int64 and got.shape == (len(x),), (
            "give one integer id for each row")
        wrong = (got != expected).nonzero().flatten().tolist()
        assert not wrong, (
            f"for {name} the id is {int(expected[wrong[0]])}, not {int(got[wrong[0]])}"
            + (": the first digit counts least, not most" if torch.equal(got, _first_counts_most(x, levels)) else
               ": the largest digit of L levels is L - 1" if (got >= math.prod(levels)).any() else ""))


# ---------------------------------------------------------------- pictures of any size

def any_size(tokenizer, image: torch.Tensor) -> torch.Tensor:
    """A picture of any size through a tokenizer of 8x8 patches: (3, H, W) -> the same shape. Its last row and
    column are repeated up to a multiple of 8, and what was added is cut off again."""
    H, W = image.shape[1:]
    padded = F.pad(image[None], (0, -W % 8, 0, -H % 8), mode="replicate")
    return tokenizer.decode(tokenizer.encode(padded))[0, :, :H, :W]


def _pads_with_black(tokenizer, image):
    H, W = image.shape[1:]
    return tokenizer.decode(tokenizer.encode(F.pad(image[None], (0, -W % 8, 0, -H % 8))))[0, :, :H, :W]


def _keeps_the_padding(tokenizer, image):
    H, W = image.shape[1:]
    return tokenizer.decode(tokenizer.encode(F.pad(image[None], (0, -W % 8, 0, -H % 8), mode="replicate")))[0]


def _pads_what_fits_already(tokenizer, image):
    H, W = image.shape[1:]
    padded = F.pad(image[None], (0, 8 - W % 8, 0, 8 - H % 8), mode="replicate")
    return tokenizer.decode(tokenizer.encode(padded))[0, :, :H, :W]


def _swaps_the_sides(tokenizer, image):
    H, W = image.shape[1:]
    padded = F.pad(image[None], (0, -H % 8, 0, -W % 8), mode="replicate")
    return tokenizer.decode(tokenizer.encode(padded))[0, :, :H, :W]


def _cuts_off_what_is_over(tokenizer, image):
    H, W = (side // 8 * 8 for side in image.shape[1:])
    return tokenizer.decode(tokenizer.encode(image[None, :, :H, :W]))[0]


class _Glass:
    """A tokenizer that loses nothing, and remembers what it was given."""

    def encode(self, images):
        shape = tuple(images.shape)
        assert len(shape) == 4 and shape[1] == 3, (
            f"the tokenizer takes a batch (B, 3, H, W), and was given {shape}")
        assert shape[2] % 8 == 0 and shape[3] % 8 == 0, (
            f"the tokenizer takes multiples of 8, and was given {shape[2:]}")
        self.seen = images.clone()
        return torch.zeros(shape[0], shape[2] // 8, shape[3] // 8, dtype=torch.long)

    def decode(self, ids):
        return self.seen


@register("03.any_size", reference=any_size, minutes=8, difficulty=2,
          wrong=[_pads_with_black, _keeps_the_padding, _pads_what_fits_already, _swaps_the_sides,
                 _cuts_off_what_is_over],
          hint="-W % 8 columns are missing. F.pad(image[None], (left, right, top, bottom), mode='replicate') "
               "adds them.")
def check_any_size(fn):
    for H, W in ((64, 64), (61, 64), (20, 35), (8, 3), (1, 1)):
        glass, image = _Glass(), torch.rand(3, H, W)
        out = fn(glass, image)
        assert tuple(out.shape) == (3, H, W), (
            f"{H}x{W} pixels go in, so {H}x{W} must come out, not {tuple(out.shape[-2:])}")
        assert torch.equal(out, image), f"{H}x{W}: the picture itself was moved or changed"
        h, w = -(-H // 8) * 8, -(-W // 8) * 8
        assert glass.seen.shape[2:] == (h, w), (
            f"{H}x{W} needs {h}x{w}, but the tokenizer got {tuple(glass.seen.shape[2:])}")
        bottom, right = image[:, -1:].expand(-1, h - H, -1), image[:, :, -1:].expand(-1, -1, w - W)
        assert torch.equal(glass.seen[0, :, H:, :W], bottom) and torch.equal(glass.seen[0, :, :H, W:],
                                                                             right), \
            f"{H}x{W}: what is added must repeat the last row and column; black is a strange edge to encode"
