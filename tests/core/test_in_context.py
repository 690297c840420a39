"""The net that reads episodes: a later pair changes no earlier answer, a pair is told by its tag alone, halves are what they say.

What the net does with all steps at once is checked here half by half, in plain loops.
"""
import pytest
import torch
import torch.nn.functional as F

from mmcourse.in_context import EpisodeNet, TokenChunk, VectorChunk, check_pairs

WORDS, CODES, PAIRS = 11, 20, 5
PICTURES = {"words": WORDS, "chunk": (4, CODES), "width": 16, "heads": 2, "pairs": PAIRS}


def make(**changes):
    """A small net whose weights are so large that every input shows in every answer."""
    torch.manual_seed(0)
    net = EpisodeNet(**{**PICTURES, **changes}).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "norm" not in name:
                p.mul_(3)
    return net


def words(rows, pairs, n=2, seed=1):
    return "words", torch.randint(WORDS, (rows, pairs, n), generator=torch.Generator().manual_seed(seed))


def pictures(rows, pairs, seed=2):
    return "chunk", torch.randint(CODES, (rows, pairs, 4), generator=torch.Generator().manual_seed(seed))


def sounds(rows, pairs, seed=3):
    return "chunk", torch.rand((rows, pairs, 3, 6), generator=torch.Generator().manual_seed(seed))


def changed(half, pair):
    """The half with something else in one pair."""
    kind, x = half
    x = x.clone()
    x[:, pair] = x[:, pair] + 1 if x.is_floating_point() else (x[:, pair] + 1) % (WORDS if kind == "words" else CODES)
    return kind, x


def differ(a, b):
    """Which pairs (R, P, ...) are not the same in all rows."""
    return [j for j in range(a.shape[1]) if not torch.allclose(a[:, j], b[:, j], atol=1e-5)]


# ---------------------------------------------------------------- a step is a half

def test_a_picture_is_one_step_and_a_step_one_picture():
    torch.manual_seed(0)
    chunk, (_, ids) = TokenChunk(4, CODES, 16, depth=8), pictures(2, 3)
    x = chunk(ids)
    for r in range(2):
        for j in range(3):
            side_by_side = torch.cat([chunk.embed.weight[token] for token in ids[r, j]])         # (4 * 8,)
            assert torch.allclose(x[r, j], chunk.read.weight @ side_by_side + chunk.read.bias, atol=1e-5)
    logits = chunk.answer(x)
    assert logits.shape == (2, 3, 4, CODES)
    wide = F.gelu(chunk.write.weight @ x[1, 2] + chunk.write.bias)
    for i in range(4):
        assert torch.allclose(logits[1, 2, i], chunk.head.weight @ wide[8 * i:8 * i + 8] + chunk.head.bias, atol=1e-5)


def test_a_sound_is_one_step_and_a_step_one_sound():
    torch.manual_seed(0)
    chunk, (_, values) = VectorChunk(3, 6, 16), sounds(2, 3)
    x = chunk(values)
    assert torch.allclose(x[1, 2], chunk.read.weight @ values[1, 2].reshape(-1) + chunk.read.bias, atol=1e-5)
    said = chunk.answer(x)
    flat = chunk.head.weight @ F.gelu(chunk.write.weight @ x[1, 2] + chunk.write.bias) + chunk.head.bias
    assert said.shape == values.shape and torch.allclose(said[1, 2, 1], flat[6:12], atol=1e-5)


def test_words_of_a_half_are_added_up_and_their_order_does_not_count():
    net, (kind, ids) = make(), words(2, 3, n=3)
    each = net.words.weight[ids[1, 2, 0]] + net.words.weight[ids[1, 2, 1]] + net.words.weight[ids[1, 2, 2]]
    assert torch.allclose(net.step((kind, ids))[1, 2], each + net.kind.weight[0], atol=1e-5)
    assert torch.allclose(net.step((kind, ids.flip(-1))), net.step((kind, ids)), atol=1e-5)
    picture = pictures(2, 3)
    assert torch.allclose(net.step(picture), net.chunk(picture[1]) + net.kind.weight[1])


def test_a_picture_is_as_loud_at_first_as_tags_and_words_as_loud_as_they_say():
    torch.manual_seed(0)
    for net, halves in ((EpisodeNet(40, (16, 512)), torch.randint(512, (50, 4, 16))),
                        (EpisodeNet(40, (16, 65), sound=True), torch.randn(50, 4, 16, 65))):
        assert 1 < net.chunk(halves).std() < 3 and .9 < net.tag.weight.std() < 1.1
    assert 1.8 < EpisodeNet(40, loud=2.0).words.weight.std() < 2.2


# ---------------------------------------------------------------- who sees whom

@pytest.mark.parametrize("left, right", [(words, pictures), (pictures, words), (pictures, pictures)])
def test_a_later_pair_changes_no_earlier_answer_and_an_earlier_one_all_later(left, right):
    net, (a, b) = make(), (left(3, PAIRS), right(3, PAIRS, seed=9))
    answers, echoes = (x for x, in net.with_echo((a, b)))
    for j in range(PAIRS):
        others, other_echoes = (x for x, in net.with_echo((changed(a, j), b)))
        assert differ(answers, others) == differ(echoes, other_echoes) == list(range(j, PAIRS))
        others, other_echoes = (x for x, in net.with_echo((a, changed(b, j))))
        assert differ(answers, others) == list(range(j + 1, PAIRS)), "what is to be said is not seen"
        assert differ(echoes, other_echoes) == list(range(j, PAIRS)), "an echo sees what it repeats"


def test_rows_know_nothing_of_each_other():
    net, (a, b) = make(), (words(4, 3), pictures(4, 3))
    together, = net((a, b))
    for r in range(4):
        alone, = net(((a[0], a[1][r:r + 1]), (b[0], b[1][r:r + 1])))
        assert torch.allclose(alone[0], together[r], atol=1e-5)


def test_an_echo_is_the_reply_after_the_right_half_and_an_answer_that_after_the_left():
    net, part = make(), (pictures(2, 3), words(2, 3))
    hidden, = net.hidden(part)
    (answers,), (echoes,) = net.with_echo(part)
    assert hidden.shape == (2, 3, 2, 16) and answers.shape == echoes.shape == (2, 3, WORDS)
    for r in range(2):
        for j in range(3):
            for x, said in ((hidden[r, j, 0], answers), (hidden[r, j, 1], echoes)):
                assert torch.allclose(said[r, j], net.say.weight @ x + net.say.bias, atol=1e-5)
    assert torch.equal(net(part)[0], answers)


def test_the_steps_go_left_right_left_right_through_the_blocks():
    net, (a, b) = make(layers=3), (words(1, 3), pictures(1, 3))
    steps = []
    for j in range(3):
        steps += [net.step((kind, x[:, j:j + 1]))[0, 0] + net.tag.weight[j] for kind, x in (a, b)]
    x = torch.stack(steps)[None]
    for block in net.blocks:
        x = block(x)
    x = net.norm(x)
    hidden, = net.hidden((a, b))
    assert all(torch.allclose(hidden[0, j, side], x[0, 2 * j + side], atol=1e-4) for j in range(3) for side in (0, 1))


# ---------------------------------------------------------------- tags

def test_tags_are_always_the_same_when_asked_and_any_in_training():
    net = make()
    tags = net.tags(3, PAIRS - 1)
    assert all(torch.equal(tags[r], net.tag.weight[:PAIRS - 1]) for r in range(3))
    part = words(3, PAIRS), pictures(3, PAIRS)
    assert torch.equal(net(part)[0], net(part)[0])
    net.train()
    assert not torch.allclose(net(part)[0], net(part)[0])


def test_no_two_pairs_share_a_tag_and_in_training_each_pair_has_each():
    net = make().train()
    tags = net.tags(2000, 2)
    numbers = (tags[:, :, None] == net.tag.weight).all(-1).int().argmax(-1)              # (2000, 2)
    assert (net.tag.weight[numbers] == tags).all() and (numbers[:, 0] != numbers[:, 1]).all()
    for j in (0, 1):
        assert (numbers[:, j].bincount(minlength=PAIRS) / 2000 - 1 / PAIRS).abs().max() < .05
    assert all(len(row.unique()) == PAIRS for row in
               (net.tags(50, PAIRS)[:, :, None] == net.tag.weight).all(-1).int().argmax(-1))


def test_both_halves_of_a_pair_wear_its_tag():
    """With a tag of another pair in their place, the same steps are read."""
    net, part = make(layers=1), (words(1, 2), pictures(1, 2))
    seen = []
    hook = net.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    net(part)
    hook.remove()
    bare = torch.stack([net.step(half) for half in part], 2)                             # (1, 2, 2, 16)
    worn = seen[0].view(1, 2, 2, 16) - bare
    assert all(torch.allclose(worn[0, j, side], net.tag.weight[j], atol=1e-4) for j in range(2) for side in range(2))


# ---------------------------------------------------------------- parts

def test_parts_of_one_kind_are_as_one_part():
    net, (a, b) = make(), (words(2, 5), pictures(2, 5))
    whole, echo = (x for x, in net.with_echo((a, b)))
    parts = [tuple((kind, x[:, cut]) for kind, x in (a, b)) for cut in (slice(0, 2), slice(2, 3), slice(3, 5))]
    answers, echoes = net.with_echo(*parts)
    assert [x.shape[1] for x in answers] == [2, 1, 2]
    assert torch.allclose(torch.cat(answers, 1), whole, atol=1e-5) and torch.allclose(torch.cat(echoes, 1), echo, atol=1e-5)
    assert all(torch.equal(x, y) for x, y in zip(net(*parts), answers))


def test_parts_of_several_kinds_are_read_one_after_the_other():
    net = make()
    parts = [(pictures(2, 2), pictures(2, 2, seed=5)), (words(2, 1), words(2, 1, seed=6)), (words(2, 2), pictures(2, 2))]
    answers = net(*parts)
    assert [x.shape for x in answers] == [(2, 2, 4, CODES), (2, 1, WORDS), (2, 2, 4, CODES)]
    for i in range(3):
        others = net(*[(changed(left, 0), right) if j == i else (left, right) for j, (left, right) in enumerate(parts)])
        assert [bool(differ(a, b)) for a, b in zip(answers, others)] == [j >= i for j in range(3)]


def test_sounds_are_answered_by_sounds():
    net = make(sound=True, chunk=(3, 6))
    answers, said = net((words(2, 2), sounds(2, 2)), (sounds(2, 3), words(2, 3)))
    assert answers.shape == (2, 2, 3, 6) and said.shape == (2, 3, WORDS)


# ---------------------------------------------------------------- sizes

@pytest.mark.parametrize("pairs, said", [
    (6, "an episode has 1 to 5 pairs, the query among them, so 4 examples fit; got 6 pairs: leave out 1"),
    (9, "leave out 4"), (0, "empty: it needs a query")])
def test_more_pairs_than_fit_and_none_at_all_are_refused(pairs, said):
    for net in (make(), make().train()):
        with pytest.raises(ValueError, match=said):
            net((words(2, pairs), pictures(2, pairs)))
    with pytest.raises(ValueError, match=said):
        check_pairs(pairs, PAIRS)


def test_as_many_as_fit_in_all_parts_together():
    net = make()
    assert net((words(2, PAIRS), pictures(2, PAIRS)))[0].shape[1] == PAIRS
    with pytest.raises(ValueError, match="leave out 1"):
        net((words(2, 3), pictures(2, 3)), (words(2, 3), pictures(2, 3)))


@pytest.mark.parametrize("changes", [{}, {"sound": True, "chunk": (3, 6)}, {"layers": 3, "heads": 4, "loud": 2.0}])
def test_a_net_is_rebuilt_from_its_config(changes):
    net = make(**changes)
    again = EpisodeNet(**net.config).eval()
    again.load_state_dict(net.state_dict())
    half = sounds(2, 3) if net.config["sound"] else pictures(2, 3)
    assert again.config == net.config and torch.equal(again((words(2, 3), half))[0], net((words(2, 3), half))[0])
    assert len(net.blocks) == net.config["layers"] and net.blocks[0].attention.heads == net.config["heads"]


def test_tags_in_order_are_the_same_in_training():
    torch.manual_seed(0)
    ordered = EpisodeNet(16, (4, 8), width=16, in_order=True)
    part = (("chunk", torch.randint(8, (3, 5, 4))), ("words", torch.randint(16, (3, 5, 1))))
    in_training, = ordered.train()(part)
    at_rest, = ordered.eval()(part)
    assert torch.equal(in_training, at_rest)
    free = EpisodeNet(16, (4, 8), width=16)
    assert not torch.equal(free.train()(part)[0], free.eval()(part)[0])
