"""Sampling from the transformer: modality masks, temperature, top-k, top-p, classifier-free guidance.

Whatever the prompt, the temperature and the seed, what comes out parses: the masks allow nothing else.
"""
import math
from collections.abc import Callable

import torch
from torch import nn

from mmcourse.checks import check_seed, whole
from mmcourse.parallel import Draft, WindowLogits, as_found, continue_at_once, race, throw_dice
from mmcourse.transformer import KVCache, Transformer
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, PAD, Segment, Vocabulary

MAX_CONTENT = {"text": 48, "image": 64, "audio": 96}            # tokens of an answer, at most
FEW = {"drafted": 4, "blind": 2}                                # pictures, for which many tokens in one pass are quicker
WINDOW = {"drafted": 64, "blind": 16}                           # places that such a pass looks at


def filter_logits(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """Keep the `top_k` likeliest tokens and the smallest set that holds `top_p` of the probability:
    (B, V) -> (B, V)."""
    check_filter(top_k, top_p)
    if top_k:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of all that is likelier
        drop = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def sample(logits: torch.Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
           generator: torch.Generator | None = None) -> torch.Tensor:
    """One token a row: (B, V) -> (B,). Temperature 0 takes the likeliest."""
    check_temperature(temperature)
    if temperature == 0:
        return logits.argmax(-1)
    scaled = (logits - logits.amax(-1, keepdim=True)).double() / temperature   # no overflow, however cold
    probabilities = filter_logits(scaled, top_k, top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def modality_mask(vocabulary: Vocabulary, modality: str, index: int, limit: int) -> torch.Tensor:
    """Which ids may stand as content token `index` of a segment, its closing token
    included: (vocab,) bool."""
    mask = torch.zeros(vocabulary.size, dtype=torch.bool)
    full = vocabulary.may_close(modality, index) and (index >= limit or modality == "image")
    if not full:
        allowed = vocabulary.allowed(modality, index)
        mask[allowed.start:allowed.stop] = True
    if vocabulary.may_close(modality, index):
        mask[CLOSE[modality]] = True
    return mask


class NextLogits:
    """The logits of the next token, given the tokens so far, with classifier-free guidance
    (Ho & Salimans 2022): unconditional + guidance x (conditional - unconditional). The unconditional row
    begins with the answer: it saw no prompt.

    With a cache only the new tokens go through the model; without, all go again for each token: slow, and the
    proof that the cache changes nothing.
    """

    def __init__(self, model: Transformer, batch: int, guidance: float = 1.0, use_cache: bool = True):
        self.model, self.guidance, self.use_cache = model, guidance, use_cache
        n = 1 if guidance == 1 else 2
        self.caches = [KVCache(model, batch) if use_cache else None for _ in range(n)]
        self.seen = [torch.empty(batch, 0, dtype=torch.long) for _ in range(n)]

    def __call__(self, new: torch.Tensor) -> torch.Tensor:
        """New tokens (B, T), the first time the whole prompt -> logits of the next one (B, V), on the CPU."""
        conditional = self._after(0, new)
        if self.guidance == 1:
            return conditional
        unconditional = self._after(1, new[:, -1:])  # of a prompt: the token that opens the answer
        return unconditional + self.guidance * (conditional - unconditional)

    def _after(self, i: int, new: torch.Tensor) -> torch.Tensor:
        if not self.use_cache:
            new = self.seen[i] = torch.cat([self.seen[i], new], 1)
        # dice on the CPU: seeds mean the same
        return self.model(new.to(self.model.device), self.caches[i])[:, -1].cpu()


def paint_at_once(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]],
                  guidance: float, temperature: float, top_k: int, top_p: float,
                  generator: torch.Generator | None, drafter: nn.Module | None = None,
                  together: int = 1) -> list[list[int]]:
    """Pictures for prompts of one length, many tokens in one pass: the same ids that
    `continue_rows` finds with this generator (chapter 12).

    Args:
        drafter: the net of a `Draft`; without, or if a prompt does not end with words, the
            guesses are blind.
        together: how many pictures go through the model at once; they wait for each other.
    """
    start, n = vocabulary.ranges["image"].start, vocabulary.image_tokens
    codes, noise = slice(start, vocabulary.ranges["image"].stop), None
    if temperature > 0:  # one at a time, dice are thrown for the closing token, too
        noise = throw_dice(n + 1, len(prompts), vocabulary.size, generator)
        noise = noise[:, :n, codes]  # (B, n, codes)
    drafted = drafter is not None and all(prompt and prompt[-1].modality == "text"
                                          for prompt in prompts)
    window, out = WINDOW["drafted" if drafted else "blind"], []
    for i in range(0, len(prompts), together):
        part = prompts[i:i + together]
        dice = None if noise is None else noise[i:i + together]

        def choose(logits, first, dice=dice):
            logits = logits[..., codes]
            if dice is None:
                return logits.argmax(-1) + start
            scaled = (logits - logits.amax(-1, keepdim=True)).double() / temperature
            kept = filter_logits(scaled.flatten(0, 1), top_k, top_p)  # (B * W, codes)
            kept = kept.view_as(scaled).softmax(-1)
            return race(kept, dice[:, first:first + logits.shape[1]]) + start

        draft = Draft(drafter, part, temperature, dice, start) if drafted else as_found
        ids = torch.tensor([[*vocabulary.pack(prompt), OPEN["image"]] for prompt in part])
        out += continue_at_once(WindowLogits(model, len(part), guidance), ids, choose,
                                torch.full((len(part), n), start), window, draft).tolist()
    return out


@torch.no_grad()
def generate(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], want: str, *,
             temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, guidance: float = 1.0,
             seed: int | None = None, use_cache: bool = True, limit: int | None = None,
             drafter: nn.Module | None = None) -> list[Segment]:
    """Continue each prompt with one segment of the wanted modality.

    Args:
        prompts: one list of segments for each answer; all are answered in one batch.
        want: `text`, `image` or `audio`.
        guidance: classifier-free guidance (`NextLogits`). 1: none.
        limit: the most content tokens (a multiple of the audio levels for audio); a picture always
            has all of its own.
        use_cache: False recomputes everything for each token; otherwise a few pictures are painted many
            tokens in one pass.
        drafter: guesses them first (`parallel.Draft`); it changes how long it takes, and nothing else.
    """
    check_seed(seed)
    check_guidance(guidance)
    check_temperature(temperature)
    limit = check_request(model, vocabulary, prompts, want, limit)
    generator = torch.Generator().manual_seed(int(seed)) if seed is not None else None
    packed = [[*vocabulary.pack(prompt), OPEN[want]] for prompt in prompts]
    answers: list[Segment | None] = [None] * len(prompts)
    for length in sorted(set(map(len, packed))):  # prompts of one length go together: no padding
        rows = [i for i, ids in enumerate(packed) if len(ids) == length]
        few = FEW["drafted" if drafter else "blind"]
        if want == "image" and use_cache and len(rows) <= few:
            contents = paint_at_once(model, vocabulary, [prompts[i] for i in rows], guidance, temperature,
                                     top_k, top_p, generator, drafter)
        else:
            next_logits = NextLogits(model, len(rows), guidance, use_cache)
            contents = continue_rows(next_logits, torch.tensor([packed[i] for i in rows]), vocabulary, want,
                                     limit, lambda logits: sample(logits, temperature, top_k, top_p, generator))
        for i, content in zip(rows, contents):
            starts = [vocabulary.allowed(want, j).start for j in range(len(content))]
            answers[i] = Segment(want, tuple(token - start for token, start in zip(content, starts)))
    return answers


def continue_rows(next_logits: Callable, ids: torch.Tensor, vocabulary: Vocabulary, want: str, limit: int,
                  choose: Callable) -> list[list[int]]:
    """The loop: prompts (B, T) -> for each the content ids up to the closing token. `choose`: logits
    (B, V) -> tokens (B,)."""
    new, answer = ids, []
    done = torch.zeros(len(ids), dtype=torch.bool)
    for index in range(limit + 1):
        logits = next_logits(new).masked_fill(~modality_mask(vocabulary, want, index, limit), -torch.inf)
        token = choose(logits).masked_fill(done, PAD)
        answer.append(token)
        done |= token == CLOSE[want]
        if done.all():
            break
        new = token[:, None]
    return [row[:row.index(CLOSE[want])] for row in torch.stack(answer, 1).tolist()]


def content_limit(vocabulary: Vocabulary, want: str, limit: int | None = None) -> int:
    """The most content tokens of an answer: `limit` if it fits the modality, else ValueError;
    None: the usual one."""
    unit = {"text": 1, "image": vocabulary.image_tokens, "audio": vocabulary.audio_levels}[want]
    if limit is None:
        return unit if want == "image" else MAX_CONTENT[want] // unit * unit
    if limit < 1 or limit % unit or (want == "image" and limit != unit):
        raise ValueError(f"limit={limit} does not fit {want}: "
                         + (f"a picture has {unit} tokens" if want == "image"
                            else f"give a positive multiple of {unit}"))
    return limit


def check_filter(top_k: int, top_p: float) -> None:
    """ValueError for a top-k or top-p that means nothing."""
    if whole(top_k) is None or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"top_k is 0 (all tokens) or more and 0 < top_p <= 1 (all), got {top_k} and {top_p}")


def check_temperature(temperature: float) -> None:
    """ValueError for a temperature that means nothing."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and not negative, got {temperature}; 0 takes the "
                         "likeliest token")


def check_guidance(guidance: float) -> None:
    """ValueError for a strength of guidance that is no finite number."""
    if not math.isfinite(guidance):
        raise ValueError(f"guidance is a finite number, got {guidance}; 1 is none, 1.5 a good choice for "
                         "pictures")


def check_request(model: Transformer, vocabulary: Vocabulary, prompts: list[list[Segment]], want: str,
                  limit: int | None) -> int:
    """The most content tokens of an answer; ValueError or TypeError for what cannot be answered."""
    if want not in MODALITIES:
        raise ValueError(f"want is one of {MODALITIES}, got {want!r}")
    if model.vocab_size != vocabulary.size:
        raise ValueError(f"the model has {model.vocab_size} ids, the vocabulary {vocabulary.size}: "
                         "take its own")
    if any(isinstance(prompt, Segment) for prompt in prompts):
        raise TypeError("prompts is a list of prompts, and a prompt is a list of segments: write [[segment]]")
    limit = content_limit(vocabulary, want, limit)
    # each segment stands between two boundary tokens; `generate` packs them, once
    longest = max((sum(len(segment.ids) + 2 for segment in prompt) for prompt in prompts), default=0)
    if longest + 1 + limit + 1 > model.context:  # the answer stands between two boundary tokens
        raise ValueError(f"the prompt has {longest} tokens; with up to {limit + 2} for the answer that is "
                         f"more than the context of {model.context}: shorten it by "
                         f"{longest + limit + 2 - model.context} tokens")
    return limit
