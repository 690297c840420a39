"""What heads look at, against torch's own attention; scores against loops; a silenced head says nothing."""
import pytest
import torch
import torch.nn.functional as F

from mmcourse.experiments.heads import attention_maps, prefix_matching, without
from mmcourse.in_context import EpisodeNet

R, P = 3, 4


def make(heads=2, layers=3):
    torch.manual_seed(0)
    net = EpisodeNet(7, (4, 20), width=24, heads=heads, layers=layers, pairs=6).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attention.qkv.weight.mul_(8)          # heads that look at something
    return net


def part():
    return ("words", torch.randint(7, (R, P, 2))), ("chunk", torch.randint(20, (R, P, 4)))


def inside(net, *parts):
    """Of each layer what goes into its attention, what torch's own gives to the matrix `out`."""
    found = []
    hooks = [h for block in net.blocks for h in (
        block.attention.register_forward_pre_hook(lambda module, inputs: found.append([inputs[0]])),
        block.attention.out.register_forward_pre_hook(lambda module, inputs: found[-1].append(inputs[0])))]
    net(*parts)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_maps_times_values_are_what_torchs_own_attention_gives(heads):
    net, episode = make(heads), part()
    maps = attention_maps(net, episode)
    assert maps.shape == (R, 3, heads, 2 * P, 2 * P) and not maps.requires_grad
    size = 24 // heads
    for layer, (x, out) in enumerate(inside(net, episode)):
        qkv = net.blocks[layer].attention.qkv.weight @ x.transpose(1, 2)                 # (R, 72, T)
        for h in range(heads):
            q, k, v = (qkv[:, 24 * i + size * h:24 * i + size * (h + 1)].transpose(1, 2) for i in range(3))
            own = F.scaled_dot_product_attention(q, k, v, is_causal=True)                # (R, T, size)
            assert torch.allclose(own, out[..., size * h:size * (h + 1)], atol=1e-4)
            assert torch.allclose(maps[:, layer, h] @ v, own, atol=1e-4)


def test_each_step_shares_out_its_look_among_those_before_it():
    maps = attention_maps(make(), part())
    assert torch.allclose(maps.sum(-1), torch.ones(R, 3, 2, 2 * P)) and (maps >= 0).all()
    assert (maps.triu(1) == 0).all() and (maps[..., 0, 0] == 1).all() and maps.std() > .1


def test_maps_of_several_parts_are_those_of_one_and_leave_the_net_as_it_was():
    net, (a, b) = make(), part()
    before = net((a, b))[0]
    cut = [tuple((kind, x[:, some]) for kind, x in (a, b)) for some in (slice(0, 3), slice(3, 4))]
    assert torch.allclose(attention_maps(net, *cut), attention_maps(net, (a, b)), atol=1e-5)
    assert torch.equal(net((a, b))[0], before)
    with pytest.raises(ValueError, match="leave out"):
        attention_maps(net, (("words", torch.zeros(1, 9, 1).long()), ("words", torch.zeros(1, 9, 1).long())))
    assert not any(block._forward_pre_hooks for block in net.blocks), "no hook is left, whatever happened"


# ---------------------------------------------------------------- the score

def test_prefix_matching_is_the_look_on_what_came_with_the_same_class():
    maps, classes = torch.rand(R, 2, 3, 2 * P, 2 * P).softmax(-1), torch.tensor([[0, 1, 0, 0], [2, 2, 1, 2], [0, 1, 2, 3]])
    found = prefix_matching(maps, classes)
    for layer in range(2):
        for head in range(3):
            total = 0.0
            for r in range(R):
                for j in range(P - 1):
                    if classes[r, j] == classes[r, P - 1]:
                        total += maps[r, layer, head, 2 * (P - 1), 2 * j + 1].item()     # from the query on a right half
            assert found[layer, head].item() == pytest.approx(total / R, abs=1e-6)


def test_a_head_that_looks_at_all_right_halves_of_the_class_has_score_1_at_left_halves_0():
    classes = torch.tensor([[5, 3, 5, 5]])
    look = torch.zeros(1, 1, 3, 2 * P, 2 * P)
    look[..., 0, 6, 1], look[..., 0, 6, 5] = .25, .75   # what came with 5
    look[..., 1, 6, 0], look[..., 1, 6, 4] = .5, .5     # 5 itself
    look[..., 2, 6, 3], look[..., 2, 7, 1] = 1, 1       # what came with 3; and after the query's right half
    assert prefix_matching(look, classes).tolist() == [[1, 0, 0]]


# ---------------------------------------------------------------- without

def zeroed(net, heads):
    """A copy in which nothing of these heads reaches the stream: columns of their output matrix are 0."""
    copy = EpisodeNet(**net.config).eval()
    copy.load_state_dict(net.state_dict())
    size = net.config["width"] // net.config["heads"]
    with torch.no_grad():
        for layer, head in heads:
            copy.blocks[layer].attention.out.weight[:, head * size:(head + 1) * size] = 0
    return copy


@pytest.mark.parametrize("heads", [[], [(0, 0)], [(2, 1)], [(1, 0), (1, 1)], [(0, 1), (1, 0), (2, 0), (2, 1)]])
def test_without_heads_is_as_if_they_had_no_weights_and_only_there(heads):
    net, episode = make(), part()
    before = net(episode)[0]
    with without(net, heads) as same:
        assert same is net
        silenced = net(episode)[0]
    assert torch.allclose(silenced, zeroed(net, heads)(episode)[0], atol=1e-5)
    assert torch.allclose(silenced, before) == (not heads)
    assert torch.equal(net(episode)[0], before)


def test_heads_come_back_after_an_error_and_those_within_those():
    net, episode = make(), part()
    before = net(episode)[0]
    with pytest.raises(ZeroDivisionError), without(net, [(0, 0)]):
        raise ZeroDivisionError
    assert torch.equal(net(episode)[0], before)
    with without(net, [(0, 0)]), without(net, [(1, 1)]):
        both = net(episode)[0]
    assert torch.allclose(both, zeroed(net, [(0, 0), (1, 1)])(episode)[0], atol=1e-5)


@pytest.mark.parametrize("layer, head", [(3, 0), (0, 2), (-1, 0), (0, -1)])
def test_a_head_that_is_not_there_is_named_and_no_other_is_silenced(layer, head):
    net, episode = make(), part()
    before = net(episode)[0]
    with pytest.raises(ValueError, match=f"no head {head} in layer {layer}: the net has 3 layers of 2 heads, counted from 0"), \
            without(net, [(0, 0), (layer, head)]):
        pass
    assert torch.equal(net(episode)[0], before)
