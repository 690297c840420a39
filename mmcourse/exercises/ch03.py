"""Exercises of chapter 03: a gradient through a step, how many codes really live, 64 tokens in 72 bytes."""
import torch

from mmcourse.exercises import register

# ---------------------------------------------------------------- the straight-through gradient

def straight_through(x: torch.Tensor, quantised: torch.Tensor) -> torch.Tensor:
    """The value of `quantised`, the gradient of `x` (Bengio et al. 2013)."""
    return x + (quantised - x).detach()


def _forgets_it(x, quantised):
    return quantised


def _stops_everything(x, quantised):
    return (x + quantised - x).detach()


def _detaches_the_wrong_one(x, quantised):
    return quantised + (x - quantised).detach()


def _detaches_x_only(x, quantised):
    return x + quantised - x.detach()


@register("03.straight_through", reference=straight_through, minutes=5, difficulty=2,
          wrong=[_forgets_it, _stops_everything, _detaches_the_wrong_one, _detaches_x_only],
          hint="x + (something) has the gradient of x if the something is a constant: .detach() makes it one.")
def check_straight_through(fn):
    codebook = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, -1.0]], requires_grad=True)
    x = torch.tensor([[0.2, 0.1], [2.5, -0.4]], requires_grad=True)
    quantised = codebook[[0, 2]]
    out = fn(x, quantised)
    assert torch.allclose(out, quantised), f"the values must be those of the codes, {quantised.tolist()}, not {out.tolist()}"
    assert out.requires_grad, "no gradient flows out of it: only the difference may be detached, not all"
    weight = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
    to_x, to_codes = torch.autograd.grad((out * weight).sum(), (x, codebook), allow_unused=True)
    assert to_x is not None, "no gradient reaches x: the encoder would never learn"
    assert torch.equal(to_x, weight), f"the gradient must reach x unchanged, {weight.tolist()}, not {to_x.tolist()}"
    assert to_codes is None or not to_codes.any(), "a gradient reaches the codebook too: it follows by averages, not by this path"


# ---------------------------------------------------------------- how many codes are really in use

def perplexity(ids: torch.Tensor, codes: int) -> float:
    """exp(entropy) of the codes' frequencies: K if all K are used alike, 1 if only one is used."""
    counts = torch.bincount(ids.flatten(), minlength=codes).double()
    p = counts[counts > 0] / counts.sum()
    return float((-(p * p.log()).sum()).exp())


def _counts_the_living(ids, codes):
    return float(len(ids.unique()))


def _two_to_the_nats(ids, codes):
    p = torch.bincount(ids.flatten(), minlength=codes).double() / ids.numel()
    p = p[p > 0]
    return float(2 ** -(p * p.log()).sum())


def _log_of_zero(ids, codes):
    p = torch.bincount(ids.flatten(), minlength=codes).double() / ids.numel()
    return float((-(p * p.log()).sum()).exp())


def _entropy_only(ids, codes):
    p = torch.bincount(ids.flatten(), minlength=codes).double() / ids.numel()
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
    for name, ids, codes, expected in cases:
        got = float(fn(ids, codes))
        assert abs(got - expected) < 1e-3, f"for {name} the answer is {expected:.4g}, but it is {got:.4g}"
    ids = torch.randint(0, 64, (5, 8, 8)) ** 2 // 64
    got, expected = float(fn(ids, 64)), perplexity(ids, 64)
    assert abs(got - expected) < 1e-3 * expected, f"for random ids the answer is {expected:.4g}, but it is {got:.4g}"


# ---------------------------------------------------------------- 64 tokens are 72 bytes

def pack(ids: torch.Tensor, bits: int = 9) -> bytes:
    """Token ids, written one after another with `bits` bits each, high bit first: 64 ids of 9 bits are 72 bytes."""
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
          hint="f'{i:09b}' writes an id as nine binary digits; cut the long string into eights and read each with int(s, 2).")
def check_pack(fn):
    def unpack(data, n, bits):
        digits = "".join(f"{byte:08b}" for byte in data)
        return [int(digits[k * bits:(k + 1) * bits] or "0", 2) for k in range(n)]

    cases = [("64 ids, all 511", torch.full((8, 8), 511), 9), ("64 ids, all 0", torch.zeros(8, 8, dtype=torch.long), 9),
             ("64 random ids", torch.randint(0, 512, (8, 8)), 9), ("the ids 1, 2, 300", torch.tensor([1, 2, 300]), 9),
             ("64 ids of 13 bits", torch.randint(0, 8192, (8, 8)), 13)]
    for name, ids, bits in cases:
        data, size = fn(ids, bits), -(-ids.numel() * bits // 8)
        assert isinstance(data, bytes), f"give bytes back, not {type(data).__name__}"
        assert len(data) == size, f"{name} with {bits} bits each are {size} bytes, but there are {len(data)}"
        back, sent = unpack(data, ids.numel(), bits), ids.flatten().tolist()
        k = next((k for k, (a, b) in enumerate(zip(sent, back, strict=True)) if a != b), None)
        assert k is None, f"{name}: id number {k} was {sent[k]} and is read back as {back[k]}"
