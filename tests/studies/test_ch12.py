"""Chapter 12's studies: what is counted is what went through, a draft is judged by both rules, whoever knows all needs one pass."""
import numpy as np
import pytest
import torch
from helpers import SMALL, wild_model

from mmcourse.experiments.exits import ExitHeads, with_exits
from mmcourse.generate import generate
from mmcourse.studies import ch12_depth, ch12_ledger, ch12_parallel, ch12_routed, ch12_weights
from mmcourse.studies.ch12_parallel import Counted, both_first, matrices, passes_for, pearson
from mmcourse.vocabulary import Segment


def test_passes_and_tokens_are_counted_only_within():
    embedding = torch.nn.Embedding(5, 2)
    with Counted(embedding) as counted:
        embedding(torch.zeros(2, 3, dtype=torch.long))
        embedding(torch.zeros(2, 1, dtype=torch.long))
    embedding(torch.zeros(9, 9, dtype=torch.long))
    assert (counted.passes, counted.tokens) == (2, 8)


def test_weights_that_multiply_a_token():
    model = wild_model()
    width, layers = model.width, len(model.blocks)
    assert matrices(model) == layers * 12 * width**2 + model.vocab_size * width


def test_both_races_have_one_winner_as_often_as_is_said():
    torch.manual_seed(0)
    p, q = (torch.rand(6, dtype=torch.double).softmax(-1) for _ in range(2))
    noise = torch.empty(200_000, 6, dtype=torch.double).exponential_()
    raced = ((p / noise).argmax(-1) == (q / noise).argmax(-1)).double().mean().item()
    assert abs(both_first(p, q) - raced) < 0.005 and both_first(p, q) < torch.minimum(p, q).sum()
    assert both_first(p, p) == pytest.approx(1)
    assert both_first(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 0


@pytest.mark.parametrize("want", ["text", "audio"])
def test_other_answers_come_out_as_they_are(want):
    model = wild_model(context=200)
    prompts = [[Segment("text", (i, 3, 4))] for i in range(4)]
    found = passes_for(model, prompts, want, SMALL)
    said = generate(model, SMALL, prompts, want, temperature=0.0)
    assert found["same"] == found["n"] == 4 and found["tokens"] == pytest.approx(sum(len(s.ids) + 1 for s in said) / 4, abs=0.01)
    assert 1 <= found["passes"] <= found["tokens"]


def test_the_clock_takes_the_likeliest_and_ticks():
    clock = ch12_ledger.Clock()
    assert clock(torch.tensor([[0.0, 2.0, 1.0]])).tolist() == [1] and clock(torch.tensor([[3.0, 2.0, 1.0]])).tolist() == [0]
    assert len(clock.ticks) == 2 and 0 <= clock.ticks[0] <= clock.ticks[1]


def test_batches_are_of_one_length():
    p = ch12_parallel.painting()
    batches = p.batches(6, 3, "validation")
    assert len(batches) == 2 and all(len({len(prompt[0].ids) for prompt in batch}) == 1 and len(batch) == 3 for batch in batches)


def test_pearson_is_chi_square_and_joins_the_rare():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.double)
    value, df = pearson(torch.tensor([60, 20, 20]), p)
    assert df == 2 and value == pytest.approx(100 / 50 + 100 / 30 + 0 / 20)
    rare = torch.tensor([0.5, 0.46, 0.02, 0.02], dtype=torch.double)
    value, df = pearson(torch.tensor([40, 52, 4, 4]), rare)             # 2 + 2 expected: still too few, so they join the 46
    assert df == 1 and value == pytest.approx(100 / 50 + 100 / 50)


def test_pearson_of_true_draws_is_about_its_degrees_of_freedom():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(30, generator=generator, dtype=torch.double).softmax(-1)
    found = [pearson(torch.bincount(torch.multinomial(p, 5000, replacement=True, generator=generator), minlength=30), p)
             for _ in range(200)]
    assert {df for _, df in found} == {29} and sum(value for value, _ in found) / 200 == pytest.approx(29, rel=0.1)
    wrong, _ = pearson(torch.bincount(torch.multinomial(p.flip(0), 5000, replacement=True, generator=generator), minlength=30), p)
    assert wrong > 100


def test_who_leaves_first_and_by_place():
    values = torch.tensor([[0.2, 0.9, 0.1], [0.95, 0.1, 0.1], [0.1, 0.2, 0.3]])
    assert ch12_depth.first_above(values, 0.9).tolist() == [2, 1, 4]
    same = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    traced = {"place": torch.tensor([0, 0, 1, 1]), "same": same, "gate": values, "confident": values}
    assert ch12_depth.depth_of_places(traced, 0.9).tolist() == [2, 3] and ch12_depth.depth_of_places(traced, 0.5).tolist() == [2, 1]
    later = {"place": torch.tensor([1, 2]), "same": same[:2]}
    assert ch12_depth.blocks_of("place", later, 0.9, traced).tolist() == [3, 4]                 # place 2 was never seen: all blocks
    assert ch12_depth.agreement(traced, torch.tensor([1, 2, 1, 3])) == pytest.approx(0.75)


def test_the_setting_is_the_cheapest_that_agrees():
    grid = ch12_depth.GRID
    gate = torch.tensor([[grid[3] + 1e-4], [grid[8] + 1e-4]])           # wrong at block 1 below the first, right below the second
    traced = {"place": torch.tensor([0, 0]), "same": torch.tensor([[False, True], [True, True]]), "gate": gate, "confident": gate}
    assert ch12_depth.chosen_setting("gate", traced, 1.0) == grid[4]
    assert ch12_depth.chosen_setting("gate", traced, 0.5) == grid[0]


def test_operations_of_leaving():
    s = ch12_depth.shipped()
    full = ch12_depth.operations("place", "picture", torch.tensor([6, 6]))
    assert full == 1 and ch12_depth.operations("gate", "picture", torch.tensor([6])) > 1
    C, head = s.width, s.width * 512
    early = ch12_depth.operations("place", "picture", torch.tensor([1]))
    assert early == pytest.approx((12 * C * C + 5 * 2 * C * C + C * C + head) / (6 * 12 * C * C + head))
    looked = ch12_depth.operations("confidence", "picture", torch.tensor([2]))
    assert looked == pytest.approx((2 * 12 * C * C + 4 * 2 * C * C + 2 * (C * C + head)) / (6 * 12 * C * C + head))


def test_as_most_of_their_place():
    rows = [(0, True), (0, True), (0, False), (1, False), (1, False)]
    assert ch12_routed.as_most_do(rows) == pytest.approx(4 / 5)


def test_weights_of_the_arms():
    batch = {arm: ch12_weights.batches(arm)(np.random.default_rng(0)) for arm in ("token", "text x 4", "segment")}
    ids = batch["token"][0]
    assert all(ids.equal(other) for other, _ in batch.values())
    each = {arm: weights for arm, (_, weights) in batch.items()}
    assert set(each["token"].unique().tolist()) == {0, 1} and set(each["text x 4"].unique().tolist()) == {0, 1, 4}
    assert each["segment"].sum(1).allclose((each["token"] > 0).sum(1) / ((each["token"] > 0).sum(1) + 1))       # of an answer's n + 1
    assert ((each["token"] > 0) == (each["segment"] > 0)).all()
    kinds = ch12_weights.kinds()
    assert (kinds[ids[each["token"] > 0]] >= 0).all()                   # what closes an answer belongs to it


def test_learned_weights_fall_where_the_loss_is_large():
    plan = ch12_weights.Plan(steps=12)
    _, share = ch12_weights.trained("learned", 0, plan)
    assert sum(share.values()) == pytest.approx(1) and all(value > 0 for value in share.values())


def test_blocks_are_counted_for_answers_and_not_for_rows_that_are_done():
    """A caption of three tokens beside one of thirty: who is done first counts no more."""
    s = ch12_depth.shipped()
    heads = ExitHeads(s.width, s.layers)
    prompts, _ = ch12_depth.questions("caption", 6, "validation")
    plain, nothing = ch12_depth.said(s.model, prompts, "text")
    net, log = with_exits(s.model, heads, threshold=2.0)
    answers, blocks = ch12_depth.said(net, prompts, "text", log)
    assert answers == plain and blocks == s.layers and nothing != nothing and not log
    lengths = [len(answer.ids) + 1 for answer in answers]
    early, log = with_exits(s.model, heads, threshold=0.0)
    answers, blocks = ch12_depth.said(early, prompts, "text", log)
    assert blocks == 1 and len({*lengths}) > 1                          # padding, which goes on beside, is not asked


def test_of_a_row_that_is_done_nothing_counts(monkeypatch):
    """Two answers of one and three tokens, and what a log noted at each step."""
    rows = [[7], [7, 8, 9]]
    monkeypatch.setattr(ch12_depth, "continue_rows", lambda *args: rows)
    log = [torch.tensor([1, 3]), torch.tensor([2, 3]), torch.tensor([6, 3]), torch.tensor([6, 3])]
    text = Segment("image", tuple([0] * 64))
    _, blocks = ch12_depth.said(ch12_depth.shipped().model, [[text], [text]], "text", log)
    assert blocks == pytest.approx((1 + 2 + 4 * 3) / 6)
