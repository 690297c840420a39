"""How the model answers with care: several drafts of which one is kept, and words before pictures and sounds.

One function for each strategy, and one table (`PRESETS`) that says which direction uses which, with which
sampling. A direction is the modalities of the prompt and of the answer: ("image", "text", "image") is an
edit. All strategies work on batches whose prompts have the same modalities.
"""
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from mmcourse.checks import check_whole
from mmcourse.generate import generate
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import PAD, Segment, Vocabulary

Prompt = list[Segment]
MOST_DRAFTS = 512       # as many as DALL-E drew
LIKELIHOOD_BATCH = 16  # sequences that are weighed together: their activations stay in the processor's cache


# ---------------------------------------------------------------- how likely is an answer?

def log_likelihood(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt],
                   answers: list[Segment]) -> torch.Tensor:
    """Log-probability of each answer, its opening token aside, after its prompt: (B,) in nats.

    Equal questions (drafts often agree) are asked once, and those of like length together.
    """
    check_pairs(prompts, answers)
    pairs = [(tuple(prompt), answer) for prompt, answer in zip(prompts, answers)]
    order = sorted(dict.fromkeys(pairs), key=lambda pair: sum(len(segment.ids)
                                                              for segment in (*pair[0], pair[1])))
    found = {}
    for i in range(0, len(order), LIKELIHOOD_BATCH):
        part = order[i:i + LIKELIHOOD_BATCH]
        found.update(zip(part, sum_log_probs(model, vocabulary, part).tolist()))
    return torch.tensor([found[pair] for pair in pairs])


@torch.no_grad()
def sum_log_probs(model: Transformer, vocabulary: Vocabulary,
                  pairs: list[tuple[Prompt, Segment]]) -> torch.Tensor:
    """(prompt, answer) pairs in one batch -> the log-probabilities of each answer's tokens, summed: (B,)."""
    rows = [(vocabulary.pack(prompt), vocabulary.pack([answer])) for prompt, answer in pairs]
    ids = torch.full((len(rows), max(len(p) + len(a) for p, a in rows)), PAD)
    mask = torch.zeros_like(ids, dtype=torch.bool)                     # the tokens of answers
    for i, (prompt, answer) in enumerate(rows):
        ids[i, :len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask[i, len(prompt) + 1:len(prompt) + len(answer)] = True
    ids, mask = ids.to(model.device), mask.to(model.device)
    row, position = mask[:, 1:].nonzero(as_tuple=True)                 # only they need their logits
    log_probs = model.head(model.hidden(ids[:, :-1])[row, position]).log_softmax(-1)       # (n, vocab)
    log_probs = log_probs.gather(1, ids[row, position + 1][:, None])[:, 0]
    return torch.zeros(len(rows), device=model.device).index_add(0, row, log_probs).cpu()


def backward_log_likelihood(model: Transformer, vocabulary: Vocabulary, answers: list[Segment],
                            targets: list[Segment]) -> torch.Tensor:
    """How well the model can tell from its answer what it was asked: log p(target | answer), (B,) in nats."""
    return log_likelihood(model, vocabulary, [[answer] for answer in answers], targets)


def retold_log_likelihood(model: Transformer, vocabulary: Vocabulary, answers: list[Segment],
                          targets: list[Segment]) -> torch.Tensor:
    """As `backward_log_likelihood`, but the model first puts its own answer into words: (B,) in nats."""
    captioned = caption_first(model, vocabulary, [[answer] for answer in answers])
    return log_likelihood(model, vocabulary, captioned, targets)


# ---------------------------------------------------------------- drafts and words

def best_of_n(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], want: str, n: int,
              targets: list[Segment], score: Callable = backward_log_likelihood, **sampling) -> list[Segment]:
    """Of `n` answers to each prompt, the one from which the model itself can best tell the target.

    DALL-E (Ramesh et al. 2021) drew 512 pictures and let a second network, CLIP, choose. A model that goes
    both ways is its own CLIP. A text must also be likely the way it was written: both log-probabilities are
    added (a noisy channel, Brown et al. 1993).
    """
    check_best_of(n)
    answers = generate(model, vocabulary, prompts * n, want, **sampling)
    if n == 1 or not prompts:
        return answers
    scores = score(model, vocabulary, answers, targets * n)
    if want == "text":
        scores += log_likelihood(model, vocabulary, prompts * n, answers)
    best = scores.view(n, len(prompts)).argmax(0).tolist()             # (n * B,) -> (n, B)
    return [answers[k * len(prompts) + i] for i, k in enumerate(best)]


def caption_first(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], best_of: int = 1,
                  **sampling) -> list[Prompt]:
    """Each prompt, followed by what the model says of it in words: the likeliest text unless
    `sampling` says otherwise."""
    said = answer_directly(model, vocabulary, prompts, "text", best_of, **{"temperature": 0.0, **sampling})
    return [[*prompt, text] for prompt, text in zip(prompts, said)]


def verbalize(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt]) -> list[list[Prompt]]:
    """Two views of each question: as it was asked, and with its pictures and sounds put into words."""
    shown = list(dict.fromkeys(segment for prompt in prompts for segment in prompt
                               if segment.modality != "text"))
    words = dict(caption_first(model, vocabulary, [[segment] for segment in shown])) if shown else {}
    return [[prompt, [words.get(segment, segment) for segment in prompt]] for prompt in prompts]


def augmented_consensus(model: Transformer, vocabulary: Vocabulary,
                        views: list[list[Prompt]]) -> list[Segment]:
    """One text for several views of each question, such as a recording at its own tempo and played a little
    faster and slower.

    Each view proposes its likeliest text; kept is the proposal that is likeliest after all of them, on
    average. What a change that says nothing does to the answer is luck, and luck averages out (test-time
    augmentation, as in Krizhevsky et al. 2012).

    Args:
        views: for each question the prompts (one at least) that it becomes when it is asked
            in different ways.
    """
    each = iter(generate(model, vocabulary, [view for question in views for view in question], "text",
                         temperature=0.0))
    out = []
    for question in views:
        proposals = list(dict.fromkeys(next(each) for _ in question))
        if len(proposals) == 1:  # all views agree: there is nothing to weigh
            out += proposals
            continue
        pairs = [(view, text) for text in proposals for view in question]
        scores = log_likelihood(model, vocabulary, [view for view, _ in pairs], [text for _, text in pairs])
        out.append(proposals[scores.view(len(proposals), len(question)).mean(1).argmax()])
    return out


# ---------------------------------------------------------------- the strategies

def answer_directly(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], want: str,
                    best_of: int = 1, **sampling) -> list[Segment]:
    """Answer from the prompt alone; of several drafts keep the one that best tells the
    prompt's last segment."""
    return best_of_n(model, vocabulary, prompts, want, best_of, [prompt[-1] for prompt in prompts],
                     **sampling)


def answer_heard(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], want: str,
                 best_of: int = 1, views: list[list[Prompt]] | None = None, **sampling) -> list[Segment]:
    """Write down a sound: the text on which all its `views` agree best; without views as
    `answer_directly`."""
    if views:
        return augmented_consensus(model, vocabulary, views)
    return answer_directly(model, vocabulary, prompts, want, best_of, **sampling)


def answer_retold(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], want: str,
                  best_of: int = 1, views: list[list[Prompt]] | None = None, **sampling) -> list[Segment]:
    """Put a picture or a sound into words, answer from both, keep the draft that tells it best when
    retold in words.

    The words are those on which all `views` agree best; without views, the best of `best_of` readings.
    """
    if views:
        said = augmented_consensus(model, vocabulary, views)
        asked = [[*prompt, text] for prompt, text in zip(prompts, said)]
    else:
        reading = {**PRESETS["image", "text"].sampling, "best_of": best_of} if best_of > 1 else {}
        asked = caption_first(model, vocabulary, prompts, seed=sampling.get("seed"), **reading)
    return best_of_n(model, vocabulary, asked, want, best_of, [prompt[-1] for prompt in prompts],
                     retold_log_likelihood, **sampling)


def answer_edit(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], want: str,
                best_of: int = 1, views: list[list[Prompt]] | None = None, **sampling) -> list[Segment]:
    """Say what the picture shall be, draw that, keep the draft that shows what was said.

    The words come from all `views`; by default the question as it was asked and in words alone
    (`verbalize`). []: one view.
    """
    views = (verbalize(model, vocabulary, prompts) if views is None
             else views or [[prompt] for prompt in prompts])
    said = augmented_consensus(model, vocabulary, views)
    asked = [[*prompt, text] for prompt, text in zip(prompts, said)]
    return best_of_n(model, vocabulary, asked, want, best_of, said, **sampling)


# ---------------------------------------------------------------- the table

@dataclass(frozen=True)
class Preset:
    """How a direction is answered if nobody says otherwise: a strategy, how many drafts, and how
    they are sampled."""
    strategy: Callable = answer_directly
    best_of: int = 1
    temperature: float = 0.0
    guidance: float = 1.0

    @property
    def sampling(self) -> dict:
        """The settings as keyword arguments of the strategy."""
        return {name: value for name, value in asdict(self).items() if name != "strategy"}

    @property
    def says_first(self) -> bool:
        """Whether words come before the answer."""
        return self.strategy in (answer_retold, answer_edit)


PRESETS = {
    ("text", "image"): Preset(best_of=8, temperature=1.0, guidance=1.5),
    ("text", "audio"): Preset(best_of=8, temperature=0.7),
    ("image", "text"): Preset(best_of=8, temperature=0.7),
    ("audio", "text"): Preset(answer_heard, best_of=8, temperature=0.7),
    ("audio", "image"): Preset(answer_retold, best_of=8, temperature=1.0, guidance=1.5),
    ("image", "audio"): Preset(answer_retold, best_of=8, temperature=0.7),
    ("image", "text", "image"): Preset(answer_edit, best_of=8, temperature=1.0, guidance=1.5),
    ("image", "image"): Preset(),                       # mostly a copy: no luck is wanted
}
# by what is wanted
OTHERS = {"text": Preset(), "image": PRESETS["text", "image"], "audio": PRESETS["text", "audio"]}


def route(prompt: Prompt, want: str) -> tuple[str, ...]:
    """The modalities of the prompt and of the answer: the key of `PRESETS`."""
    return (*(segment.modality for segment in prompt), want)


def preset(prompt: Prompt, want: str) -> Preset:
    """How a prompt like this is answered if nobody says otherwise."""
    return PRESETS.get(route(prompt, want), OTHERS[want])


def answer(model: Transformer, vocabulary: Vocabulary, prompts: list[Prompt], want: str, *,
           say_first: bool | None = None, views: list[list[Prompt]] | None = None,
           **sampling) -> list[Segment]:
    """Answer a batch of prompts by the preset of their direction.

    Args:
        say_first: whether words come before a picture or a sound (an edit says what it means to draw,
            everything else what it was given); None: as the preset has it.
        views: each question asked in several ways, for strategies that use words or write down sounds.
        sampling: `best_of`, `temperature`, `guidance`, ... in place of the preset's.

    ValueError if the prompts of the batch have different modalities.
    """
    if not prompts:
        return []
    if len({route(prompt, want) for prompt in prompts}) > 1:
        raise ValueError("the prompts of one batch have the same modalities in the same order: ask the "
                         "others in a batch of their own")
    chosen = preset(prompts[0], want)
    strategy, sampling = chosen.strategy, {**chosen.sampling, **sampling}
    if say_first is not None and say_first != chosen.says_first:
        strategy = (answer_edit if len(prompts[0]) > 1 else answer_retold) if say_first else answer_directly
    if views is not None and strategy is not answer_directly:
        sampling["views"] = views
    return strategy(model, vocabulary, prompts, want, **sampling)


def check_pairs(prompts: list[Prompt], answers: list[Segment]) -> None:
    """ValueError if there is not one answer to each prompt."""
    if len(prompts) != len(answers):
        raise ValueError(f"one answer to each prompt, got {len(prompts)} prompts and {len(answers)} answers")


def check_best_of(n: int) -> None:
    """ValueError for a number of drafts that is none."""
    check_whole(n, "best_of", MOST_DRAFTS)
