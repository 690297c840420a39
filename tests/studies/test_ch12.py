"""Chapter 12's studies: what is counted is what went through, a draft is judged by both rules, whoever knows all needs one pass."""
import pytest
import torch
from helpers import SMALL, wild_model

from mmcourse.generate import generate
from mmcourse.studies import ch12_ledger, ch12_parallel
from mmcourse.studies.ch12_parallel import Counted, both_first, matrices, passes_for
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
