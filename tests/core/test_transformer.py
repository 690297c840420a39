"""The transformer against plain softmax, torch.nn.MultiheadAttention and torch's own layers; cache; causality; learning."""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.optim import Optim
from mmcourse.training import Run, train
from mmcourse.transformer import (
    MLP,
    Attention,
    Block,
    KVCache,
    Transformer,
    next_token_loss,
    segment_positions,
)
from mmcourse.vocabulary import OPEN, PAD

OPENERS = tuple(OPEN.values())
CLOSE_TO = {"rtol": 1e-4, "atol": 1e-5}


def tiny(**changes) -> Transformer:
    model = Transformer(**{"vocab_size": 40, "width": 32, "layers": 3, "heads": 4, "context": 64, "segment_starts": OPENERS,
                           **changes})
    with torch.no_grad():                                   # larger weights than at the start: attention is then not flat
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(8)
    return model.eval()


def causal_softmax(q, k, v):
    """The definition, with no fused operation: (B, heads, T, d) -> (B, heads, T, d)."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True) @ v


# ---------------------------------------------------------------- against other implementations

@pytest.mark.parametrize(("width", "heads", "T"), [(32, 4, 11), (24, 1, 7), (16, 16, 5), (8, 2, 1)])
def test_attention_equals_plain_softmax(width, heads, T):
    attention, x = Attention(width, heads), torch.randn(3, T, width)
    q, k, v = (p.unflatten(2, (heads, -1)).transpose(1, 2) for p in attention.qkv(x).split(width, dim=2))
    expected = attention.out(causal_softmax(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected, **CLOSE_TO)


@pytest.mark.parametrize(("width", "heads", "T"), [(32, 4, 11), (24, 1, 7), (8, 2, 1)])
def test_attention_equals_torch_values_and_gradients(width, heads, T):
    ours, theirs = Attention(width, heads), nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
    with torch.no_grad():
        ours.qkv.weight.mul_(3)
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.out_proj.weight.copy_(ours.out.weight)
    x = torch.randn(3, T, width)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    mask = nn.Transformer.generate_square_subsequent_mask(T)
    y, z = ours(a), theirs(b, b, b, attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(y, z, **CLOSE_TO)
    upstream = torch.randn_like(y)
    (y * upstream).sum().backward()
    (z * upstream).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, **CLOSE_TO)
    torch.testing.assert_close(ours.qkv.weight.grad, theirs.in_proj_weight.grad, **CLOSE_TO)
    torch.testing.assert_close(ours.out.weight.grad, theirs.out_proj.weight.grad, **CLOSE_TO)


def encoder_layer(block: Block, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """torch's own layer with our block's weights; the biases that ours does not have are zero."""
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0, activation=lambda x: F.relu(x) ** 2,
                                       batch_first=True, norm_first=True)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.out_proj.weight.copy_(block.attention.out.weight)
        layer.linear1.weight.copy_(block.mlp.up.weight)
        layer.linear2.weight.copy_(block.mlp.down.weight)
        for ours, theirs in ((block.norm1, layer.norm1), (block.norm2, layer.norm2)):
            theirs.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
    return layer


def test_block_equals_torch_values_and_gradients():
    width, heads, T = 32, 4, 9
    block = Block(width, heads)
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.weight.normal_(1, 0.3)
            norm.bias.normal_(0, 0.3)
    layer, mask = encoder_layer(block, width, heads), nn.Transformer.generate_square_subsequent_mask(T)
    x = torch.randn(2, T, width)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = block(a), layer(b, src_mask=mask)
    torch.testing.assert_close(y, z, **CLOSE_TO)
    upstream = torch.randn_like(y)
    (y * upstream).sum().backward()
    (z * upstream).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, **CLOSE_TO)
    for ours, theirs in ((block.attention.qkv.weight, layer.self_attn.in_proj_weight),
                         (block.attention.out.weight, layer.self_attn.out_proj.weight),
                         (block.mlp.up.weight, layer.linear1.weight), (block.mlp.down.weight, layer.linear2.weight),
                         (block.norm1.weight, layer.norm1.weight), (block.norm2.bias, layer.norm2.bias)):
        torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE_TO)


def test_model_and_loss_equal_torch_layers():
    """The whole model from torch's own parts: the same logits, the same loss."""
    model = tiny(segment_starts=())
    ids = torch.randint(1, 40, (3, 20))
    x = F.embedding(ids, model.token_embed.weight) + model.position_embed.weight[:20] + model.segment_embed.weight[0]
    mask = nn.Transformer.generate_square_subsequent_mask(20)
    for block in model.blocks:
        x = encoder_layer(block, 32, 4)(x, src_mask=mask)
    logits = F.layer_norm(x, (32,), model.norm.weight, model.norm.bias) @ model.head.weight.T
    torch.testing.assert_close(model(ids), logits, rtol=1e-3, atol=1e-3)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(next_token_loss(model, ids), loss, rtol=1e-4, atol=1e-4)


def test_mlp_is_squared_relu():
    mlp, x = MLP(8), torch.randn(2, 3, 8)
    torch.testing.assert_close(mlp(x), torch.relu(x @ mlp.up.weight.T) ** 2 @ mlp.down.weight.T)


# ---------------------------------------------------------------- causality

def test_a_changed_future_changes_no_past_logit():
    model, ids = tiny(), torch.randint(0, 40, (2, 24))
    before = model(ids)
    for at in (1, 7, 23):
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 13) % 40
        after = model(changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at:], after[:, at:])


def test_no_gradient_flows_from_the_past_to_the_future():
    attention, x = Attention(16, 4), torch.randn(1, 8, 16, requires_grad=True)
    attention(x)[0, 3].sum().backward()
    assert x.grad[0, 4:].abs().max() == 0 and (x.grad[0, :4].abs().amax(-1) > 0).all()


# ---------------------------------------------------------------- positions

def test_segment_positions_by_example():
    ids = torch.tensor([[1, 9, 9, 2, 3, 9, 9, 4, 1, 2]])
    offsets, numbers = segment_positions(ids, (1, 3))
    assert offsets.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]
    assert numbers.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 3, 3]]


@settings(max_examples=200)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.sets(st.integers(0, 8)))
def test_segment_positions_equal_a_loop(row, segment_starts):
    offset, number, expected = -1, 0, []
    for token in row:
        offset, number = (0, number + 1) if token in segment_starts else (offset + 1, number)
        expected.append((offset, number))
    offsets, numbers = segment_positions(torch.tensor([row, row[::-1]]), tuple(segment_starts))
    assert list(zip(offsets[0].tolist(), numbers[0].tolist(), strict=True)) == expected


def test_a_segment_is_placed_alike_wherever_it_stands():
    picture = [3, *range(10, 20), 4]
    early, _ = segment_positions(torch.tensor([picture]), OPENERS)
    late, _ = segment_positions(torch.tensor([[1, 30, 31, 32, 2, *picture]]), OPENERS)
    assert late[0, 5:].tolist() == early[0].tolist()


def test_more_segments_than_the_model_counts_share_the_last_number():
    """With 2 numbers and attention switched off, segment 3 looks like segment 2; segment 1 does not."""
    model, row = tiny(segments=2), torch.tensor([[1, 30, 2] * 4])
    for block in model.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
    first, second, third, fourth = model(row)[0].split(3)
    assert torch.equal(second, third) and torch.equal(second, fourth) and not torch.allclose(first, second)
    assert not torch.allclose(*(tiny(segments=16)(row)[0].split(3)[i] for i in (1, 2)))
    cache = KVCache(model, 1)
    assert torch.allclose(torch.cat([model(part, cache) for part in row.split(1, 1)], 1)[0, 6:9], second, atol=1e-4)


# ---------------------------------------------------------------- the KV cache

def prompt_with_segments(B: int = 3) -> torch.Tensor:
    body = torch.randint(7, 40, (B, 30))
    for at, opener in ((0, 1), (6, 3), (17, 5), (24, 1)):
        body[:, at] = opener
    body[1, 12] = 1                                         # rows need not have their segments at the same places
    return body


@pytest.mark.parametrize("segment_starts", [(), OPENERS])
@pytest.mark.parametrize("cuts", [(1,) * 30, (30,), (10, 1, 1, 1, 5, 12), (7, 23), (1, 29)])
def test_cache_gives_the_logits_of_recomputation(cuts, segment_starts):
    model, ids = tiny(segment_starts=segment_starts), prompt_with_segments()
    cache, parts = KVCache(model, len(ids)), ids.split(cuts, dim=1)
    with torch.no_grad():
        pieces = torch.cat([model(part, cache) for part in parts], dim=1)
        torch.testing.assert_close(pieces, model(ids), rtol=1e-4, atol=1e-4)
    assert cache.length == 30


@torch.no_grad()
def test_greedy_with_cache_is_identical():
    for seed in range(3):
        torch.manual_seed(seed)
        model, ids = tiny(context=96), prompt_with_segments(4)
        cache, new, naive = KVCache(model, 4), ids, ids
        for _ in range(40):
            new = model(new, cache)[:, -1].argmax(-1, keepdim=True)
            naive = torch.cat([naive, model(naive)[:, -1].argmax(-1, keepdim=True)], 1)
            assert torch.equal(new[:, 0], naive[:, -1])
        assert len(naive[:, 30:].unique()) > 5              # more than one token over and over


@pytest.mark.parametrize("kind", [{"device": "meta"}, {"dtype": torch.bfloat16}])
def test_the_cache_lies_where_the_model_does(kind):
    model = tiny().to(**kind)
    ids, cache = prompt_with_segments().to(model.device), KVCache(model, 3)
    for part in ids.split([5, 1, 24], 1):
        assert model(part, cache).device == cache.last_position.device == cache.layers[0].keys.device == model.device
    assert cache.layers[0].keys.dtype == model.token_embed.weight.dtype and cache.length == 30


def test_positions_with_a_cache_are_those_of_the_whole():
    model, ids = tiny(), prompt_with_segments()
    for cuts in ([1] * 30, [30], [10, 1, 1, 1, 5, 12], [7, 23]):
        cache = KVCache(model, 3)
        parts = [cache.positions(part, OPENERS) for part in ids.split(cuts, 1)]
        for got, expected in zip(zip(*parts), segment_positions(ids, OPENERS)):
            assert torch.equal(torch.cat(got, 1), expected)


def test_two_caches_do_not_disturb_each_other():
    model, ids = tiny(), prompt_with_segments()
    with torch.no_grad():
        expected = model(ids[:, :20])[:, -1]
        one, two = KVCache(model, 3), KVCache(model, 3)
        model(ids[:, :19], one)
        model(ids.flip(1), two)
        torch.testing.assert_close(model(ids[:, 19:20], one)[:, -1], expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- how it starts, how it learns

@pytest.mark.parametrize(("vocab_size", "width", "layers"), [(64, 32, 2), (1031, 128, 4), (2560, 192, 6)])
def test_loss_at_the_start_is_log_v(vocab_size, width, layers):
    model = Transformer(vocab_size, width, layers, 4, 64)
    loss = next_token_loss(model, torch.randint(1, vocab_size, (8, 64)))
    assert abs(loss.item() - math.log(vocab_size)) < 0.1


def test_residual_stream_keeps_its_size_at_the_start():
    shallow, deep = Transformer(100, 32, 2, 4, 64), Transformer(100, 32, 24, 4, 64)
    sizes = []
    for model in (shallow, deep):
        model.norm.register_forward_pre_hook(lambda _, x: sizes.append(x[0].std().item()))
        model(torch.randint(0, 100, (2, 64)))
    assert sizes[1] < 2 * sizes[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_overfits_one_batch(optimizer):
    model, ids = Transformer(40, 32, 2, 4, 32, OPENERS), torch.randint(7, 40, (4, 16))
    history = train(model, lambda rng: (ids,), next_token_loss, steps=80,
                    optim=Optim(optimizer, lr=1e-2, weight_decay=0, warmup=10), run=Run(progress=False))
    assert history.rows[0]["loss"] > 3.4 and history.rows[-1]["loss"] < 0.1
    assert not model.training
    assert (model(ids[:, :-1]).argmax(-1)[:, 1:] == ids[:, 2:]).float().mean() > 0.95


def test_loss_leaves_padding_and_weights_out():
    model, ids = tiny(), torch.randint(7, 40, (2, 10))
    ids[1, 6:] = PAD
    logits = model(ids[:, :-1])
    each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    torch.testing.assert_close(next_token_loss(model, ids), torch.cat([each[0], each[1, :5]]).mean())
    weights = torch.zeros(2, 10)
    weights[0, 3], weights[0, 4], weights[1, 8] = 1.0, 3.0, 5.0          # the last one stands on padding
    torch.testing.assert_close(next_token_loss(model, ids, weights), (each[0, 2] + 3 * each[0, 3]) / 4)


def test_padding_changes_no_loss():
    model, ids = tiny(), torch.randint(7, 40, (2, 10))
    padded = torch.cat([ids, torch.full((2, 7), PAD)], 1)
    torch.testing.assert_close(next_token_loss(model, ids), next_token_loss(model, padded))


# ---------------------------------------------------------------- construction and bad input

def test_config_rebuilds_the_model():
    model = tiny()
    again = type(model)(**model.config)
    again.load_state_dict(model.state_dict(), strict=True)
    ids = torch.randint(0, 40, (1, 9))
    assert torch.equal(again(ids), model(ids))


def test_names_and_shapes_stay_as_they_were_shipped():
    shapes = {n: tuple(p.shape) for n, p in Transformer(40, 32, 1, 4, 64).named_parameters()}
    assert shapes == {"token_embed.weight": (40, 32), "position_embed.weight": (64, 32), "segment_embed.weight": (17, 32),
                      "blocks.0.norm1.weight": (32,), "blocks.0.norm1.bias": (32,),
                      "blocks.0.attention.qkv.weight": (96, 32), "blocks.0.attention.out.weight": (32, 32),
                      "blocks.0.norm2.weight": (32,), "blocks.0.norm2.bias": (32,),
                      "blocks.0.mlp.up.weight": (128, 32), "blocks.0.mlp.down.weight": (32, 128),
                      "norm.weight": (32,), "norm.bias": (32,), "head.weight": (40, 32)}


def test_bad_input():
    model = tiny()
    with pytest.raises(ValueError, match="65 tokens do not fit the context of 64"):
        model(torch.zeros(1, 65, dtype=torch.long))
    cache = KVCache(model, 1)
    model(torch.ones(1, 60, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="65 tokens do not fit the context of 64: shorten"):
        model(torch.ones(1, 5, dtype=torch.long), cache)
    for bad in (40, -1):
        with pytest.raises(ValueError, match=r"ids lie in 0\.\.39, got"):
            model(torch.tensor([[1, bad]]))
    for shape in ((4,), (1, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="shape"):
            model(torch.ones(shape, dtype=torch.long))
    with pytest.raises(ValueError, match="multiple of heads"):
        Transformer(40, width=30, heads=4)


def test_the_loss_without_weights_is_that_with_equal_weights():
    model = Transformer(20, 16, 1, 2, 12)
    ids = torch.randint(1, 20, (3, 9))
    ids[0, 5:] = 0                                                     # padding counts in neither
    assert torch.allclose(next_token_loss(model, ids), next_token_loss(model, ids, torch.ones(3, 9)), atol=1e-6)
