"""What chapter 10 asks of the shipped model, which never saw an episode: can it learn from examples in its prompt?

Four questions, a function each: `forced`, `binding`, `rule`, `voice`. Each gives a row of numbers for `n` episodes. What
is counted is a number of these, so `wilson(row[key], n)` is its interval. The model learned from sequences of at most
`SEGMENTS_LEARNED` segments; which prompts have more is said with each question. Pictures and sounds are drawn with
the sampling of `rerank.PRESETS`, a single draft of each; texts are the likeliest, token by token.

Sources: invented words for things that are shown, Carey and Bartlett 1978, and for networks Tsimpoukelli et al. 2021
(2106.13884); a voice from a short prompt, Wang et al. 2023 (VALL-E, 2301.02111).
"""
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from mmcourse import checkpoints
from mmcourse.assistant import Assistant, load
from mmcourse.checks import check_seed, check_whole
from mmcourse.dataset import DIRECTIONS
from mmcourse.evaluate import Evaluation
from mmcourse.judges.hearing import stack
from mmcourse.judges.pitch import cents, pitch_track
from mmcourse.rerank import log_likelihood
from mmcourse.vocabulary import Segment
from mmcourse.world.grammar import PLACES
from mmcourse.world.scene import BACKGROUNDS, NOUNS, WORLD, Group, Scene, held_out_voice
from mmcourse.world.speech import LONGEST, VOICES, speak, to_clip

NEW_WORDS = ("dax", "fep", "toma", "gorp", "mep", "zib", "vop", "nuz")  # three tokens each: their sums compare
SEGMENTS_LEARNED = max(len(direction.modalities) for direction in DIRECTIONS.values())
FORMS = ("word", "caption")             # what stands beside a picture: `dax`, or `a dax on the left, red ground`
TEXT_LIMIT = 20                         # tokens of an answer in words: no caption of one thing is longer
NEAR = 200                              # cents, two semitones: a pitch that follows
VOICE_EXAMPLES = 3                      # that fit, however long the words


# ---------------------------------------------------------------- episodes

@dataclass(frozen=True)
class Binding:
    """Two words, each with a scene of one thing (`words[i]` with `scenes[i]`), and a query: the thing of
    `scenes[asked]`, on another ground and on the other side."""
    words: tuple[str, str]
    scenes: tuple[Scene, Scene]
    query: Scene
    asked: int

    @property
    def nouns(self) -> tuple[str, str]:
        """What the two scenes truly show."""
        return noun_of(self.scenes[0]), noun_of(self.scenes[1])


def noun_of(scene: Scene) -> str:
    """The thing in a scene of one."""
    return scene.groups[0].noun


def trained(scenes: Sequence[Scene]) -> bool:
    """Whether nothing in the scenes was held out when the model learned."""
    return not any(WORLD.is_held_out(scene) for scene in scenes)


def bindings(n: int, seed: int) -> list[Binding]:
    """`n` episodes (2 or more); the query is of the first example in every other one."""
    check_episodes(n, seed)
    rng, out = np.random.default_rng((seed, 101)), []
    while len(out) < n:
        nouns, words = rng.choice(NOUNS, 2, replace=False), rng.choice(NEW_WORDS, 2, replace=False)
        grounds, asked = rng.choice(list(BACKGROUNDS), 3, replace=False), len(out) % 2
        sides = rng.integers(2, size=2)
        first, second = (Scene((Group(str(noun), 1, PLACES[side]),), str(ground))
                         for noun, side, ground in zip(nouns, sides, grounds))
        query = Scene((Group(str(nouns[asked]), 1, PLACES[1 - sides[asked]]),), str(grounds[2]))
        if trained([first, second, query]):
            out.append(Binding((str(words[0]), str(words[1])), (first, second), query, asked))
    return out


def exchanged(episodes: Sequence[Binding], seed: int) -> list[tuple[str, str]]:
    """The control: the words of each episode in the order that those of another one have. What they are is left, which
    picture each stands beside is not."""
    circle = np.random.default_rng((seed, 102)).permutation(len(episodes))
    out: list[tuple[str, str]] = [("", "")] * len(episodes)
    for own, other in zip(circle, np.roll(circle, 1)):
        first, second = episodes[other].words
        a, b = sorted(episodes[own].words)
        out[own] = (a, b) if first < second else (b, a)
    return out


def check_episodes(n: int, seed: int) -> None:
    """ValueError for a number of episodes or a seed that is none."""
    check_whole(n, "n")
    check_seed(seed, optional=False)
    if n < 2:
        raise ValueError(f"words are exchanged between episodes: take two or more, got {n}")


# ---------------------------------------------------------------- segments

@cache
def _assistant() -> Assistant:
    return load()


def asker(seed: int) -> Evaluation:
    """The shipped model and how it is asked in batches: fresh, so that no answer comes from an earlier question."""
    return Evaluation(_assistant(), n=1, seed=seed, progress=False)


def text(words: str) -> Segment:
    """A text as the model reads it, invented words too."""
    return Segment("text", tuple(_assistant().bpe.encode(" " + words)))


def images(scenes: Sequence[Scene]) -> list[Segment]:
    """The true drawings of scenes as tokens."""
    parts = [WORLD.draw(scenes[i:i + 64]) for i in range(0, len(scenes), 64)]
    return [Segment("image", tuple(ids)) for part in parts for ids in _assistant().vqvae.encode(part).flatten(1).tolist()]


def said_of(word: str, scene: Scene, form: str) -> str:
    """What is written beside a scene whose thing is called `word`: that, or the whole caption."""
    if form == "word":
        return word
    return WORLD.grammar.caption((replace(scene.groups[0], noun=word),), scene.background)


def tokens(segments: Sequence[Segment]) -> int:
    """How many ids the segments are in a sequence."""
    return len(_assistant().vocabulary.pack(segments))


def examples_that_fit(context: int, example: int, query: int, answer: int) -> int:
    """How many examples of so many tokens stand before a query and its answer: the last token of an answer is never read,
    so a sequence may be one longer than the context."""
    return max(0, (context + 1 - query - answer) // example)


# ---------------------------------------------------------------- 1. which of two words?

def forced(n: int, seed: int = 0) -> dict:
    """[picture] dax [picture] wug [picture]: which of the two words is likelier? And what does it say by itself?

    Of `n` for each form of the texts (`FORMS`): `right`, `last` (it is the last example's word), both with words
    `exchanged` and with true `nouns` for words; `none`: without examples. `one`: only the first example stands in the
    prompt, and the query is of its thing or not: four segments; all else has six. `said ...`: the likeliest text has the
    right word, the other, or the true noun.
    """
    episodes = bindings(n, seed)
    shuffled = exchanged(episodes, seed)
    row = {"n": n, "segments": 6, "segments learned": SEGMENTS_LEARNED}
    for form in FORMS:
        arms = {"": [e.words for e in episodes], "exchanged ": shuffled, "none ": None}
        row[f"{form} fit"] = _fit_of_forced(form)
        for arm, words in arms.items():
            picked = _picked(episodes, words, [e.words for e in episodes], form)
            row |= _counts(f"{form} {arm}", picked, episodes, words)
        first = [e.words[:1] for e in episodes]
        row |= _counts(f"{form} one ", _picked(episodes, first, [e.words for e in episodes], form), episodes, first)
        nouns = [e.nouns for e in episodes]
        for arm, words in {"nouns ": nouns, "nouns none ": None}.items():
            row |= _counts(f"{form} {arm}", _picked(episodes, words, nouns, form), episodes, words)
        row |= _said(episodes, form, seed)
    return row


def _prompts(episodes: Sequence[Binding], words: Sequence[tuple[str, ...]] | None, form: str) -> list[list[Segment]]:
    """The first pictures with the words that are given, then the query's picture; None: the query alone."""
    pictures = images([scene for e in episodes for scene in (*e.scenes, e.query)])
    prompts = []
    for i, e in enumerate(episodes):
        examples = [part for word, scene, picture in zip(words[i] if words else (), e.scenes, pictures[3 * i:])
                    for part in (picture, text(said_of(word, scene, form)))]
        prompts.append([*examples, pictures[3 * i + 2]])
    return prompts


def _picked(episodes: Sequence[Binding], words: Sequence[tuple[str, ...]] | None, choices: Sequence[tuple[str, str]],
            form: str) -> list[str]:
    """Of the two `choices` for each episode the word whose text is likelier after the prompt."""
    a, prompts = _assistant(), _prompts(episodes, words, form)
    scores = [log_likelihood(a.transformer, a.vocabulary, prompts,
                             [text(said_of(pair[k], e.query, form)) for e, pair in zip(episodes, choices)]) for k in (0, 1)]
    return [pair[int(second > first)] for pair, first, second in zip(choices, *(s.tolist() for s in scores))]


def _counts(arm: str, picked: Sequence[str], episodes: Sequence[Binding], words: Sequence[tuple[str, ...]] | None) -> dict:
    """How many picked words are right, and how many are the last that was shown."""
    right = sum(word in (e.words[e.asked], e.nouns[e.asked]) for word, e in zip(picked, episodes))
    last = {} if words is None else {f"{arm}last": sum(word == shown[-1] for word, shown in zip(picked, words))}
    return {f"{arm}right": right, **last}


def _said(episodes: Sequence[Binding], form: str, seed: int) -> dict:
    """What the likeliest text names, and two of these texts."""
    how = asker(seed)
    answers = how.written(how.ask(_prompts(episodes, [e.words for e in episodes], form), "text", form, best_of=1,
                                  temperature=0.0, limit=TEXT_LIMIT))
    named = [re.findall("[a-z]+", answer) for answer in answers]
    examples = [f"[{said_of(noun_of(e.query), e.query, 'caption')}] -> {answer}" for e, answer in zip(episodes[:2], answers)]
    return {f"{form} said right": sum(e.words[e.asked] in said for e, said in zip(episodes, named)),
            f"{form} said other": sum(e.words[1 - e.asked] in said for e, said in zip(episodes, named)),
            f"{form} said noun": sum(noun_of(e.query) in said for e, said in zip(episodes, named)),
            f"{form} examples": examples}


def _fit_of_forced(form: str) -> int:
    """How many pictures with their texts fit before a query, if all texts are as long as the longest."""
    scenes = [Scene((Group("cat", 1, place),), ground) for ground in BACKGROUNDS for place in PLACES]
    said = max((text(said_of(word, scene, form)) for word in NEW_WORDS for scene in scenes), key=lambda s: len(s.ids))
    (picture,) = images(scenes[:1])
    return examples_that_fit(_assistant().transformer.context, tokens([picture, said]), tokens([picture]), tokens([said]))


# ---------------------------------------------------------------- 2. draw what the word was said of

def binding(n: int, seed: int = 0) -> dict:
    """dax [picture] wug [picture] dax: what does it draw? All texts are captions, as in its training.

    Of `n`: `right` (the noun that the word was said of is in the picture), `other` (that of the other example), `last`
    (that of the last example); six segments. `exchanged`: the words in another episode's order. `one`: only the example
    that is asked about stands in the prompt, four segments. `none`: no example. `nouns`, `nouns none`: the true nouns for
    words, with and without examples: the ceiling. The judge is the checkpoint `picture_judge`.
    """
    episodes = bindings(n, seed)
    words, nouns = [e.words for e in episodes], [e.nouns for e in episodes]
    arms = {"": (words, words, (0, 1)), "exchanged ": (exchanged(episodes, seed), words, (0, 1)), "one ": (words, words, None),
            "none ": (words, words, ()), "nouns ": (nouns, nouns, (0, 1)), "nouns none ": (nouns, nouns, ())}
    how, row = asker(seed), {"n": n, "segments": 6, "segments learned": SEGMENTS_LEARNED, "fit": _fit_of_forced("caption")}
    pictures = images([scene for e in episodes for scene in e.scenes])
    for arm, (shown, called, which) in arms.items():
        prompts = []
        for i, e in enumerate(episodes):
            chosen = (e.asked,) if which is None else which
            examples = [part for k in chosen
                        for part in (text(said_of(shown[i][k], e.scenes[k], "caption")), pictures[2 * i + k])]
            prompts.append([*examples, text(said_of(called[i][e.asked], e.query, "caption"))])
        row |= _drawn(arm, seen_in(how, prompts, arm), episodes)
    return row


def seen_in(how: Evaluation, prompts: list[list[Segment]], label: str) -> list[tuple[str, str, str]]:
    """A picture after each prompt, and what the judge sees in it: (noun on the left, on the right, ground)."""
    drawn = how.ask(prompts, "image", label, best_of=1)
    return checkpoints.load("picture_judge").read(how.paint(drawn).clamp(0, 1))


def _drawn(arm: str, seen: Sequence[tuple[str, str, str]], episodes: Sequence[Binding]) -> dict:
    """In how many pictures the nouns are."""
    def count(which) -> int:
        return sum(e.nouns[which(e)] in sides[:2] for sides, e in zip(seen, episodes))
    return {f"{arm}right": count(lambda e: e.asked), f"{arm}other": count(lambda e: 1 - e.asked),
            f"{arm}last": count(lambda e: 1)}


# ---------------------------------------------------------------- 3. do the same to this picture

@dataclass(frozen=True)
class Recoloured:
    """The rule of an episode is a ground: the example before and after it, the query before and after it. Three grounds."""
    before: Scene
    after: Scene
    query: Scene
    answer: Scene


def recoloured(n: int, seed: int) -> list[Recoloured]:
    """`n` episodes of which no scene was held out."""
    check_episodes(n, seed)
    rng, out = np.random.default_rng((seed, 103)), []
    while len(out) < n:
        nouns, sides = rng.choice(NOUNS, 2, replace=False), rng.integers(2, size=2)
        own, others, new = (str(g) for g in rng.choice(list(BACKGROUNDS), 3, replace=False))
        before, query = (Scene((Group(str(noun), 1, PLACES[side]),), ground)
                         for noun, side, ground in zip(nouns, sides, (others, own)))
        episode = Recoloured(before, replace(before, background=new), query, replace(query, background=new))
        if trained([episode.before, episode.after, episode.query, episode.answer]):
            out.append(episode)
    return out


def rule(n: int, seed: int = 0) -> dict:
    """[picture] [the same on red] [another picture]: is the answer on red too?

    Three pictures and a fourth to draw do not fit (`drawn pairs fit` is 0; `drawn pairs tokens` against `most tokens`), with an
    instruction in words between them still less. What fits is one example, four segments, in two ways: `said`: the query is
    a picture and the answer a caption; `drawn`: the query is a caption and the answer a picture. Of `n`: `rule` (the answer is
    on the example's new ground), `own` (on the query's), `noun` (its thing is in it). `same`: the example's second
    picture twice, a ground without a rule; `none`: no example. `told`: the picture and the instruction in words (it says
    what to draw first, as it always does): the ceiling.
    """
    episodes, a, how = recoloured(n, seed), _assistant(), asker(seed)
    pictures = images([scene for e in episodes for scene in (e.before, e.after, e.query)])
    befores, afters, queries = pictures[::3], pictures[1::3], pictures[2::3]
    captions = [text(WORLD.caption(e.query)) for e in episodes]
    arms = {"": [list(pair) for pair in zip(befores, afters)], "same ": [[after, after] for after in afters],
            "none ": [[] for _ in episodes]}
    longest = max(captions, key=lambda s: len(s.ids))
    picture, context = tokens(pictures[:1]), a.transformer.context
    row = {"n": n, "segments": 4, "segments learned": SEGMENTS_LEARNED, "most tokens": context + 1,
           "drawn pairs tokens": 4 * picture, "drawn pairs fit": examples_that_fit(context, 2 * picture, picture, picture),
           "fit": examples_that_fit(context, 2 * picture, picture, tokens([longest]))}
    for arm, examples in arms.items():
        prompts = [[*example, query] for example, query in zip(examples, queries)]
        answers = how.written(how.ask(prompts, "text", f"said {arm}", best_of=1, temperature=0.0, limit=TEXT_LIMIT))
        row |= _followed(f"said {arm}", [_read(answer) for answer in answers], episodes)
        seen = seen_in(how, [[*example, query] for example, query in zip(examples, captions)], f"drawn {arm}")
        row |= _followed(f"drawn {arm}", [(set(sides), ground) for *sides, ground in seen], episodes)
    told = [[query, text(f"make the ground {e.answer.background}")] for query, e in zip(queries, episodes)]
    seen = seen_in(how, told, "told")
    return row | _followed("told ", [(set(sides), ground) for *sides, ground in seen], episodes)


def _read(caption: str) -> tuple[set[str], str]:
    """The words of a caption, and the ground that it names ("": none)."""
    ground = re.search(r"([a-z]+) ground", caption)
    return set(re.findall("[a-z]+", caption)), ground[1] if ground else ""


def _followed(arm: str, answers: Sequence[tuple[set[str], str]], episodes: Sequence[Recoloured]) -> dict:
    """How many answers (what is in it, its ground) follow the rule, keep their ground, keep their thing."""
    return {f"{arm}rule": sum(ground == e.answer.background for (_, ground), e in zip(answers, episodes)),
            f"{arm}own": sum(ground == e.query.background for (_, ground), e in zip(answers, episodes)),
            f"{arm}noun": sum(noun_of(e.query) in names for (names, _), e in zip(answers, episodes))}


# ---------------------------------------------------------------- 4. go on in this voice

@dataclass(frozen=True)
class Spoken:
    """A voice that was held out says `VOICE_EXAMPLES` words, then the one that is asked for, all at one pitch setting;
    `wrong`: the first word, by another voice at another pitch. Clips are (samples,) at 8 kHz."""
    words: tuple[str, ...]
    clips: tuple[np.ndarray, ...]
    wrong: np.ndarray


def spoken(n: int, seed: int) -> list[Spoken]:
    """`n` episodes by espeak: pitch settings from 30 to 70, as in the training, those of the wrong voice turned about 50."""
    check_episodes(n, seed)
    rng, voices = np.random.default_rng((seed, 104)), [v for v in range(len(VOICES)) if held_out_voice(v)]
    said, jobs = [], []
    for _ in range(n):
        words = tuple(str(word) for word in rng.choice(NOUNS, VOICE_EXAMPLES + 1, replace=False))
        voice, other = (VOICES[v] for v in rng.choice(voices, 2, replace=False))
        pitch = int(rng.integers(30, 71))
        said.append(words)
        jobs += [*((word, voice, pitch, 165) for word in words), (words[0], other, 100 - pitch, 165)]
    clips = [to_clip(sound, rate, LONGEST).astype(np.float32) / 32767 for sound, rate in speak(jobs)]
    each = VOICE_EXAMPLES + 2
    return [Spoken(words, tuple(clips[each * i:each * i + each - 1]), clips[each * i + each - 1])
            for i, words in enumerate(said)]


def voice(n: int, seed: int = 0) -> dict:
    """[cat, spoken] dog: does it say `dog` in the voice that it heard?

    `bare`: the example is a sound alone, three segments; `one`: the word is written before it, four; `three`: three such
    examples of the voice, eight; `wrong bare`, `wrong one`: the example is by another voice; `none`: no example. `codec`: the
    true clip after the codec, what an answer can reach at best. `prompt`, `wrong prompt`: the example's own pitch in place of
    an answer's. Against the true clip in the voice: `cents`, the median distance of the clips' median pitches; of `n`: `voiced`
    (it has a pitch at all, which the codec takes from some low voices), `near` (within `NEAR` cents), `nearer` (to the true
    clip than to the wrong voice's), `heard` (the checkpoint `word_judge` hears the word), `again` (the example's word).
    """
    episodes, a, how = spoken(n, seed), _assistant(), asker(seed)
    right = [[part for word, clip in zip(e.words, e.clips[:-1]) for part in (text(word), a.sound_segment(clip))]
             for e in episodes]
    wrong = [[text(e.words[0]), a.sound_segment(e.wrong)] for e in episodes]
    arms = {"bare": [row[1:2] for row in right], "one": [row[:2] for row in right], "three": right,
            "wrong bare": [row[1:] for row in wrong], "wrong one": wrong, "none": [[] for _ in episodes]}
    queries = [text(e.words[-1]) for e in episodes]
    true, false = [pitch_of(e.clips[-1]) for e in episodes], [pitch_of(e.wrong) for e in episodes]
    longest = a.sound_segment(np.full(int(LONGEST * a.codec.sample_rate), 0.1))
    row = {"n": n, "segments learned": SEGMENTS_LEARNED,
           "fit": examples_that_fit(a.transformer.context, tokens([queries[0], longest]), tokens(queries[:1]), tokens([longest]))}
    sounds = {arm: how.sound(how.ask([[*example, query] for example, query in zip(examples, queries)], "audio", arm,
                                     best_of=1, limit=len(longest.ids))) for arm, examples in arms.items()}
    sounds["codec"] = how.sound([a.sound_segment(e.clips[-1]) for e in episodes])
    judge = checkpoints.load("word_judge")
    for arm, answers in sounds.items():
        heard = judge.hear(stack(answers))
        row |= _pitches(f"{arm} ", [pitch_of(sound) for sound in answers], true, false)
        row[f"{arm} heard"] = sum(e.words[-1] == word for e, word in zip(episodes, heard))
        row[f"{arm} again"] = sum(e.words[0] == word for e, word in zip(episodes, heard))
    row |= _pitches("prompt ", [pitch_of(e.clips[0]) for e in episodes], true, false)
    return row | _pitches("wrong prompt ", false, true, false)


def pitch_of(sound) -> float:
    """The median pitch of (samples,) at 8 kHz in Hz; NaN if it has none."""
    track = pitch_track(sound)
    return float(np.median(track[np.isfinite(track)])) if np.isfinite(track).any() else float("nan")


def _pitches(arm: str, pitches: Sequence[float], true: Sequence[float], false: Sequence[float]) -> dict:
    """How far pitches are from the true ones, and how many lie nearer to them than to the false ones, all in Hz.
    The median is None if nothing has a pitch."""
    voiced = np.array([row for row in zip(pitches, true, false) if np.isfinite(row).all()]).reshape(-1, 3)   # (n, 3)
    far, other = (np.abs(cents(voiced[:, 0], voiced[:, k])) for k in (1, 2))
    return {f"{arm}voiced": len(voiced), f"{arm}near": int((far <= NEAR).sum()), f"{arm}nearer": int((far < other).sum()),
            f"{arm}cents": round(float(np.median(far)), 1) if len(far) else None}
