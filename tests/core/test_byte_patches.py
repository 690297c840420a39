"""Bytes in patches (`mmcourse.experiments.byte_patches`): cuts, their rate, and a net that sees nothing before its time."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcourse.bpe import BPETokenizer
from mmcourse.experiments.byte_patches import (
    BYTES,
    CHUNK,
    LENGTH,
    WAYS,
    Cutter,
    PatchNet,
    as_ids,
    chunks,
    ends_of_pieces,
    patch_loss,
    random_rows,
    rows,
    targets,
    unsureness,
)
from mmcourse.transformer import Transformer


def small_net(classes=BYTES):
    torch.manual_seed(0)
    return PatchNet(classes, width=16, wide=24, layers=2, heads=2).eval()


@pytest.fixture(scope="module")
def cutter():
    torch.manual_seed(0)
    model = Transformer(BYTES, width=16, layers=1, heads=2, context=LENGTH).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    tokenizer = BPETokenizer.train([chunk.decode() for chunk in chunks("test")], 400)
    return Cutter(model, tokenizer, random_rows(np.random.default_rng(0), 30))


def test_splits_share_nothing_and_hold_ascii():
    every = {split: chunks(split) for split in ("train", "validation", "test")}
    assert all(len(chunk) == CHUNK and chunk.isascii() for part in every.values() for chunk in part)
    assert not {*every["train"]} & {*every["test"]} and len(every["train"]) > 5 * len(every["test"]) > 0
    assert b"".join(rows("test")) == b"".join(every["test"]) and {len(row) for row in rows("test")} == {LENGTH}
    some = random_rows(np.random.default_rng(0), 50)
    assert all(any(row in chunk for chunk in every["train"]) for row in some) and len({*some}) > 45
    with pytest.raises(ValueError, match="a split is train, validation or test, got 'all'"):
        chunks("all")


def test_pieces_end_where_they_end():
    tokenizer = BPETokenizer.train("a cat, a cat, a cat", 258)
    (ends,) = ends_of_pieces(tokenizer, [b"a cat"])
    lengths = [len(tokenizer.tokens[i]) for i in tokenizer.encode("a cat")]
    assert ends.nonzero()[:, 0].tolist() == [sum(lengths[:i + 1]) - 1 for i in range(len(lengths))] and ends[-1]


def test_unsureness_is_the_entropy():
    model = Transformer(BYTES, width=16, layers=1, heads=2, context=LENGTH)
    torch.nn.init.zeros_(model.head.weight)
    assert unsureness(model, as_ids([b"abc"])).allclose(torch.full((1, 3), 8.0), atol=1e-4)      # knows nothing: eight bits


def test_all_ways_cut_equally_often(cutter):
    texts = random_rows(np.random.default_rng(5), 60)
    share = {way: cutter(way, texts, np.random.default_rng(0)).float().mean().item() for way in WAYS}
    assert share.pop("bytes") == 1
    assert all(each == pytest.approx(1 / cutter.length, rel=0.1) for each in share.values()), share
    stride = cutter("stride", texts[:1], np.random.default_rng(0))[0].nonzero()[:, 0].diff()
    assert stride.max() - stride.min() <= 1
    with pytest.raises(ValueError, match="a way to cut is one of surprise, pieces"):
        cutter("words", texts, np.random.default_rng(0))


def test_surprise_looks_at_nothing_later(cutter):
    texts = random_rows(np.random.default_rng(6), 4)
    whole, half = (cutter("surprise", [text[:n] for text in texts], np.random.default_rng(0)) for n in (LENGTH, 100))
    assert whole[:, :100].equal(half)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_net_sees_nothing_later(share):
    net, generator = small_net(), torch.Generator().manual_seed(3)
    ids = torch.randint(BYTES, (3, 40), generator=generator)
    ends = torch.rand(3, 40, generator=generator) < share
    said = net(ids, ends)
    other, more = ids.clone(), ends.clone()
    other[:, 20:], more[:, 20:] = 7, ~ends[:, 20:]
    torch.testing.assert_close(net(other, more)[:, :20], said[:, :20])
    assert not net(other, more)[:, 20:].allclose(said[:, 20:])


def test_the_trunk_tells_what_is_complete_and_no_more():
    net = small_net()
    ids, ends = torch.arange(12)[None] % 5, torch.zeros(1, 12, dtype=torch.bool)
    ends[0, [3, 7]] = True
    known = net(ids, ends)
    later = ends.clone()
    later[0, 9] = True
    assert net(ids, later)[:, :9].allclose(known[:, :9], atol=1e-6) and not net(ids, later)[:, 9:].allclose(known[:, 9:], atol=1e-6)


def test_the_trunk_works_once_a_patch():
    net, seen = small_net(), []
    net.trunk[0].register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    ends = torch.zeros(2, 20, dtype=torch.bool)
    ends[0, 4:9], ends[1, 2] = True, True
    net(torch.zeros(2, 20, dtype=torch.long), ends)
    assert seen == [5]


def test_ends_that_only_the_future_knows_have_to_be_said():
    ids, ends = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, False]])
    assert targets(small_net(), ids, ends).equal(ids) and targets(small_net(2 * BYTES), ids, ends).tolist() == [[1, 258, 3]]
    net = small_net(2 * BYTES)
    loss = patch_loss(net, ids, ends)
    due = F.cross_entropy(net(ids[:, :2], ends[:, :2])[0], torch.tensor([258, 3]))
    torch.testing.assert_close(loss, due)
