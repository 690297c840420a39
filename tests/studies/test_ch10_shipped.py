"""What the shipped model is asked in chapter 10: episodes are as they say, and whoever answers by a rule gets its counts."""
import json
import re

import numpy as np
import pytest
import torch

from mmcourse.generate import generate
from mmcourse.rerank import log_likelihood
from mmcourse.studies import _ch10_shipped as shipped
from mmcourse.vocabulary import Segment
from mmcourse.world.scene import NOUNS, WORLD, Group, Scene

N, SEED = 12, 4


@pytest.fixture(scope="module")
def a():
    return shipped._assistant()


def words_of(a, segment: Segment) -> list[str]:
    return re.findall("[a-z]+", a.bpe.decode(segment.ids))


def scenes_by_tokens(scenes) -> dict[Segment, Scene]:
    return dict(zip(shipped.images(scenes), scenes))


class Fake:
    """Asked as `Evaluation` is: `answer(prompt, want)` answers, a drawn picture is its scene, `sounds` has a clip for each sound."""

    def __init__(self, a, answer, sounds=None):
        self.a, self.answer, self.sounds = a, answer, sounds

    def ask(self, prompts, want, label, **how):
        return [self.answer(prompt, want) for prompt in prompts]

    def written(self, segments):
        return [self.a.bpe.decode(segment.ids).strip() for segment in segments]

    def paint(self, scenes):
        return WORLD.draw(scenes)

    def sound(self, segments):
        return [self.sounds[segment] for segment in segments]


# ---------------------------------------------------------------- episodes

def test_a_binding_asks_for_one_of_two_things_elsewhere_and_for_each_as_often():
    episodes = shipped.bindings(N, SEED)
    assert sum(e.asked for e in episodes) == N // 2 and shipped.bindings(N, SEED) == episodes != shipped.bindings(N, SEED + 1)
    for e in episodes:
        shown, query = e.scenes[e.asked].groups[0], e.query.groups[0]
        assert query.noun == shown.noun and query.place != shown.place and query.count == 1
        assert len({s.background for s in (*e.scenes, e.query)}) == 3 and len(set(e.nouns)) == len(set(e.words)) == 2
        assert not any(map(WORLD.is_held_out, (*e.scenes, e.query)))


def test_the_new_words_are_none_of_the_worlds_and_of_equal_length():
    assert not set(shipped.NEW_WORDS) & set(WORLD.words)
    assert {len(shipped.text(word).ids) for word in shipped.NEW_WORDS} == {3}


def test_exchanged_words_stay_with_their_episode_in_the_order_of_another():
    episodes = shipped.bindings(60, SEED)
    words = shipped.exchanged(episodes, SEED)
    assert [set(pair) for pair in words] == [set(e.words) for e in episodes]
    rising, own = [a < b for a, b in words], [e.words[0] < e.words[1] for e in episodes]
    assert sum(rising) == sum(own)                                     # dealt out, none thrown
    assert 15 < sum(x == y for x, y in zip(rising, own)) < 45          # and by chance like their own


@pytest.mark.parametrize("call", [lambda: shipped.bindings(1, 0), lambda: shipped.forced(0), lambda: shipped.recoloured(2, -1),
                                  lambda: shipped.voice(2.5)])
def test_what_is_no_number_of_episodes_is_refused(call):
    with pytest.raises(ValueError):
        call()


# ---------------------------------------------------------------- what fits

def test_what_fits_is_what_the_model_takes(a):
    picture = shipped.images([Scene((Group("cat", 1, "left"),), "red")])[0]
    word = shipped.text("dax")
    for k in range(5):
        prompt = [picture, word] * k + [picture]
        fits = shipped.examples_that_fit(a.transformer.context, shipped.tokens([picture, word]), shipped.tokens([picture]),
                                         shipped.tokens([word])) >= k
        if fits:
            assert torch.isfinite(log_likelihood(a.transformer, a.vocabulary, [prompt], [word])).all()
        else:
            with pytest.raises(ValueError, match="do not fit"):
                log_likelihood(a.transformer, a.vocabulary, [prompt], [word])
    assert not fits and shipped.examples_that_fit(100, 10, 20, 100) == 0
    with pytest.raises(ValueError):                                    # three pictures, and a fourth to draw
        generate(a.transformer, a.vocabulary, [[picture] * 3], "image")


# ---------------------------------------------------------------- the four questions, answered by a rule

def binder(a, prompt: list[Segment], known: dict[Segment, Scene]) -> dict[str, str]:
    """What each word was said of: word -> noun, whichever of the two stands first."""
    out = {}
    for picture, said in ((x, y) for i, x in enumerate(prompt) for y in prompt[max(i - 1, 0):i + 2]):
        before = prompt.index(said) < prompt.index(picture)
        if picture in known and said.modality == "text" and before == (prompt[0].modality == "text"):
            noun = known[picture].groups[0].noun
            out |= {word: noun for word in words_of(a, said) if word in shipped.NEW_WORDS or word in NOUNS}
    return out


def test_who_binds_words_gets_all_right_who_copies_the_last_gets_half(a, monkeypatch):
    episodes = shipped.bindings(N, SEED)
    known = scenes_by_tokens([s for e in episodes for s in (*e.scenes, e.query)])

    def binds(model, vocabulary, prompts, answers):
        def score(prompt, answer):
            bound = binder(a, prompt[:-1], known) if len(prompt) > 1 else {}
            return float(any(bound.get(w, w) == known[prompt[-1]].groups[0].noun for w in words_of(a, answer)))
        return torch.tensor(list(map(score, prompts, answers)))

    def copies(model, vocabulary, prompts, answers):
        return torch.tensor([float(len(p) > 1 and bool(set(words_of(a, p[-2])) & set(words_of(a, s)) - set(WORLD.caption(known[p[-1]]).split())))
                             for p, s in zip(prompts, answers)])
    monkeypatch.setattr(shipped, "asker", lambda seed: Fake(a, lambda prompt, want: prompt[1]))
    monkeypatch.setattr(shipped, "log_likelihood", binds)
    row = shipped.forced(N, SEED)
    other = shipped.exchanged(episodes, SEED)
    kept = sum(pair == e.words for pair, e in zip(other, episodes))
    for form in shipped.FORMS:
        assert row[f"{form} right"] == row[f"{form} nouns right"] == row[f"{form} nouns none right"] == N
        assert row[f"{form} last"] == N // 2 and row[f"{form} exchanged right"] == kept != N
        assert row[f"{form} said right"] == N // 2 == row[f"{form} said other"] and row[f"{form} said noun"] == 0
        assert row[f"{form} fit"] == 2
    monkeypatch.setattr(shipped, "log_likelihood", copies)
    row = shipped.forced(N, SEED)
    assert row["word last"] == row["word exchanged last"] == row["word one last"] == N
    assert row["word right"] == row["word one right"] == N // 2
    exchanged_right = sum(pair[1] == e.words[e.asked] for pair, e in zip(other, episodes))
    assert row["word exchanged right"] == exchanged_right


def test_who_binds_words_draws_their_things(a, monkeypatch):
    episodes = shipped.bindings(N, SEED)
    known = scenes_by_tokens([s for e in episodes for s in e.scenes])

    def draws(prompt, want):
        called = next(w for w in words_of(a, prompt[-1]) if w in shipped.NEW_WORDS or w in NOUNS)
        noun = binder(a, prompt[:-1], known).get(called, called if called in NOUNS else "whale")
        return Scene((Group(noun, 1, "left"),), "white")
    monkeypatch.setattr(shipped, "asker", lambda seed: Fake(a, draws))
    row = shipped.binding(N, SEED)
    assert row["right"] == row["one right"] == row["nouns right"] == row["nouns none right"] == N
    assert row["other"] == row["one other"] == 0 and row["last"] == N // 2
    kept = sum(pair == e.words for pair, e in zip(shipped.exchanged(episodes, SEED), episodes))
    assert row["exchanged right"] == kept and row["exchanged other"] == N - kept
    whales = sum(e.nouns[e.asked] == "whale" for e in episodes)
    assert row["none right"] == whales and row["fit"] == 2


def test_who_copies_the_last_ground_follows_the_rule_and_is_found_out(a, monkeypatch):
    episodes = shipped.recoloured(N, SEED)
    assert all(len({e.before.background, e.after.background, e.query.background}) == 3 for e in episodes)
    assert all(e.after == Scene(e.before.groups, e.after.background) for e in episodes)
    known = scenes_by_tokens([s for e in episodes for s in (e.before, e.after, e.query)])

    def copies(prompt, want):
        asked = known[prompt[-1]] if prompt[-1] in known else None
        said = " ".join(words_of(a, prompt[-1])) if asked is None else ""
        examples = [known[part] for part in prompt[:-1] if part in known]
        if said.startswith("make the ground"):
            scene = Scene(examples[0].groups, said.split()[-1])
        else:
            asked = asked or WORLD.parse(a.bpe.decode(prompt[-1].ids).strip())
            scene = Scene(asked.groups, examples[-1].background if examples else asked.background)
        return scene if want == "image" else shipped.text(WORLD.caption(scene))
    monkeypatch.setattr(shipped, "asker", lambda seed: Fake(a, copies))
    row = shipped.rule(N, SEED)
    for way in ("said", "drawn"):
        assert row[f"{way} rule"] == row[f"{way} same rule"] == row[f"{way} none own"] == N, way
        assert row[f"{way} own"] == row[f"{way} none rule"] == 0 and row[f"{way} noun"] == N, way
    assert row["told rule"] == row["told noun"] == N and row["told own"] == 0
    assert (row["fit"], row["drawn pairs fit"]) == (1, 0) and row["drawn pairs tokens"] > row["most tokens"]


def test_who_repeats_the_example_has_its_voice_and_not_the_word(a, monkeypatch):
    episodes = shipped.spoken(4, SEED)
    assert all(len(set(e.words)) == len(e.clips) == shipped.VOICE_EXAMPLES + 1 for e in episodes)
    sounds = {a.sound_segment(clip): clip for e in episodes for clip in (*e.clips, e.wrong)}
    true = {shipped.text(e.words[-1]): a.sound_segment(e.clips[-1]) for e in episodes}

    def repeats(prompt, want):
        return next((part for part in prompt if part.modality == "audio"), true[prompt[-1]])
    monkeypatch.setattr(shipped, "asker", lambda seed: Fake(a, repeats, sounds))
    row = shipped.voice(4, SEED)
    for key in ("voiced", "near", "nearer", "cents"):
        assert row[f"one {key}"] == row[f"bare {key}"] == row[f"three {key}"] == row[f"prompt {key}"], key
        assert row[f"wrong one {key}"] == row[f"wrong bare {key}"] == row[f"wrong prompt {key}"], key
    assert row["none cents"] == row["codec cents"] == 0 and row["none near"] == row["none voiced"]
    assert row["one again"] >= 3 and row["one heard"] == 0 and row["none heard"] >= 3
    assert row["wrong prompt nearer"] == 0 and row["fit"] >= shipped.VOICE_EXAMPLES


def test_pitches_are_compared_clip_by_clip():
    nan = float("nan")
    row = shipped._pitches("", [100, 200, nan, 150, 400], [100, 100, 100, nan, 380], [50, 210, 100, 150, 100])
    assert row == {"voiced": 3, "near": 2, "nearer": 2, "cents": round(1200 * np.log2(400 / 380), 1)}
    assert shipped._pitches("", [nan], [100], [100]) == {"voiced": 0, "near": 0, "nearer": 0, "cents": None}
    assert np.isnan(shipped.pitch_of(np.zeros(800))) and shipped.pitch_of(np.sin(np.arange(4000) * 2 * np.pi / 40)) == pytest.approx(200, rel=.01)


# ---------------------------------------------------------------- the shipped model itself

@pytest.mark.parametrize("question", ["forced", "binding", "rule", "voice"])
def test_the_shipped_model_answers(question):
    row = getattr(shipped, question)(2, 1)
    assert json.loads(json.dumps(row, allow_nan=False)) == row and row["n"] == 2
    counts = {key: value for key, value in row.items()
              if key.split()[-1] in ("right", "last", "other", "rule", "own", "noun", "near", "nearer", "voiced", "heard", "again")}
    assert len(counts) > 10 and all(isinstance(k, int) and 0 <= k <= 2 for k in counts.values())
