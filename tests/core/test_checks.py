"""One verdict for ids, seeds and numbers, whichever model is asked."""
import numpy as np
import pytest
import torch

from mmcourse.checks import MOST_STEPS, check_seed, whole
from mmcourse.codec import AudioCodec
from mmcourse.diffusion import FlowDecoder
from mmcourse.generate import check_filter, generate
from mmcourse.rerank import MOST_DRAFTS, check_best_of
from mmcourse.sound_decoder import SoundDecoder
from mmcourse.vqvae import VQVAE

WIDTHS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")


@pytest.fixture(scope="module")
def decoders():
    """{name: ids -> what is decoded} of all that decode, each with 16 codes."""
    torch.manual_seed(0)
    vqvae = VQVAE(codebook_size=16, dim=4, width=16).eval()
    codec = AudioCodec(width=16, dim=8, codebook_size=16, levels=1).eval()
    flow = FlowDecoder(code_dim=4, width=16, depth=1, time=16)
    sound = SoundDecoder(code_dim=8, width=16, time=16)
    return {"vqvae": vqvae.decode, "flow": lambda ids: flow.decode(ids, vqvae, 1),
            "codec": codec.decode, "sound": lambda ids: sound.decode(ids, codec, 1)}


def grid(name: str, value: int = 3, dtype: str = "int64") -> torch.Tensor:
    return torch.full((1, 2, 2) if name in ("vqvae", "flow") else (1, 2, 1), value).to(getattr(torch, dtype))


NAMES = ("vqvae", "flow", "codec", "sound")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", WIDTHS)
def test_ids_of_any_width_are_decoded_alike(decoders, name, dtype):
    assert torch.equal(decoders[name](grid(name, dtype=dtype)), decoders[name](grid(name)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad, error, says", [
    (None, ValueError, "not empty; got NoneType"),
    (lambda x: x.float(), TypeError, "whole numbers, a tensor of integers, got torch.float32"),
    (lambda x: x.bool(), TypeError, "got torch.bool"),
    (lambda x: x.to(torch.complex64), TypeError, "got torch.complex64"),
    (lambda x: x.to("meta"), ValueError, "got a meta one"),
    (lambda x: x.to_sparse(), ValueError, "got a sparse one"),
    (lambda x: x[:, :0], ValueError, r"shape \(B, .*not empty; got shape \(1, 0, "),
    (lambda x: x[:, :, :0], ValueError, "not empty; got shape"),
    (lambda x: x[0, 0], ValueError, "a tensor of integers, shape"),
    (lambda x: x + 13, ValueError, r"ids lie in 0\.\.15, got 16\.\.16"),
    (lambda x: -x, ValueError, r"ids lie in 0\.\.15, got -3"),
    (lambda x: (x + 300).to(torch.uint16), ValueError, r"ids lie in 0\.\.15, got 303"),
    (lambda x: torch.full_like(x, -1).to(torch.uint64), ValueError, r"ids lie in 0\.\.15"),
])
def test_what_are_no_ids_get_one_verdict(decoders, name, bad, error, says):
    with pytest.raises(error, match=says):
        decoders[name](bad if bad is None else bad(grid(name)))


@pytest.mark.parametrize("number, expected", [(3, 3), (np.int64(3), 3), (np.uint8(3), 3), (torch.tensor(3), 3), (True, None),
                                              (np.bool_(True), None), (3.0, None), ("3", None), (None, None), (np.arange(2), None)])
def test_whole_numbers_of_every_kind(number, expected):
    assert whole(number) == expected


@pytest.mark.parametrize("seed", [None, 0, 3, np.int64(3), np.uint32(7), 2**63 - 1])
def test_seeds(seed):
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.5, "1", True, float("nan")])
def test_what_is_no_seed(seed):
    with pytest.raises(ValueError, match="seed is a whole number from 0 to 2.63 - 1, or None for another answer each time; got"):
        check_seed(seed)


def test_numbers_of_numpy_are_numbers(decoders):
    vqvae = VQVAE(codebook_size=16, dim=4, width=16).eval()
    flow = FlowDecoder(code_dim=4, width=16, depth=1, time=16)
    same = flow.decode(grid("flow"), vqvae, 2, 3)
    assert torch.equal(flow.decode(grid("flow"), vqvae, np.int64(2), np.int64(3)), same)
    check_best_of(np.int64(8))
    check_filter(np.int64(5), np.float64(0.5))
    with pytest.raises(ValueError, match=r"seed is a whole number from 0 to 2\^63 - 1; got None"):
        flow.decode(grid("flow"), vqvae, 1, None)
    with pytest.raises(ValueError, match=f"steps is at most {MOST_STEPS:,}, got 1,000,000,000; 8 is a good choice"):
        flow.decode(grid("flow"), vqvae, 10**9)
    with pytest.raises(ValueError, match=f"best_of is at most {MOST_DRAFTS}, got 1,000,000"):
        check_best_of(10**6)


def test_generate_takes_seeds_of_numpy_and_refuses_no_number(tiny):
    ask = [[tiny.segment("a cat")]], "audio"
    one = generate(tiny.transformer, tiny.vocabulary, *ask, seed=3, limit=4)
    assert generate(tiny.transformer, tiny.vocabulary, *ask, seed=np.int64(3), limit=4) == one
    for change, says in (({"guidance": float("nan")}, "guidance is a finite number, got nan"),
                         ({"guidance": float("inf")}, "guidance is a finite"),
                         ({"temperature": float("nan")}, "temperature must be finite"), ({"seed": 2**64}, "seed is a whole number"),
                         ({"top_k": 2.5}, "top_k is 0"), ({"top_p": float("nan")}, "top_p")):
        with pytest.raises(ValueError, match=says):
            generate(tiny.transformer, tiny.vocabulary, *ask, **{"limit": 4, "seed": 3, **change})


@pytest.mark.parametrize("bad, says", [
    (torch.zeros(1, 3, 8, 8, device="meta"), "not a meta or sparse one"), (torch.zeros(1, 3, 8, 8).to_sparse(), "not a meta or sparse one"),
    (torch.linspace(-1, 1, 192).view(1, 3, 8, 8), r"got -1..1; they look like \[-1, 1\]: use \(x \+ 1\) / 2"),
    (torch.full((1, 3, 8, 8), 1.0021), r"got 1.0021..1.0021$"),
])
def test_pictures_for_the_tokenizer(bad, says):
    with pytest.raises(ValueError, match=says):
        VQVAE(codebook_size=16, dim=4, width=16).encode(bad)


@pytest.mark.parametrize("bad", [torch.zeros(1, 800, device="meta"), torch.zeros(1, 800).to_sparse()])
def test_sounds_for_the_tokenizer(random_codec, bad):
    with pytest.raises(ValueError, match="not a meta or sparse one"):
        random_codec.encode(bad)


@pytest.mark.parametrize("bad", [None, [[1, 2]], torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.uint16), torch.zeros(1, 2, dtype=torch.bool)])
def test_what_the_transformer_cannot_look_up(tiny, bad):
    with pytest.raises(TypeError, match="ids are a tensor of int64, got .*: use .long"):
        tiny.transformer(bad)


def test_a_chapters_seed(monkeypatch):
    from mmcourse import show
    monkeypatch.setattr(show, "style", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    drawn = []
    for seed in (3, np.int64(3), torch.tensor(3)):
        show.setup(seed)
        drawn.append((np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1] == drawn[2]
    for bad in (None, -1, 2**64, "3"):
        with pytest.raises(ValueError, match="seed is a whole number"):
            show.setup(bad)
