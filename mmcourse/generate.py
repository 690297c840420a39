"""Sampling from the transformer: modality masks, temperature, top-k, top-p, classifier-free guidance.

Whatever the prompt, the temperature and the seed, what comes out parses: the masks allow nothing else.
"""
import math

import torch

from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, PAD, Segment, Vocabulary

MAX_CONTENT = {"text": 48, "image": 64, "audio": 96}
READING = {"temperature": 0.7, "best_of": 8}            # how a picture or a sound is put into words with care


def filter_logits(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """Keep the `top_k` likeliest tokens and the smallest set that holds `top_p` of the probability: (B, V) -> (B, V)."""
    if top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"top_k is 0 (all tokens) or more and 0 < top_p <= 1 (all), got {top_k} and {top_p}")
    if top_k:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)          # probability of all that is likelier
        drop = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def sample(logits: torch.Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
           generator: torch.Generator | None = None) -> torch.Tensor:
    """One token a row: (B, V) -> (B,). Temperature 0 takes the likeliest."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and not negative, got {temperature}; 0 takes the likeliest token")
    if temperature == 0:
        return logits.argmax(-1)
    scaled = (logits - logits.amax(-1, keepdim=True)).double() / temperature   # no overflow, however cold
    probabilities = filter_logits(scaled, top_k, top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def modality_mask(vocabulary: Vocabulary, modality: str, index: int, limit: int) -> torch.Tensor:
    """Which ids may stand as content token `index` of a segment, its closing token included: (vocab,) bool."""
    mask = torch.zeros(vocabulary.size, dtype=torch.bool)
    full = vocabulary.may_close(modality, index) and (index >= limit or modality == "image")
    if not full:
        allowed = vocabulary.allowed(modality, index)
        mask[allowed.start:allowed.stop] = True
    if vocabulary.may_close(modality, index):
        mask[CLOSE[modality]] = True
    return mask


def content_limit(vocabulary: Vocabulary, want: str, limit: int | None = None) -> int:
    """The most content tokens of an answer: `limit` if it fits the modality, else ValueError; None: the usual one."""
    unit = {"text": 1, "image": vocabulary.image_tokens, "audio": vocabulary.audio_levels}[want]
    if limit is None:
        return unit if want == "image" else MAX_CONTENT[want] // unit * unit
    if limit < 1 or limit % unit or (want == "image" and limit != unit):
        raise ValueError(f"limit={limit} does not fit {want}: " + (f"a picture has {unit} tokens" if want == "image"
                         else f"give a positive multiple of {unit}"))
    return limit


@torch.no_grad()
def generate(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], want: str, *,
             temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, guidance: float = 1.0, seed: int | None = None,
             use_cache: bool = True, limit: int | None = None) -> list[Segment]:
    """Continue each prompt with one segment of the wanted modality.

    Args:
        prompts: one list of segments for each answer; all are answered in one batch.
        want: `text`, `image` or `audio`.
        guidance: classifier-free guidance (Ho & Salimans 2022): logits = empty + guidance x (with prompt - empty). 1: none.
        limit: the most content tokens (a multiple of the audio levels for audio); a picture always has all of its own.
        use_cache: False recomputes everything for each token: slow, and the proof that the cache changes nothing.
    """
    if want not in MODALITIES:
        raise ValueError(f"want is one of {MODALITIES}, got {want!r}")
    if model.vocab_size != vocabulary.size:
        raise ValueError(f"the model has {model.vocab_size} ids, the vocabulary {vocabulary.size}: take its own")
    if any(isinstance(prompt, Segment) for prompt in prompts):
        raise TypeError("prompts is a list of prompts, and a prompt is a list of segments: write [[segment]]")
    if not prompts:
        return []
    limit = content_limit(vocabulary, want, limit)
    packed = [[*vocabulary.pack(p), OPEN[want]] for p in prompts]
    longest = max(map(len, packed))
    if longest + limit + 1 > model.context:
        raise ValueError(f"the prompt has {longest - 1} tokens; with up to {limit + 2} for the answer that is more than the "
                         f"context of {model.context}: shorten it by {longest + limit + 1 - model.context} tokens")
    out: list[Segment | None] = [None] * len(prompts)
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    for length in sorted({len(p) for p in packed}):                    # prompts of one length go together: no padding
        rows = [i for i, p in enumerate(packed) if len(p) == length]
        ids = torch.tensor([packed[i] for i in rows])
        empty = torch.full((len(rows), 1), OPEN[want]) if guidance != 1 else None
        answers = _continue(model, vocabulary, ids, empty, want, limit, guidance, use_cache,
                            lambda logits: sample(logits, temperature, top_k, top_p, generator))
        for i, answer in zip(rows, answers, strict=True):
            starts = [vocabulary.allowed(want, j).start for j in range(len(answer))]
            out[i] = Segment(want, tuple(t - s for t, s in zip(answer, starts, strict=True)))
    return out


def _continue(model, vocabulary, ids, empty, want, limit, guidance, use_cache, choose) -> list[list[int]]:
    """The loop: (B, T) prompt ids -> for each row the content ids up to its closing token."""
    caches = [model.new_cache(len(ids)), model.new_cache(len(ids))] if use_cache else [None, None]
    new, new_empty, start = ids, empty, ids.shape[1]
    done = torch.zeros(len(ids), dtype=torch.bool)
    for index in range(limit + 1):
        logits = model(new.to(model.device), caches[0])[:, -1].cpu()   # the dice are rolled on the CPU: seeds mean the same
        if empty is not None:
            base = model(new_empty.to(model.device), caches[1])[:, -1].cpu()
            logits = base + guidance * (logits - base)
        logits = logits.masked_fill(~modality_mask(vocabulary, want, index, limit), -torch.inf)
        token = choose(logits).masked_fill(done, PAD)
        ids = torch.cat([ids, token[:, None]], 1)
        done |= token == CLOSE[want]
        if done.all():
            break
        new = token[:, None] if use_cache else ids
        if empty is not None:
            empty = torch.cat([empty, token[:, None]], 1)
            new_empty = token[:, None] if use_cache else empty
    return [row[:row.index(CLOSE[want])] for row in ids[:, start:].tolist()]


def say_first(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], **sampling) -> list[list[Segment]]:
    """Each prompt, followed by what the model says of it in words, to be drawn or spoken from there.

    Its likeliest text, or what `generate_best` finds with `sampling`.
    """
    said = generate_best(model, vocabulary, prompts, "text", **{"temperature": 0.0, **sampling})
    return [[*prompt, text] for prompt, text in zip(prompts, said, strict=True)]


@torch.no_grad()
def likelihood(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], answers: list[Segment]) -> torch.Tensor:
    """Log-probability of each answer, its boundary tokens aside, after its prompt: (B,) in nats."""
    rows = [(vocabulary.pack(prompt), vocabulary.pack([answer])) for prompt, answer in zip(prompts, answers, strict=True)]
    ids = torch.full((len(rows), max(len(p) + len(a) for p, a in rows)), PAD)
    asked = torch.zeros_like(ids, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(rows):
        ids[i, :len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        asked[i, len(prompt) + 1:len(prompt) + len(answer)] = True
    ids, asked = ids.to(model.device), asked.to(model.device)
    row, at = asked[:, 1:].nonzero(as_tuple=True)                      # only the tokens of answers need their logits
    told = model.head(model.hidden(ids[:, :-1])[row, at]).log_softmax(-1)                  # (n, vocab)
    told = told.gather(1, ids[row, at + 1][:, None])[:, 0]
    return torch.zeros(len(rows), device=model.device).index_add(0, row, told).cpu()


def read_back(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], answers: list[Segment],
              think: bool = False) -> torch.Tensor:
    """How well the model can tell the prompt from its answer: log-probability of each prompt's last segment, (B,) in nats.

    With `think` it first says in words what it sees or hears in its own answer.
    """
    given = [[answer] for answer in answers]
    given = say_first(model, vocabulary, given) if think else given
    return likelihood(model, vocabulary, given, [prompt[-1] for prompt in prompts])


def in_words(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]]) -> list[list[list[Segment]]]:
    """Two views of each question: as it was asked, and with its pictures and sounds put into words."""
    shown = list(dict.fromkeys(segment for prompt in prompts for segment in prompt if segment.modality != "text"))
    said = say_first(model, vocabulary, [[segment] for segment in shown])
    words = {segment: text for segment, text in said}
    return [[prompt, [words.get(segment, segment) for segment in prompt]] for prompt in prompts]


def consensus(model: Transformer, vocabulary: Vocabulary, views: list[list[list[Segment]]]) -> list[Segment]:
    """One text for several views of each question, such as a recording at its own tempo and played a little faster and slower.

    Each view proposes its likeliest text; kept is the proposal that is likeliest after all of them, on average. What a change
    that says nothing does to the answer is luck, and luck averages out (test-time augmentation, as in Krizhevsky et al. 2012).

    Args:
        views: for each question the prompts (one at least) that it becomes when it is asked in different ways.
    """
    each = iter(generate(model, vocabulary, [view for question in views for view in question], "text", temperature=0.0))
    out = []
    for question in views:
        proposals = list(dict.fromkeys(next(each) for _ in question))
        pairs = [(view, text) for text in proposals for view in question]
        scores = likelihood(model, vocabulary, [view for view, _ in pairs], [text for _, text in pairs])
        out.append(proposals[scores.view(len(proposals), len(question)).mean(1).argmax()])
    return out


def generate_best(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], want: str, *, best_of: int = 1,
                  think: bool = False, views: list[list[list[Segment]]] | None = None, **sampling) -> list[Segment]:
    """As `generate`, but of `best_of` answers keep the one from which the model itself can best tell the prompt.

    DALL-E (Ramesh et al. 2021) drew 512 pictures and let a second network, CLIP, choose. A model that goes both ways is
    its own CLIP. A text must also be likely the way it was written: both log-probabilities are added (a noisy channel,
    Brown et al. 1993). With `think`, it says in words what it was given and answers from both, and in words what it
    answered; after an instruction it says what the answer shall be, and the best answer is the one that shows that.

    `views` are the prompts, each in different ways: what is said in words comes from all of these (`consensus`). After an
    instruction these are what is shown and what it is called (`in_words`), unless others are given.
    """
    if not isinstance(best_of, int) or best_of < 1:
        raise ValueError(f"best_of is a whole number of 1 or more, got {best_of!r}")
    asked = prompts
    if views and want == "text":
        return consensus(model, vocabulary, views)
    if think and not views and all(len(prompt) > 1 for prompt in prompts):
        views = in_words(model, vocabulary, prompts)
    if think and views:
        said = consensus(model, vocabulary, views)
        asked = [[*prompt, text] for prompt, text in zip(prompts, said, strict=True)]
    elif think:                                                         # one picture or sound is read with care
        asked = say_first(model, vocabulary, prompts, seed=sampling.get("seed"), **READING)
    answers = generate(model, vocabulary, asked * best_of, want, **sampling)
    if best_of == 1 or not prompts:
        return answers
    told = think and any(len(prompt) > 1 for prompt in prompts)        # what was said is a caption of the answer
    scores = read_back(model, vocabulary, (asked if told else prompts) * best_of, answers, think and not told)
    if want == "text":
        scores += likelihood(model, vocabulary, prompts * best_of, answers)
    best = scores.view(best_of, len(prompts)).argmax(0).tolist()       # (best_of * B,) -> (best_of, B)
    return [answers[k * len(prompts) + i] for i, k in enumerate(best)]
