"""Sampling: filters against plain references, masks under which everything parses (fuzzed), cache and guidance, bad input."""
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.generate import (
    MAX_CONTENT,
    READING,
    content_limit,
    filter_logits,
    generate,
    generate_best,
    modality_mask,
    sample,
)
from mmcourse.rerank import (
    augmented_consensus,
    backward_log_likelihood,
    caption_first,
    log_likelihood,
    verbalize,
)
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, Segment, Vocabulary

SMALL = Vocabulary(text=9, image=6, audio=4, audio_levels=2, image_tokens=5)
OPENERS = tuple(OPEN.values())


def wild_model(seed: int = 0, scale: float = 20.0, **changes) -> Transformer:
    """A random model whose weights are far too large: its opinions are strong and mean nothing."""
    torch.manual_seed(seed)
    model = Transformer(**{"vocab_size": SMALL.size, "width": 16, "layers": 1, "heads": 2, "context": 96,
                           "openers": OPENERS, **changes})
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


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


@settings(max_examples=300, deadline=None)
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


@pytest.mark.parametrize("want", MODALITIES)
def test_ten_thousand_answers_parse(want):
    """Any prompt, temperature, filter, guidance and seed; the three tests together make over 10,000 answers."""
    rng, made = random.Random(want), 0
    while made < 3400:
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


def test_the_best_of_several_answers_tells_the_prompt_best():
    model, vocabulary = wild_model(scale=1.0), SMALL
    prompts = [[Segment("text", (1, 2))], [Segment("text", (3,))]]
    best = generate_best(model, vocabulary, prompts, "image", best_of=6, temperature=1.5, seed=3)
    every = generate(model, vocabulary, prompts * 6, "image", temperature=1.5, seed=3)
    scores = backward_log_likelihood(model, vocabulary, prompts * 6, every)
    for i in (0, 1):
        assert best[i] == every[i::2][int(scores[i::2].argmax())]
    assert generate_best(model, vocabulary, prompts, "image", seed=3) == generate(model, vocabulary, prompts, "image", seed=3)
    assert generate_best(model, vocabulary, [], "image", best_of=3) == []


def test_reading_back_is_the_log_probability_of_the_prompt():
    model, vocabulary = wild_model(scale=1.0), SMALL
    prompt, answer = [Segment("text", (1, 2))], Segment("audio", tuple([0] * vocabulary.audio_levels))
    given, asked = vocabulary.pack([answer]), vocabulary.pack(prompt)
    logits = model(torch.tensor([given + asked])).log_softmax(-1)[0]
    by_hand = sum(logits[len(given) + j - 1, asked[j]] for j in range(1, len(asked)))
    assert torch.allclose(backward_log_likelihood(model, vocabulary, [prompt], [answer]), by_hand, atol=1e-4)


@pytest.mark.parametrize("best_of", [0, -1, 1.5])
def test_best_of_is_a_positive_number(best_of):
    model, vocabulary = wild_model(scale=1.0), SMALL
    with pytest.raises(ValueError, match="best_of is a whole number"):
        generate_best(model, vocabulary, [[Segment("text", (1,))]], "text", best_of=best_of)


def test_saying_first_puts_the_likeliest_text_behind_the_prompt():
    model = wild_model(4)
    prompts = [[Segment("image", (1, 2, 3, 4, 5))], [Segment("audio", (1, 2, 0, 3))]]
    said = caption_first(model, SMALL, prompts)
    assert [len(p) for p in said] == [2, 2] and [p[:1] for p in said] == prompts
    assert [p[1] for p in said] == generate(model, SMALL, prompts, "text", temperature=0.0)
    assert caption_first(model, SMALL, []) == []


def test_reading_back_with_thought_puts_what_is_said_between():
    model, prompt, answer = wild_model(6), [Segment("audio", (1, 2, 0, 3))], Segment("image", (1, 2, 3, 4, 5))
    given, asked = SMALL.pack(caption_first(model, SMALL, [[answer]])[0]), SMALL.pack(prompt)
    with torch.no_grad():
        log_p = model(torch.tensor([given + asked[:-1]])).log_softmax(-1)[0]
    expected = sum(log_p[len(given) + i, asked[i + 1]] for i in range(len(asked) - 1))
    assert backward_log_likelihood(model, SMALL, [prompt], [answer], think=True).item() == pytest.approx(expected.item(), rel=1e-4)


def test_thinking_answers_from_what_was_said_and_is_judged_by_what_was_asked():
    model, prompts = wild_model(5), [[Segment("audio", (1, 2, 0, 3))]]
    said = caption_first(model, SMALL, prompts, seed=3, **READING)
    thought = generate_best(model, SMALL, prompts, "image", think=True, seed=3)
    assert thought == generate(model, SMALL, said, "image", seed=3)
    tries = generate(model, SMALL, said * 6, "image", seed=3)
    best = backward_log_likelihood(model, SMALL, prompts * 6, tries, think=True).argmax()
    assert generate_best(model, SMALL, prompts, "image", think=True, best_of=6, seed=3) == [tries[best]]


def test_after_an_instruction_the_best_picture_is_the_one_that_shows_what_was_said():
    model, prompts = wild_model(7), [[Segment("image", (1, 2, 3, 4, 5)), Segment("text", (1, 2))]]
    said = [[*prompts[0], augmented_consensus(model, SMALL, verbalize(model, SMALL, prompts))[0]]]
    tries = generate(model, SMALL, said * 6, "image", seed=3)
    best = backward_log_likelihood(model, SMALL, said * 6, tries).argmax()
    assert generate_best(model, SMALL, prompts, "image", think=True, best_of=6, seed=3) == [tries[best]]


def test_the_best_text_is_likely_both_ways():
    model, prompts = wild_model(8), [[Segment("image", (1, 2, 3, 4, 5))], [Segment("image", (5, 4, 3, 2, 1))]]
    every = generate(model, SMALL, prompts * 5, "text", temperature=1.5, seed=2)
    there = backward_log_likelihood(model, SMALL, [[text] for text in every], [prompt[0] for prompt in prompts * 5])
    scores = there + backward_log_likelihood(model, SMALL, prompts * 5, every)
    best = generate_best(model, SMALL, prompts, "text", best_of=5, temperature=1.5, seed=2)
    assert best == [every[i::2][int(scores[i::2].argmax())] for i in (0, 1)]


def test_what_is_heard_several_ways_is_written_as_all_of_them_suggest():
    model = wild_model(9)
    sounds = [[Segment("audio", (1, 2, 0, 3)), Segment("audio", (1, 2)), Segment("audio", (3, 0, 0, 3, 1, 1))],
              [Segment("audio", (0, 0)), Segment("audio", (2, 2, 3, 3))]]
    views = [[[heard] for heard in sound] for sound in sounds]
    for sound, ways, best in zip(sounds, views, augmented_consensus(model, SMALL, views), strict=True):
        proposals = generate(model, SMALL, ways, "text", temperature=0.0)
        means = [backward_log_likelihood(model, SMALL, [[text]] * len(sound), sound).mean() for text in proposals]
        assert best == proposals[int(torch.stack(means).argmax())]
    asked = [ways[0] for ways in views]
    texts = augmented_consensus(model, SMALL, views)
    assert generate_best(model, SMALL, asked, "text", views=views, best_of=3) == texts
    drawn = generate(model, SMALL, [[*p, t] for p, t in zip(asked, texts, strict=True)], "image", seed=4)
    assert generate_best(model, SMALL, asked, "image", think=True, views=views, seed=4) == drawn
    assert augmented_consensus(model, SMALL, []) == [] == verbalize(model, SMALL, [])


def test_one_view_gives_the_likeliest_text():
    model, prompt = wild_model(9), [Segment("audio", (1, 2, 0, 3))]
    assert augmented_consensus(model, SMALL, [[prompt]]) == generate(model, SMALL, [prompt], "text", temperature=0.0)


def test_a_question_in_words():
    model, cat, bell, told = wild_model(9), Segment("image", (1, 2, 3, 4, 5)), Segment("audio", (1, 2, 0, 3)), Segment("text", (1, 2))
    (_, cat_said), (_, bell_said) = caption_first(model, SMALL, [[cat], [bell]])
    prompts = [[cat, told], [told, told], [bell, told, cat]]
    assert verbalize(model, SMALL, prompts) == [[[cat, told], [cat_said, told]], [[told, told], [told, told]],
                                               [[bell, told, cat], [bell_said, told, cat_said]]]


def test_likelihood_is_the_sum_over_the_tokens_of_the_answer():
    model, prompt, answer = wild_model(3), [Segment("image", (1, 2, 3, 4, 5)), Segment("text", (1,))], Segment("text", (2, 0, 1))
    given, asked = SMALL.pack(prompt), SMALL.pack([answer])
    with torch.no_grad():
        log_p = model(torch.tensor([given + asked[:-1]])).log_softmax(-1)[0]
    expected = sum(log_p[len(given) + i, asked[i + 1]] for i in range(len(asked) - 1)).item()
    assert log_likelihood(model, SMALL, [prompt, prompt[:1]], [answer, answer])[0].item() == pytest.approx(expected, rel=1e-4)
