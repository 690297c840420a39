"""Many tokens in one pass (`mmcourse.parallel`): the same ids as one at a time, whatever the guess, in at most as many passes."""
import pytest
import torch

from mmcourse.generate import (
    FEW,
    NextLogits,
    continue_rows,
    generate,
    paint_at_once,
    sample,
)
from mmcourse.painters import TokenPainter
from mmcourse.parallel import (
    Draft,
    WindowLogits,
    as_found,
    caption_ids,
    continue_at_once,
    draft_loss,
    race,
    rewind,
    throw_dice,
)
from mmcourse.transformer import KVCache, Transformer
from mmcourse.vocabulary import OPEN, Segment, Vocabulary

VOCABULARY = Vocabulary(40, 24, 24, 2, image_tokens=16)
CODES = VOCABULARY.ranges["image"]
PROMPTS = [[Segment("text", (3, 1, 4))], [Segment("text", (1, 5, 9))], [Segment("text", (2, 6, 5))]]


@pytest.fixture(scope="module")
def model():
    """An untrained model with opinions: the weights of its head are large."""
    torch.manual_seed(0)
    net = Transformer(VOCABULARY.size, width=24, layers=2, heads=2, context=64, segment_starts=tuple(OPEN.values()))
    torch.nn.init.normal_(net.head.weight, std=1.0)
    return net.eval()


@pytest.fixture(scope="module")
def drafter():
    """An untrained painter."""
    torch.manual_seed(1)
    return TokenPainter(41, codes=24, causal=False, prompt=4, places=16, width=16, layers=1, heads=2).eval()


def one_at_a_time(model, prompts, guidance, seed, **how):
    """What `continue_rows` says."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([[*VOCABULARY.pack(prompt), OPEN["image"]] for prompt in prompts])
    return continue_rows(NextLogits(model, len(prompts), guidance), ids, VOCABULARY, "image", 16,
                         lambda logits: sample(logits, generator=generator, **how))


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 3.0}, {"temperature": 0.3, "top_k": 3},
                                 {"temperature": 1.5, "top_p": 0.6}], ids=str)
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("drafted", [False, True])
def test_the_ids_are_those_of_one_at_a_time(model, drafter, how, guidance, drafted):
    for seed in range(4):
        found = paint_at_once(model, VOCABULARY, PROMPTS, guidance, how["temperature"], how.get("top_k", 0), how.get("top_p", 1.0),
                              torch.Generator().manual_seed(seed), drafter if drafted else None, together=seed + 1)
        assert found == one_at_a_time(model, PROMPTS, guidance, seed, **how)


def test_other_dice_give_other_pictures(model):
    pictures = {tuple(generate(model, VOCABULARY, PROMPTS[:1], "image", seed=seed)[0].ids) for seed in range(8)}
    assert len(pictures) == 8


def test_generate_takes_it_for_a_few_pictures_and_nothing_changes(model, drafter, monkeypatch):
    prompts = [*PROMPTS[:2], [Segment("text", (7,))]]                   # two lengths: one generator goes through both
    monkeypatch.setitem(FEW, "drafted", 2)
    assert FEW["blind"] == 2
    taken = []
    monkeypatch.setattr("mmcourse.generate.paint_at_once",
                        lambda *args, **more: taken.append(len(args[2])) or paint_at_once(*args, **more))
    quick = generate(model, VOCABULARY, prompts, "image", seed=5, drafter=drafter)
    assert taken == [1, 2]                                              # two of one length, one of the other
    assert quick == generate(model, VOCABULARY, prompts, "image", seed=5, use_cache=False) and taken == [1, 2]
    assert quick == generate(model, VOCABULARY, prompts, "image", seed=5)
    generate(model, VOCABULARY, PROMPTS, "image", seed=5)               # three of one length
    assert taken == [1, 2, 1, 2]


def test_a_prompt_without_words_at_its_end_is_guessed_blindly(model, drafter):
    prompts = [[Segment("text", (3,)), Segment("image", tuple(range(16)))]]
    assert (generate(model, VOCABULARY, prompts, "image", seed=2, drafter=drafter)
            == generate(model, VOCABULARY, prompts, "image", seed=2, use_cache=False))
    assert (generate(model, VOCABULARY, [[]], "image", seed=2, drafter=drafter)
            == generate(model, VOCABULARY, [[]], "image", seed=2, use_cache=False))


def likeliest(logits, first):
    """The likeliest image tokens."""
    return logits[..., CODES.start:CODES.stop].argmax(-1) + CODES.start


@pytest.mark.parametrize("window", [1, 2, 5, 16, 99])
def test_passes(model, window):
    ids = torch.tensor([[*VOCABULARY.pack(PROMPTS[0]), OPEN["image"]]])
    truth = torch.tensor(one_at_a_time(model, PROMPTS[:1], 1.0, 0, temperature=0.0))
    logits_of = WindowLogits(model, 1)
    assert continue_at_once(logits_of, ids, likeliest, torch.full((1, 16), CODES.start), window).equal(truth)
    assert -(-16 // window) <= logits_of.passes <= 16                   # a token a pass, at least
    knows = WindowLogits(model, 1)
    assert continue_at_once(knows, ids, likeliest, torch.zeros_like(truth), window, lambda guess, settled: truth).equal(truth)
    assert knows.passes == -(-16 // min(16, window)) and knows.tokens == ids.shape[1] + 16 - 1


def test_a_draft_sees_what_is_settled(model):
    ids, seen = torch.tensor([[*VOCABULARY.pack(PROMPTS[0]), OPEN["image"]]]), []
    truth = torch.tensor(one_at_a_time(model, PROMPTS[:1], 1.0, 0, temperature=0.0))

    def draft(guess, settled):
        seen.append(settled)
        assert guess[:, :settled].equal(truth[:, :settled])
        return as_found(guess, settled)
    continue_at_once(WindowLogits(model, 1), ids, likeliest, torch.full((1, 16), CODES.start), 4, draft)
    assert seen[0] == 0 and seen == sorted(set(seen)) and seen[-1] < 16


def test_a_cache_that_was_moved_back_is_as_it_was(model):
    torch.manual_seed(2)
    ids = torch.randint(CODES.start, CODES.stop, (2, 9))
    ids[:, 0] = OPEN["image"]
    cache = KVCache(model, 2)
    with torch.no_grad():
        before = model(ids[:, :5], cache)
        model(ids[:, 5:], cache)
        rewind(cache, 4)
        assert cache.length == 5
        again = model(ids[:, 5:7], cache)
        assert torch.allclose(again, model(ids[:, :7])[:, 5:], atol=1e-5)
        assert torch.allclose(before, model(ids[:, :5]), atol=1e-5)


def test_a_race_is_multinomial_with_early_dice():
    torch.manual_seed(3)
    p = torch.rand(50, 4, 30, dtype=torch.double).softmax(-1)
    late = torch.Generator().manual_seed(7)
    drawn = torch.stack([torch.multinomial(rows, 1, generator=late)[:, 0] for rows in p], 1)              # (4, 50)
    assert race(p.transpose(0, 1), throw_dice(50, 4, 30, torch.Generator().manual_seed(7))).equal(drawn)
    assert race(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1e-9, 5.0, 1e-9])) == 1


def test_draft_keeps_what_is_settled_and_guesses_the_rest(drafter):
    prompts, guess = [[Segment("text", (3, 1, 4, 1, 5, 9))], [Segment("text", (2,))]], torch.randint(24, (2, 16)) + 100
    draft = Draft(drafter, prompts, start=100)
    found = draft(guess, 6)
    assert found[:, :6].equal(guess[:, :6]) and found.min() >= 100 and found.max() < 124
    assert draft.captions.tolist() == [[4, 2, 5, 2], [3, 0, 0, 0]]      # what has no room is cut off
    with torch.no_grad():
        hidden = (guess - 100).masked_fill(torch.arange(16) >= 6, 24)
        assert found[:, 6:].equal(drafter(hidden, draft.captions).argmax(-1)[:, 6:] + 100)
    noise = throw_dice(16, 2, 24, torch.Generator().manual_seed(0))
    drawn = Draft(drafter, prompts, 1.0, noise, 100)
    assert drawn(guess, 0).equal(drawn(guess.flip(1), 0)) and not drawn(guess, 0).equal(draft(guess, 0))
    assert caption_ids([], 3) == [0, 0, 0]


def test_draft_loss_asks_for_what_is_not_painted(drafter):
    asked = []

    class Watched(torch.nn.Module):
        codes = 24

        def forward(self, ids, captions):
            asked.append(ids)
            return drafter(ids, captions)
    torch.manual_seed(4)
    ids = torch.randint(24, (400, 16))
    loss = draft_loss(Watched(), torch.zeros(400, 4, dtype=torch.long), ids)
    hidden = asked[0] == 24
    known = (~hidden).sum(1)
    assert hidden.equal(torch.arange(16) >= known[:, None]) and known.max() < 16
    assert 0.45 < (known == 0).double().mean() < 0.65                   # half of the rows, and those that begin by chance
    assert abs(loss.item() - torch.log(torch.tensor(24.0)).item()) < 0.5
