"""Exercises of chapter 13: patch a state, cut a look, labels by dice, find one's own in another modality, keep the k largest, and
five results that are not what they seem."""
from collections import Counter

import torch
import torch.nn.functional as F

from mmcourse.exercises import register
from mmcourse.experiments.concepts import retrieval
from mmcourse.experiments.inside import looking, no_look, patched, states
from mmcourse.experiments.probes import control_labels
from mmcourse.experiments.sparse import largest
from mmcourse.transformer import Transformer

# ---------------------------------------------------------------- patch a state

def _everywhere(model, given, donor, places=slice(None)):
    return patched(model, given, donor)


def _writes_into_the_donor(model, given, donor, places=slice(None)):
    def look(name, x):
        if name in donor:
            donor[name][:, places] = x[:, places]
            return donor[name]
    with torch.no_grad(), looking(model, look):
        return model(given)


def _rows_for_places(model, given, donor, places=slice(None)):
    def look(name, x):
        if name in donor:
            x = x.clone()
            x[places] = donor[name][places]
            return x
    with torch.no_grad(), looking(model, look):
        return model(given)


def _forgets_to_return(model, given, donor, places=slice(None)):
    def look(name, x):
        if name in donor:
            x = x.clone()
            x[:, places] = donor[name][:, places]
    with torch.no_grad(), looking(model, look):
        return model(given)


def _adds(model, given, donor, places=slice(None)):
    def look(name, x):
        if name in donor:
            x = x.clone()
            x[:, places] = x[:, places] + donor[name][:, places]
            return x
    with torch.no_grad(), looking(model, look):
        return model(given)


def _writes_into_x(model, given, donor, places=slice(None)):
    def look(name, x):
        if name in donor:
            x[:, places] = donor[name][:, places]
    with torch.no_grad(), looking(model, look):
        return model(given)


@register("13.patched", reference=patched, minutes=10, difficulty=2,
          wrong=[_everywhere, _writes_into_the_donor, _rows_for_places, _forgets_to_return, _adds, _writes_into_x],
          hint="in `look`: if the name is in `donor`, copy x, put the donor's states at x[:, places], and return the copy")
def check_patched(fn):
    torch.manual_seed(0)
    model = Transformer(30, width=16, layers=2, heads=2, context=16).eval()
    mine, other = torch.randint(30, (2, 9, 7), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        here, there = model(mine), model(other)
    got = fn(model, mine, states(model, mine))
    assert isinstance(got, torch.Tensor) and got.shape == here.shape, "return what the model puts out, (B, T, V)"
    assert torch.allclose(got, here, atol=1e-5), "its own states, put back at every place, must change nothing"
    kept = states(model, other)
    got = fn(model, mine, states(model, other))
    assert torch.allclose(got, there, atol=1e-5), "all states of the donor at all places: the donor's run must come out"
    donor = {"blocks.0": kept["blocks.0"].clone()}
    got = fn(model, mine, donor, [2, 5])
    assert torch.equal(donor["blocks.0"], kept["blocks.0"]), "the donor's states must stay as they are: copy before you write"
    assert torch.allclose(got[:, :2], here[:, :2], atol=1e-5), (
        "places 2 and 5 are patched: what is said before place 2 must stay as it was (places are the second dimension)")
    assert torch.allclose(got, patched(model, mine, donor, [2, 5]), atol=1e-5), "only places 2 and 5 are the donor's"
    held = []

    def hold(name, x):
        if name == "blocks.0":
            held.extend((x, x.clone()))
    with looking(model, hold):
        got = fn(model, mine, donor, [2, 5])
    assert torch.equal(*held), "a hook wrote into x itself, which somebody else may keep: change a clone and return it"
    assert not got.requires_grad, "no gradients, please: `@torch.no_grad()` above the function"
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules()), "hooks were left behind"


# ---------------------------------------------------------------- who may not look

def _blinds_itself(length, readers, read):
    blocked = torch.zeros(length, length, dtype=torch.bool)
    for reader in readers:
        blocked[reader, list(read)] = True
    return blocked


def _the_other_way(length, readers, read):
    return no_look(length, read, readers)


def _pairs_only(length, readers, read):
    blocked = torch.zeros(length, length, dtype=torch.bool)
    for reader, place in zip(readers, read):
        blocked[reader, place] = reader != place
    return blocked


def _may_only(length, readers, read):
    return ~no_look(length, readers, read)


@register("13.no_look", reference=no_look, minutes=6, difficulty=1,
          wrong=[_blinds_itself, _the_other_way, _pairs_only, _may_only],
          hint="begin with torch.zeros(length, length, dtype=torch.bool); a row for each reader; the diagonal stays false")
def check_no_look(fn):
    got = fn(4, [2, 3], [0, 2])
    assert got.shape == (4, 4) and got.dtype == torch.bool, f"a table (4, 4) of bool, please; got {tuple(got.shape)}, {got.dtype}"
    due = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0]]).bool()
    assert not got.diagonal().any(), "a token always sees itself: with nothing to look at softmax gives nan"
    assert torch.equal(got, due), (f"readers 2 and 3 may look at neither 0 nor 2: rows {due.int().tolist()}, "
                                   f"got {got.int().tolist()}")
    assert not fn(5, range(5), []).any(), "with nothing to hide all may look"
    assert fn(6, range(3, 6), range(3)).sum() == 9, "three readers, three places: nine looks are cut"


# ---------------------------------------------------------------- labels by dice

def _by_state(kinds, classes, seed=0):
    dice = torch.Generator().manual_seed(seed)
    return [int(torch.randint(classes, (1,), generator=dice)) for _ in kinds]


def _the_kind_itself(kinds, classes, seed=0):
    order = sorted(set(kinds), key=repr)
    return [order.index(kind) for kind in kinds]


def _without_dice(kinds, classes, seed=0):
    order = sorted(set(kinds), key=repr)
    return [order.index(kind) % classes for kind in kinds]


def _one_label(kinds, classes, seed=0):
    return [seed % classes for _ in kinds]


def _in_order_of_coming(kinds, classes, seed=0):
    dice, label = torch.Generator().manual_seed(seed), {}
    for kind in kinds:
        label.setdefault(kind, int(torch.randint(classes, (1,), generator=dice)))
    return [label[kind] for kind in kinds]


@register("13.control_labels", reference=control_labels, minutes=8, difficulty=2,
          wrong=[_by_state, _the_kind_itself, _without_dice, _one_label, _in_order_of_coming],
          hint="sort the kinds (by repr), throw one die for each, then look every state's kind up")
def check_control_labels(fn):
    kinds = [("cat", "red"), ("dog", "blue"), ("cat", "red"), ("cat", "blue")] * 3
    got = list(fn(kinds, 5))
    assert len(got) == len(kinds), f"a label for each state: {len(kinds)}, got {len(got)}"
    by_kind = {kind: {label for other, label in zip(kinds, got) if other == kind} for kind in kinds}
    assert all(len(labels) == 1 for labels in by_kind.values()), (
        f"states of one kind share one label: else there is nothing to learn by heart either; got {by_kind}")
    many = [("kind", i) for i in range(600)]
    counts = Counter(fn(many, 4))
    assert set(counts) == {0, 1, 2, 3}, f"labels are 0 ... classes - 1; for 4 classes got {sorted(counts)[:8]}"
    assert max(counts.values()) < 200, f"600 kinds, 4 classes: some 150 kinds each, got {dict(counts)}"
    labels = list(fn(many, 4))
    assert labels != [i % 4 for i in range(600)] and fn(many, 4, 1) != labels, "dice decide: another seed, other labels"
    ordered = list(fn(sorted(many, key=repr), 4))
    assert ordered != [i % 4 for i in range(600)], "no counting through the classes: dice, please"
    assert list(fn(many[::-1], 4)) == labels[::-1], "the kind alone decides, not the order in which the states come"


# ---------------------------------------------------------------- find one's own

def _keeps_the_mean(a, b):
    return (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1) == torch.arange(len(a))


def _one_mean_for_both(a, b):
    mean = (a.mean(0) + b.mean(0)) / 2
    return _keeps_the_mean(a - mean, b - mean)


def _by_product(a, b):
    return ((a - a.mean(0)) @ (b - b.mean(0)).T).argmax(1) == torch.arange(len(a))


def _the_share(a, b):
    return retrieval(a, b).double().mean()


def _the_other_way_round(a, b):
    return retrieval(b, a)


def _farthest(a, b):
    a, b = (F.normalize(x - x.mean(0), dim=1) for x in (a, b))
    return (a @ b.T).argmin(1) == torch.arange(len(a))


@register("13.retrieval", reference=retrieval, minutes=8, difficulty=2,
          wrong=[_keeps_the_mean, _one_mean_for_both, _by_product, _the_share, _the_other_way_round, _farthest],
          hint="take each side's mean off, bring rows to length 1 (F.normalize), then one product of matrices has all cosines")
def check_retrieval(fn):
    dice = torch.Generator().manual_seed(0)
    a = torch.randn(12, 6, generator=dice)
    got = fn(a, a)
    assert isinstance(got, torch.Tensor) and got.shape == (12,) and got.dtype == torch.bool, (
        "a truth for each row of a, (N,) bool")
    assert got.all(), "every row finds itself among the same rows"
    assert fn(a, a + 40).all() and fn(a - 30, a).all(), ("what all rows of one side share says nothing: take each side's own "
                                                         "mean off")
    loud = a.clone()
    loud[3] *= 50
    assert torch.equal(fn(a, loud), retrieval(a, loud)), "one long row must not win every time: cosine, not the bare product"
    b = a + 1.2 * torch.randn(12, 6, generator=dice)
    assert torch.equal(fn(a, b), retrieval(a, b)), "rows of a look for their own among the rows of b, not the other way round"


# ---------------------------------------------------------------- the k largest

def _the_smallest(f, k):
    return -largest(-f, k)


def _only_where(f, k):
    return (largest(f, k) != 0).to(f.dtype)


def _in_order(f, k):
    return f.topk(k, dim=-1).values


def _of_the_whole_batch(f, k):
    return largest(f.flatten(), k).view_as(f)


def _above_the_mean(f, k):
    return f * (f > f.mean(-1, keepdim=True))


@register("13.largest", reference=largest, minutes=5, difficulty=1,
          wrong=[_the_smallest, _only_where, _in_order, _of_the_whole_batch, _above_the_mean],
          hint="f.topk(k, dim=-1), then scatter its values into zeros")
def check_largest(fn):
    f = torch.tensor([[3.0, 1.0, 2.0, 5.0], [0.5, 0.1, 0.2, 0.4]])
    got = fn(f, 2)
    assert got.shape == f.shape, f"the others become zero, they do not go: shape {tuple(f.shape)}, got {tuple(got.shape)}"
    due = torch.tensor([[3.0, 0.0, 0.0, 5.0], [0.5, 0.0, 0.0, 0.4]])
    assert torch.equal(got, due), f"the two largest of each row of {f.tolist()}: {due.tolist()}, got {got.tolist()}"
    f = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fn(f, 4), largest(f, 4)), "any number of dimensions, always along the last: (2, 3, 9) came out otherwise"


# ---------------------------------------------------------------- five results

FLAWS = {1: "no control", 2: "attention is not use", 3: "leak", 4: "out of distribution", 5: "cherry-picked"}


def flaw_of(result: int) -> str:
    """Which flaw the result of this number has."""
    return FLAWS[result]


def _turned(by: int):
    order = list(FLAWS.values())
    return lambda result: order[(result - 1 + by) % len(order)]


def _the_probes_swapped(result):
    return {1: "leak", 3: "no control"}.get(result, FLAWS[result])


def _the_knock_outs_swapped(result):
    return {2: "out of distribution", 4: "attention is not use"}.get(result, FLAWS[result])


CLUES = {1: "what does the same probe find in a model that has learned nothing?",
         2: "it looks there. What becomes of the answer if it may not?",
         3: "which token stands at that place, and what does it say to somebody who has never seen the picture?",
         4: "what can that place know, and has any block ever seen such a state there?",
         5: "how many neurons were looked at, and how many scenes?"}


@register("13.flaw_of", reference=flaw_of, minutes=12, difficulty=2,
          wrong=[_turned(1), _turned(2), _the_probes_swapped, _the_knock_outs_swapped, lambda result: "no control"],
          hint="ask of each: what could this number look like if the claim were false?")
def check_flaw_of(fn):
    names = sorted(FLAWS.values())
    for result, due in FLAWS.items():
        got = fn(result)
        assert got in names, f"result {result}: say one of {', '.join(names)}; got {got!r}"
        assert got == due, f"result {result}: {got!r} is not what is wrong with it. Ask: {CLUES[result]}"
