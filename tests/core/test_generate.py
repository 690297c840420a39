"""Sampling: filters against plain references, masks under which everything parses (fuzzed), cache and guidance, bad input."""
import math
import random

import pytest
import torch
from helpers import SMALL, wild_model
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.generate import (
    MAX_CONTENT,
    NextLogits,
    content_limit,
    continue_rows,
    filter_logits,
    generate,
    modality_mask,
    sample,
)
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, PAD, Segment, Vocabulary


def random_segment(rng: random.Random) -> Segment:
    kind = rng.choice(MODALITIES)
    if kind == "text":
        return Segment(kind, [rng.randrange(9) for _ in range(rng.randrange(4))])
    if kind == "image":
        return Segment(kind, [rng.randrange(6) for _ in range(5)])
    return Segment(kind, [rng.randrange(4) for _ in range(2 * rng.randrange(3))])


def random_prompt(rng: random.Random) -> list[Segment]:
    return [random_segment(rng) for _ in range(rng.randrange(4))]


# ---------------------------------------------------------------- filters and sampling

def plain_filter(row: list[float], top_k: int, top_p: float) -> set[int]:
    """Which tokens stay, written with a sorted list and a running sum."""
    order = sorted(range(len(row)), key=lambda i: -row[i])
    if top_k:
        order = order[:top_k]
    total = sum(math.exp(row[i]) for i in order)
    kept, mass = set(), 0.0
    for i in order:
        if mass >= top_p:
            break
        kept.add(i)
        mass += math.exp(row[i]) / total
    return kept if top_p < 1 else set(order)


@settings(max_examples=300)
@given(st.lists(st.integers(-80, 80), min_size=1, max_size=12, unique=True), st.integers(0, 14),
       st.sampled_from([0.01, 0.137, 0.333, 0.5123, 0.77, 0.9, 0.99, 1.0]))
def test_filters_equal_the_plain_reference(tenths, top_k, top_p):
    row = [t / 10 for t in tenths]
    out = filter_logits(torch.tensor([row, row[::-1]], dtype=torch.float64), top_k, top_p)
    kept = set(torch.isfinite(out[0]).nonzero()[:, 0].tolist())
    assert kept == plain_filter(row, top_k, top_p)
    assert torch.equal(out[0], out[1].flip(0))
    for i in kept:
        assert out[0, i].item() == row[i]                                # what stays is not changed


def test_top_p_keeps_the_smallest_set_that_holds_it():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.75, 2), (0.76, 3), (1.0, 4), (1e-9, 1)):
        assert torch.isfinite(filter_logits(logits, 0, top_p)).sum() == kept, top_p


def test_filters_take_masked_logits():
    logits = torch.tensor([[1.0, -math.inf, 0.0, -math.inf]])
    assert torch.equal(filter_logits(logits, top_k=3), logits)
    assert torch.isfinite(filter_logits(logits, 3, 0.5)).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(("top_k", "top_p"), [(-1, 1.0), (0, 0.0), (0, -0.1), (0, 1.1), (0, math.nan)])
def test_filters_refuse(top_k, top_p):
    with pytest.raises(ValueError, match="top_k is 0 .* or more and 0 < top_p <= 1"):
        filter_logits(torch.zeros(1, 4), top_k, top_p)


def test_sample_has_the_right_frequencies():
    logits, n = torch.tensor([2.0, 1.0, 0.0, -1.0]), 20_000
    for temperature, top_k, top_p in ((1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (1.0, 2, 1.0), (1.5, 3, 0.8)):
        wanted = filter_logits(logits[None] / temperature, top_k, top_p).softmax(-1)[0]
        generator = torch.Generator().manual_seed(0)
        drawn = sample(logits.expand(n, 4), temperature, top_k, top_p, generator).bincount(minlength=4) / n
        error = (wanted * (1 - wanted) / n).sqrt()
        assert ((drawn - wanted).abs() <= 4.5 * error).all(), (temperature, drawn, wanted)


def test_temperature_zero_and_a_cold_one_take_the_likeliest():
    logits = torch.randn(50, 11)
    assert torch.equal(sample(logits, 0), logits.argmax(-1))
    for temperature in (1e-6, 1e-30, 1e-300, 5e-324):
        assert torch.equal(sample(logits, temperature), logits.argmax(-1))


@pytest.mark.parametrize("temperature", [1e3, 1e30, 1e300])
def test_any_heat_respects_the_mask(temperature):
    logits = torch.tensor([[3.0, -math.inf, 5e4, -math.inf, -5e4]]).expand(3000, 5)
    drawn = sample(logits, temperature).bincount(minlength=5)
    assert drawn[1] == drawn[3] == 0
    assert (drawn[[0, 2, 4]] > 800).all() or temperature < 1e6


@pytest.mark.parametrize("temperature", [-1, -1e-9, math.inf, math.nan])
def test_sample_refuses(temperature):
    with pytest.raises(ValueError, match="temperature must be finite and not negative"):
        sample(torch.zeros(1, 4), temperature)


# ---------------------------------------------------------------- masks

def test_masks_by_example():
    text = modality_mask(SMALL, "text", 0, 4)
    assert text.nonzero()[:, 0].tolist() == list(SMALL.ranges["text"])
    assert modality_mask(SMALL, "text", 1, 4)[CLOSE["text"]]
    assert modality_mask(SMALL, "text", 4, 4).nonzero()[:, 0].tolist() == [CLOSE["text"]]
    for i in range(5):
        assert modality_mask(SMALL, "image", i, 5).nonzero()[:, 0].tolist() == list(SMALL.ranges["image"])
    assert modality_mask(SMALL, "image", 5, 5).nonzero()[:, 0].tolist() == [CLOSE["image"]]
    assert modality_mask(SMALL, "audio", 0, 4).nonzero()[:, 0].tolist() == list(SMALL.audio_ranges[0])
    assert modality_mask(SMALL, "audio", 1, 4).nonzero()[:, 0].tolist() == list(SMALL.audio_ranges[1])
    assert modality_mask(SMALL, "audio", 2, 4).nonzero()[:, 0].tolist() == [CLOSE["audio"], *SMALL.audio_ranges[0]]
    assert modality_mask(SMALL, "audio", 4, 4).nonzero()[:, 0].tolist() == [CLOSE["audio"]]


def test_limits():
    real = Vocabulary(1024, audio_levels=4)
    assert [content_limit(real, m) for m in MODALITIES] == [MAX_CONTENT["text"], 64, 96]
    assert content_limit(Vocabulary(9, audio_levels=5), "audio") == 95
    assert content_limit(real, "audio", 8) == 8 and content_limit(real, "image", 64) == 64
    for want, limit in (("text", 0), ("text", -1), ("audio", 6), ("audio", 0), ("image", 63), ("image", 128)):
        with pytest.raises(ValueError, match=f"limit={limit} does not fit {want}"):
            content_limit(real, want, limit)


# ---------------------------------------------------------------- whatever comes out parses

def check(answers: list[Segment], want: str, limit: int) -> None:
    for answer in answers:
        assert answer.modality == want
        assert SMALL.unpack(SMALL.pack([answer])) == [answer]
        assert len(answer.ids) == 5 if want == "image" else 0 < len(answer.ids) <= limit


@pytest.mark.parametrize("number", [340, pytest.param(3400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("want", MODALITIES)
def test_a_thousand_and_ten_thousand_answers_parse(want, number):
    """Any prompt, temperature, filter, guidance and seed; over 1,000 answers together, or over 10,000."""
    rng, made = random.Random(want), 0
    while made < number:
        model = wild_model(rng.randrange(10**6), scale=rng.choice([0.1, 1, 20, 300]), context=160)
        prompts = [random_prompt(rng) for _ in range(170)]
        limit = content_limit(SMALL, want, rng.choice([2, 4, 6, 8, 24]) if want != "image" else None)
        answers = generate(model, SMALL, prompts, want, temperature=rng.choice([0, 1e-9, 0.3, 1, 1.7, 50, 1e9]),
                           top_k=rng.choice([0, 0, 1, 3, 10**6]), top_p=rng.choice([1.0, 0.999, 0.5, 1e-6]),
                           guidance=rng.choice([1.0, 1.0, 0.0, 3.0, -2.0, 1e4]), seed=rng.randrange(10**9), limit=limit)
        assert len(answers) == len(prompts)
        check(answers, want, limit)
        made += len(answers)


# ---------------------------------------------------------------- the cache and guidance change nothing else

@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("want", MODALITIES)
def test_greedy_with_cache_is_identical(want, guidance):
    """Several segments in the prompt, prompts of different lengths; then every answer token for token."""
    rng, different = random.Random(7), set()
    for seed in range(4):
        model = wild_model(seed, scale=6.0, layers=2)
        prompts = [random_prompt(rng) for _ in range(8)] + [[], [random_segment(rng) for _ in range(5)]]
        options = {"temperature": 0, "guidance": guidance, "limit": 12 if want != "image" else None}
        cached = generate(model, SMALL, prompts, want, **options)
        assert cached == generate(model, SMALL, prompts, want, use_cache=False, **options)
        different |= {answer.ids for answer in cached}
    assert len(different) > 8


def test_sampling_with_cache_is_identical_for_a_seed():
    model, rng = wild_model(scale=3.0), random.Random(1)
    prompts = [random_prompt(rng) for _ in range(10)]
    options = {"temperature": 0.9, "top_p": 0.95, "seed": 3}
    cached = generate(model, SMALL, prompts, "text", **options)
    assert cached == generate(model, SMALL, prompts, "text", use_cache=False, **options)


def test_answers_keep_the_order_of_the_prompts_and_do_not_mix():
    model, rng = wild_model(scale=6.0, layers=2), random.Random(2)
    prompts = [random_prompt(rng) for _ in range(12)]
    together = generate(model, SMALL, prompts, "text", temperature=0)
    assert together == [generate(model, SMALL, [p], "text", temperature=0)[0] for p in prompts]


def test_seeds():
    model, prompts = wild_model(scale=1.0), [[Segment("text", (1, 2))]] * 4
    a, b, c = (generate(model, SMALL, prompts, "image", seed=s) for s in (1, 1, 2))
    assert a == b != c and len(set(a)) > 1
    torch.manual_seed(5)
    free = generate(model, SMALL, prompts, "image")
    torch.manual_seed(5)
    assert generate(model, SMALL, prompts, "image") == free
    before = torch.get_rng_state()
    generate(model, SMALL, prompts, "image", seed=1)
    assert torch.equal(torch.get_rng_state(), before)                   # a seeded call leaves torch's own generator alone


def test_guidance_is_the_formula():
    model, prompt = wild_model(scale=6.0), [Segment("text", (1, 2, 3))]
    given_ids = torch.tensor([[*SMALL.pack(prompt), OPEN["image"]]])
    with torch.no_grad():
        conditional, empty = model(given_ids)[0, -1], model(torch.tensor([[OPEN["image"]]]))[0, -1]
    for guidance in (0.0, 0.5, 1.0, 4.0):
        logits = empty + guidance * (conditional - empty)
        allowed = SMALL.ranges["image"]
        first = logits[allowed.start:allowed.stop].argmax().item()
        assert generate(model, SMALL, [prompt], "image", temperature=0, guidance=guidance)[0].ids[0] == first
    unguided = generate(model, SMALL, [[]], "image", temperature=0)
    assert generate(model, SMALL, [prompt], "image", temperature=0, guidance=0.0) == unguided


def test_no_gradients_are_kept_and_training_mode_is_left_alone():
    model = wild_model().train()
    generate(model, SMALL, [[]], "text")
    assert model.training and all(p.grad is None for p in model.parameters())


def test_next_logits_are_the_models_and_the_unconditional_row_begins_with_the_answer():
    """Fed token by token: what is known without the prompt is what the model says of the answer alone."""
    model, prompt, answer = wild_model(scale=3.0), torch.tensor([[1, 8, 9, 2, OPEN["image"]]]), torch.tensor([[17, 18]])
    for use_cache in (True, False):
        next_logits = NextLogits(model, 1, guidance=3.0, use_cache=use_cache)
        for seen in range(3):
            found = next_logits(prompt if seen == 0 else answer[:, seen - 1:seen])
            with torch.no_grad():
                conditional = model(torch.cat([prompt, answer[:, :seen]], 1))[:, -1]
                unconditional = model(torch.cat([prompt[:, -1:], answer[:, :seen]], 1))[:, -1]
            torch.testing.assert_close(found, unconditional + 3.0 * (conditional - unconditional), rtol=1e-3, atol=1e-3)


def test_the_loop_feeds_back_what_was_chosen_and_pads_rows_that_are_done():
    """Row 0 closes after one word, row 1 after three; a row that is done sees padding alone."""
    scripts, seen = [[5, None], [5, 6, 7, None]], []
    text = SMALL.ranges["text"]

    def next_logits(new):
        seen.append(new[:, -1].tolist())
        wanted = torch.zeros(2, SMALL.size)
        for row, script in enumerate(scripts):
            token = script.pop(0) if script else 0
            wanted[row, CLOSE["text"] if token is None else text.start + token] = 1
        return wanted

    prompts = torch.tensor([[OPEN["text"]], [OPEN["text"]]])
    found = continue_rows(next_logits, prompts, SMALL, "text", 8, lambda logits: logits.argmax(-1))
    at = text.start
    assert found == [[at + 5], [at + 5, at + 6, at + 7]]
    assert seen == [[OPEN["text"]] * 2, [at + 5, at + 5], [CLOSE["text"], at + 6], [PAD, at + 7]]


# ---------------------------------------------------------------- bad input

def test_prompt_longer_than_the_context_says_what_would_fit():
    model = wild_model(context=32)
    prompt = [Segment("text", (1,) * 20)]
    with pytest.raises(ValueError, match=r"prompt has 22 tokens.*context of 32: shorten it by (\d+) tokens") as caught:
        generate(model, SMALL, [prompt], "text", limit=12)
    over = int(str(caught.value).split("shorten it by ")[1].split()[0])
    generate(model, SMALL, [[Segment("text", (1,) * (20 - over))]], "text", limit=12)


@pytest.mark.parametrize("want", ["video", "", None, "IMAGE", 3])
def test_unknown_want(want):
    with pytest.raises(ValueError, match="want is one of"):
        generate(wild_model(), SMALL, [[]], want)


def test_other_bad_input():
    model = wild_model()
    for temperature in (-0.1, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            generate(model, SMALL, [[]], "text", temperature=temperature)
    with pytest.raises(ValueError, match=r"text ids lie in 0\.\.8, got 9"):
        generate(model, SMALL, [[Segment("text", (9,))]], "text")
    with pytest.raises(ValueError, match="a picture has 5 tokens"):
        generate(model, SMALL, [[Segment("image", (1, 2))]], "text")
    with pytest.raises(TypeError, match=r"write \[\[segment\]\]"):
        generate(model, SMALL, [Segment("text", (1,))], "text")
    with pytest.raises(ValueError, match="limit=0"):
        generate(model, SMALL, [[]], "text", limit=0)
    with pytest.raises(ValueError, match="take its own"):
        generate(model, Vocabulary(9), [[]], "text")


def test_nothing_and_empty_segments_have_answers():
    model = wild_model()
    assert generate(model, SMALL, [], "text") == []
    for prompt in ([], [Segment("text", ())], [Segment("audio", ()), Segment("text", ())]):
        check(generate(model, SMALL, [prompt], "audio", limit=8), "audio", 8)
