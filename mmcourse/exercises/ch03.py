"""Exercises of chapter 03: a gradient through a step, codes alive and dead, FSQ, 64 tokens in 72 bytes, any
size."""
import torch
import torch.nn.functional as F

from mmcourse.exercises import register

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


@register("03.straight_through", reference=straight_through, minutes=5, difficulty=2,
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


@register("03.perplexity", reference=perplexity, minutes=8, difficulty=2,
          wrong=[_counts_the_living, _two_to_the_nats, _log_of_zero, _entropy_only],
          hint="Count with torch.bincount, divide by the sum, drop the zeros, exp(-sum p log p).")
def check_perplexity(fn):
    cases = [("eight codes used alike", torch.arange(64).reshape(1, 8, 8) % 8, 512, 8.0),
             ("one code only", torch.full((2, 8, 8), 3), 512, 1.0),
             ("all of four codes", torch.arange(4).reshape(1, 2, 2), 4, 4.0),
             ("frequencies 1/2, 1/4, 1/4", torch.tensor([[[0, 0], [5, 7]]]), 16, 2 ** 1.5)]
    for name, ids, codebook_size, expected in cases:
        got = float(fn(ids, codebook_size))
        assert abs(got - expected) < 1e-3, f"for {name} the answer is {expected:.4g}, but it is {got:.4g}"
    ids = torch.randint(0, 64, (5, 8, 8)) ** 2 // 64
    got, expected = float(fn(ids, 64)), perplexity(ids, 64)
    assert abs(got - expected) < 1e-3 * expected, (
        f"for random ids the answer is {expected:.4g}, but it is {got:.4g}")


# ---------------------------------------------------------------- which codes are dead

def dead_codes(cluster_size: torch.Tensor, tokens: int, dead_below: float = 0.03) -> torch.Tensor:
    """Codes used less than `dead_below` of a fair share of a step's `tokens`: (K,) uses -> (K,) bool."""
    return cluster_size < dead_below * tokens / len(cluster_size)


def _fixed_threshold(cluster_size, tokens, dead_below=0.03):
    return cluster_size < 1


def _never_used(cluster_size, tokens, dead_below=0.03):
    return cluster_size == 0


def _forgets_the_codes(cluster_size, tokens, dead_below=0.03):
    return cluster_size < dead_below * tokens


def _forgets_the_tokens(cluster_size, tokens, dead_below=0.03):
    return cluster_size < dead_below / len(cluster_size)


def _the_living(cluster_size, tokens, dead_below=0.03):
    return cluster_size >= dead_below * tokens / len(cluster_size)


@register("03.dead", reference=dead_codes, minutes=5, difficulty=1,
          wrong=[_fixed_threshold, _never_used, _forgets_the_codes, _forgets_the_tokens, _the_living],
          hint="If all K codes shared the tokens of a step alike, how many would each get? Compare with 3 % "
               "of that.")
def check_dead(fn):
    small = torch.tensor([0.0, 0.01, 0.05, 0.08, 2.0, 1022.0] + [0.5] * 506)
    few = torch.tensor([0.7, 0.8, 40.0, 58.5])
    many = torch.cat([torch.zeros(7), torch.full((65529,), 0.0156)])
    cases = [("512 codes, 1,024 tokens a step", small, 1024, 0.03),
             ("512 codes, 10 % of a fair share", small, 1024, 0.1),
             ("65,536 codes, 1,024 tokens a step", many, 1024, 0.03),
             ("4 codes, 100 tokens a step", few, 100, 0.03)]
    for name, counts, tokens, least in cases:
        expected, got = dead_codes(counts, tokens, least), fn(counts, tokens, least)
        assert getattr(got, "dtype", None) == torch.bool and got.shape == counts.shape, \
            f"give one True or False for each of the {len(counts)} codes"
        assert torch.equal(got, expected), (
            f"for {name}, {int(expected.sum())} are dead, but you find {int(got.sum())}")


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
        assert not wrong, f"for {name} the id is {int(expected[wrong[0]])}, not {int(got[wrong[0]])}"


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


# ---------------------------------------------------------------- 64 tokens are 72 bytes

def pack(ids: torch.Tensor, bits: int = 9) -> bytes:
    """Token ids, written one after another with `bits` bits each, high bit first: 64 ids of 9 bits are 72
    bytes."""
    digits = "".join(f"{i:0{bits}b}" for i in ids.flatten().tolist())
    digits += "0" * (-len(digits) % 8)                                 # the last byte is filled up with zeros
    return int("1" + digits, 2).to_bytes(len(digits) // 8 + 1, "big")[1:]


def _two_bytes_each(ids, bits=9):
    return b"".join(i.to_bytes(2, "big") for i in ids.flatten().tolist())


def _drops_the_ninth_bit(ids, bits=9):
    return bytes(i % 256 for i in ids.flatten().tolist()) + bytes(8)


def _forgets_leading_zeros(ids, bits=9):
    digits = "".join(f"{i:b}" for i in ids.flatten().tolist())
    return int("1" + digits + "0" * (-len(digits) % 8), 2).to_bytes(len(digits) // 8 + 2, "big")[1:]


def _low_bit_first(ids, bits=9):
    digits = "".join(f"{i:0{bits}b}"[::-1] for i in ids.flatten().tolist())
    digits += "0" * (-len(digits) % 8)
    return int("1" + digits, 2).to_bytes(len(digits) // 8 + 1, "big")[1:]


@register("03.pack", reference=pack, minutes=10, difficulty=2,
          wrong=[_two_bytes_each, _drops_the_ninth_bit, _forgets_leading_zeros, _low_bit_first],
          hint="f'{i:09b}' writes an id as nine binary digits; cut the long string into eights and read each "
               "with int(s, 2).")
def check_pack(fn):
    def unpack(data, n, bits):
        digits = "".join(f"{byte:08b}" for byte in data)
        return [int(digits[k * bits:(k + 1) * bits] or "0", 2) for k in range(n)]

    cases = [("64 ids, all 511", torch.full((8, 8), 511), 9),
             ("64 ids, all 0", torch.zeros(8, 8, dtype=torch.long), 9),
             ("64 random ids", torch.randint(0, 512, (8, 8)), 9),
             ("the ids 1, 2, 300", torch.tensor([1, 2, 300]), 9),
             ("64 ids of 13 bits", torch.randint(0, 8192, (8, 8)), 13)]
    for name, ids, bits in cases:
        data, size = fn(ids, bits), -(-ids.numel() * bits // 8)
        assert isinstance(data, bytes), f"give bytes back, not {type(data).__name__}"
        assert len(data) == size, f"{name} with {bits} bits each are {size} bytes, but there are {len(data)}"
        back, sent = unpack(data, ids.numel(), bits), ids.flatten().tolist()
        k = next((k for k, (a, b) in enumerate(zip(sent, back, strict=True)) if a != b), None)
        assert k is None, f"{name}: id number {k} was {sent[k]} and is read back as {back[k]}"
