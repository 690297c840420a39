"""The tools of chapter 13 agree with the model itself, and with outside oracles (captum, nnsight)."""
import pytest
import torch

from mmcourse.experiments.inside import attend, attention_of, cut, looking, no_look, patched, states, stream
from mmcourse.in_context import EpisodeNet
from mmcourse.transformer import Attention, Transformer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer(50, width=24, layers=3, heads=4, context=32, segment_starts=(1, 3)).eval()


@pytest.fixture(scope="module")
def rows():
    return torch.randint(50, (2, 3, 12), generator=torch.Generator().manual_seed(1))


def test_its_own_state_changes_nothing_and_all_of_anothers_is_that_run(model, rows):
    mine, donor = rows
    with torch.no_grad():
        here, there = model(mine), model(donor)
    assert torch.equal(patched(model, mine, states(model, mine)), here)
    for name in stream(model):                                          # one layer, all places: what follows is the donor's
        assert torch.equal(patched(model, mine, {name: states(model, donor)[name]}), there), name
    some = patched(model, mine, {"blocks.0": states(model, donor)["blocks.0"]}, [5, 7])
    assert torch.equal(some[:, :5], here[:, :5]) and not torch.equal(some[:, 5:], here[:, 5:])


def test_hooks_are_gone_after_an_error(model, rows):
    def look(name, x):
        raise KeyError(name)
    with pytest.raises(KeyError), looking(model, look):
        model(rows[0])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_states_are_what_the_layers_make(model, rows):
    found = states(model, rows[0])
    assert list(found) == stream(model) == ["embed", "blocks.0", "blocks.1", "blocks.2"]
    x = found["embed"]
    for i, block in enumerate(model.blocks):
        x = block(x)
        assert torch.equal(found[f"blocks.{i}"], x)
    assert torch.equal(model.head(model.norm(x)), model(rows[0]))
    with pytest.raises(ValueError, match="blocks.9.*it has, for instance, embed"):
        states(model, rows[0], names=["blocks.9"])
    with pytest.raises(ValueError, match="no part 'end'"):
        patched(model, rows[0], {"end": x})


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_written_out_is_the_layers_own(heads):
    torch.manual_seed(heads)
    attention, x = Attention(24, heads), torch.randn(2, 9, 24)
    y, weights = attend(attention, x)
    assert torch.allclose(y, attention(x), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, heads, 9)) and not weights.triu(1).any()


def test_attention_is_what_torch_says(model, rows):
    maps = attention_of(model, rows[0])
    x = states(model, rows[0])["embed"]
    block = model.blocks[0]
    theirs = torch.nn.MultiheadAttention(24, 4, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(block.attention.qkv.weight)
        theirs.out_proj.weight.copy_(block.attention.out.weight)
    given = block.norm1(x)
    _, weights = theirs(given, given, given, attn_mask=torch.ones(12, 12, dtype=torch.bool).triu(1), average_attn_weights=False)
    assert maps.shape == (3, 3, 4, 12, 12) and torch.allclose(maps[0], weights, atol=1e-5)


def test_what_is_cut_cannot_be_seen(model, rows):
    mine, other = rows[0].clone(), rows[0].clone()
    mine[:, 4], other[:, 4] = 20, 30                                    # neither opens a segment
    blocked = no_look(20, range(5, 20), [4])                            # longer than the sequence: its corner is used
    with torch.no_grad(), cut(model, blocked):
        assert torch.allclose(model(mine)[:, 5:], model(other)[:, 5:], atol=1e-6)
    with torch.no_grad():
        assert not torch.allclose(model(mine)[:, 5:], model(other)[:, 5:], atol=1e-6)
        with cut(model, blocked, layers=[2]):
            assert not torch.allclose(model(mine)[:, 5:], model(other)[:, 5:], atol=1e-6)
    with pytest.raises(ValueError, match="12 tokens, and `blocked` is for 6"), cut(model, blocked[:6, :6]):
        model(mine)
    assert not no_look(6, range(6), range(6)).diagonal().any()


def test_nets_of_chapter_10_are_read_too():
    torch.manual_seed(0)
    net = EpisodeNet(9, (4, 5), width=16).eval()
    words, chunks = torch.randint(9, (2, 3, 1)), torch.randint(5, (2, 3, 4))
    part = (("chunk", chunks), ("words", words))
    from mmcourse.experiments.heads import attention_maps
    assert torch.allclose(attention_of(net, part).transpose(0, 1), attention_maps(net, part), atol=1e-6)
    assert set(states(net, part)) == set(stream(net))


# ---------------------------------------------------------------- outside oracles

def test_states_are_those_of_captum(model, rows):
    captum = pytest.importorskip("captum.attr")
    for name in ("blocks.1", "blocks.1.attention", "blocks.2.mlp.up"):
        theirs = captum.LayerActivation(model, model.get_submodule(name)).attribute(rows[0])
        assert torch.equal(theirs, states(model, rows[0], names=[name])[name])


def test_patching_is_that_of_nnsight(model, rows):
    nnsight = pytest.importorskip("nnsight")
    mine, donor = rows
    net, given = nnsight.NNsight(model), states(model, donor)["blocks.1"]
    with torch.no_grad(), net.trace(mine):
        net.blocks[1].output[:, 3:6] = given[:, 3:6]
        theirs = net.output.save()
    assert torch.allclose(theirs, patched(model, mine, {"blocks.1": given}, slice(3, 6)), atol=1e-6)
