"""Exits (`mmcourse.experiments.exits`): nothing changes in the model, nobody leaves before a gate is sure, drafts change no token."""
import pytest
import torch
from helpers import SMALL, wild_model

from mmcourse.experiments.exits import ExitHeads, ShallowDraft, exit_loss, layer_states, shallow, with_exits
from mmcourse.generate import NextLogits, continue_rows
from mmcourse.optim import Optim
from mmcourse.parallel import WindowLogits, continue_at_once
from mmcourse.training import Run, train
from mmcourse.vocabulary import OPEN, Segment


def heads_of(model, seed=0):
    """Exits with weights that are not zero."""
    torch.manual_seed(seed)
    heads = ExitHeads(model.width, len(model.blocks))
    for p in heads.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return heads.eval()


def ids_of(model, n=3, length=9):
    return torch.randint(7, model.vocab_size, (n, length), generator=torch.Generator().manual_seed(1))


def test_the_last_state_is_the_models_and_no_hook_stays():
    model = wild_model(layers=3)
    ids = ids_of(model)
    states = layer_states(model, ids)
    assert states.shape == (len(model.blocks), *ids.shape, model.width)
    torch.testing.assert_close(model.head(model.norm(states[-1])), model(ids))
    assert not any(block._forward_hooks for block in model.blocks)


def test_hooks_go_even_if_the_model_fails():
    model = wild_model(layers=3)
    with pytest.raises(ValueError, match="ids lie in"):
        layer_states(model, torch.tensor([[model.vocab_size]]))
    assert not any(block._forward_hooks for block in model.blocks)


def test_fresh_exits_read_the_state_as_it_is():
    model = wild_model(layers=3)
    heads, states = ExitHeads(model.width, len(model.blocks)), layer_states(model, ids_of(model))
    torch.testing.assert_close(heads.say(model, 0, states[0]), model.head(model.norm(states[0])))


def test_training_moves_the_exits_alone_and_they_come_nearer():
    model = wild_model(layers=3)
    before = {name: p.clone() for name, p in model.named_parameters()}
    heads, ids = ExitHeads(model.width, len(model.blocks)), ids_of(model, 8, 20)
    states = layer_states(model, ids).flatten(1, 2)
    first = exit_loss(heads, model, states)
    train(heads, lambda rng: (states,), lambda heads, states: exit_loss(heads, model, states), steps=60,
          optim=Optim(lr=1e-2, warmup=5, weight_decay=0.0), run=Run(progress=False))
    last = exit_loss(heads, model, states)
    assert last["far"] < 0.7 * first["far"] and last["wrong"] < first["wrong"]
    assert all(p.equal(before[name]) and p.grad is None for name, p in model.named_parameters() if "head" not in name
               and "norm" not in name)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


def test_the_loss_is_nothing_if_all_blocks_say_the_same():
    model = wild_model(layers=3)
    heads, states = ExitHeads(model.width, len(model.blocks)), layer_states(model, ids_of(model)).flatten(1, 2)
    alike = states[-1:].expand(len(states), -1, -1)
    assert exit_loss(heads, model, alike)["far"].item() == pytest.approx(0, abs=1e-6) and exit_loss(heads, model, states)["far"] > 1e-3


@pytest.mark.parametrize("want", ["image", "text", "audio"])
def test_a_gate_that_is_never_sure_changes_nothing(want):
    model = wild_model(layers=3, context=200)
    net, log = with_exits(model, heads_of(model), threshold=2.0)
    ids = torch.tensor([[*SMALL.pack([Segment("text", (1, 2))]), OPEN[want]]] * 2)
    limit = SMALL.image_tokens if want == "image" else 6
    plain, early = (continue_rows(NextLogits(each, 2), ids, SMALL, want, limit, lambda logits: logits.argmax(-1))
                    for each in (model, net))
    assert plain == early and all(after.tolist() == [len(model.blocks)] * 2 for after in log) and log


def test_who_leaves_at_once_says_what_the_first_exit_says():
    model = wild_model(layers=3)
    heads, ids = heads_of(model), ids_of(model)
    net, log = with_exits(model, heads, threshold=0.0)
    said = net(ids)
    torch.testing.assert_close(said[:, -1], heads.say(model, 0, layer_states(model, ids)[0])[:, -1])
    torch.testing.assert_close(said[:, :-1], model(ids)[:, :-1])                                # the prompt goes all the way
    assert log[0].tolist() == [1] * len(ids)


def test_each_row_leaves_by_itself():
    model = wild_model(layers=3)
    heads, ids = heads_of(model), ids_of(model, 40)
    sure = torch.stack([heads.sure(i, layer_states(model, ids)[i, :, -1]) for i in range(len(model.blocks) - 1)])
    threshold = sure.median().item()
    net, log = with_exits(model, heads, threshold)
    net(ids)
    expected = [next((i + 1 for i, each in enumerate(row) if each >= threshold), len(model.blocks)) for row in sure.T.tolist()]
    assert log[0].tolist() == expected and len(set(expected)) > 1


def test_later_tokens_see_who_left():
    """Its keys and values in deeper blocks are made from the state with which it left."""
    model = wild_model(layers=3)
    heads, ids = heads_of(model), ids_of(model, 1)
    net, _ = with_exits(model, heads, threshold=0.0)
    next_logits = NextLogits(net, 1)
    next_logits(ids)
    keys = next_logits.caches[0].layers[-1].keys[:, :, ids.shape[1] - 1]
    left = layer_states(model, ids)[0, :, -1:]
    block = model.blocks[-1]
    due = block.attention.qkv(block.norm1(left)).view(1, 1, 3, model.heads, -1)[:, 0, 1]
    torch.testing.assert_close(keys, due)


@pytest.mark.parametrize(("layers", "window"), [(1, 4), (1, 1), (2, 30)])
def test_drafts_of_the_first_blocks_change_no_token(layers, window):
    model = wild_model(layers=3, context=200)
    heads = heads_of(model)
    ids = torch.tensor([[*SMALL.pack([Segment("text", (1, 2))]), OPEN["image"]]])
    codes = SMALL.ranges["image"]

    def choose(logits, first):
        return logits[..., codes.start:codes.stop].argmax(-1) + codes.start
    start = torch.full((1, SMALL.image_tokens), codes.start)
    one = continue_at_once(WindowLogits(model, 1), ids, choose, start, 1)
    draft = ShallowDraft(shallow(model, heads, layers), ids, choose, window)
    found = continue_at_once(logits := WindowLogits(model, 1), ids, choose, start, window, draft)
    assert found.equal(one)
    assert draft.cache.length <= ids.shape[1] + SMALL.image_tokens and logits.passes <= SMALL.image_tokens
    assert (draft.passes == 0) == (window == 1)


def test_a_draft_that_is_the_model_needs_one_pass_a_window():
    """If the last blocks change nothing, the first ones know all."""
    model = wild_model(layers=3, context=200)
    for block in model.blocks[1:]:
        for layer in (block.attention.out, block.mlp.down):
            torch.nn.init.zeros_(layer.weight)
    ids = torch.tensor([[*SMALL.pack([Segment("text", (1, 2))]), OPEN["image"]]])
    codes, n = SMALL.ranges["image"], SMALL.image_tokens

    def choose(logits, first):
        return logits[..., codes.start:codes.stop].argmax(-1) + codes.start
    draft = ShallowDraft(shallow(model, ExitHeads(model.width, len(model.blocks)), 1), ids, choose, 4)
    continue_at_once(logits := WindowLogits(model, 1), ids, choose, torch.full((1, n), codes.start), 4, draft)
    assert logits.passes == -(-n // 4) and draft.passes == n - logits.passes
