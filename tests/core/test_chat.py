"""A conversation: what the model is shown at each turn, who decides of which kind the answer is, and what stays in mind.

The models are random or set by hand: what is asked of them is not what an answer says but that it follows from what was said.
"""
import numpy as np
import pytest
import torch
from helpers import CAT, SMALL, tone, wild_model

from mmcourse import chat as module
from mmcourse.assistant import Assistant
from mmcourse.chat import (
    LONGEST_HEARD,
    TOGETHER,
    Chat,
    after_picture,
    check_room,
    choose_modality,
    draw_or_speak,
    in_words,
    perceive,
    picture_of_now,
    reply,
)
from mmcourse.generate import content_limit, generate
from mmcourse.media import MAX_SECONDS, Audio, Image, Text
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, MODALITIES, OPEN, Segment

KINDS = {"text": Text, "image": Image, "audio": Audio}


def random_prompts(n: int, seed: int = 0) -> list[list[Segment]]:
    """Prompts over `SMALL`, of one to four segments of any kind and length."""
    rng = np.random.default_rng(seed)

    def segment() -> Segment:
        kind = MODALITIES[rng.integers(3)]
        length = {"text": int(rng.integers(1, 9)), "image": SMALL.image_tokens, "audio": 2 * int(rng.integers(1, 5))}[kind]
        return Segment(kind, tuple(rng.integers({"text": 9, "image": 6, "audio": 4}[kind], size=length).tolist()))
    return [[segment() for _ in range(rng.integers(1, 5))] for _ in range(n)]


def assistant_of(parts, context: int = 512, scale: float = 1.0, seed: int = 0) -> Assistant:
    """A tiny assistant; with a large `scale` its model has strong opinions."""
    bpe, vqvae, codec, _, vocabulary = parts
    torch.manual_seed(seed)
    model = Transformer(vocabulary.size, width=16, layers=1, heads=2, context=context, segment_starts=tuple(OPEN.values()))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return Assistant(bpe, vqvae, codec, model.eval(), vocabulary, converses=True)


def decided(parts, want: str, context: int = 512) -> Assistant:
    """An assistant whose model always opens `want` and never closes anything of its own accord."""
    assistant = assistant_of(parts, context)
    model = assistant.transformer
    with torch.no_grad():
        model.norm.weight.zero_()                                       # what it saw counts nothing: the residual stream is ...
        model.norm.bias.copy_(torch.eye(model.width)[0])                # ... (1, 0, ...), and the logits are the first column
        model.head.weight[OPEN[want], 0] = 9.0
        model.head.weight[list(CLOSE.values()), 0] = -9.0
    return assistant


@pytest.fixture(scope="module")
def opinionated(parts):
    return assistant_of(parts, context=1024, scale=20.0)


@pytest.fixture
def shown(monkeypatch):
    """The prompts that the model is shown, one a turn."""
    prompts, real = [], module.reply

    def note(model, vocabulary, given, *args, **more):
        prompts.extend(given)
        return real(model, vocabulary, given, *args, **more)
    monkeypatch.setattr(module, "reply", note)
    return prompts


@pytest.fixture
def says(monkeypatch):
    """Called with words, makes them what the model says to itself next: of each thing it sees and hears, then of its answer."""
    script, real = [], module.generate

    def act(model, vocabulary, prompts, want, **sampling):
        return [script.pop(0) for _ in prompts] if want == "text" else real(model, vocabulary, prompts, want, **sampling)
    monkeypatch.setattr(module, "generate", act)
    return lambda *words: script.extend(words)


def same(a, b) -> bool:
    """Whether two answers are of one kind and say, show or sound the same."""
    if type(a) is not type(b) or isinstance(a, Text):
        return a == b
    return np.array_equal(a.pixels, b.pixels) if isinstance(a, Image) else np.array_equal(a.samples, b.samples)


# ---------------------------------------------------------------- of which kind the answer is

def test_the_kind_is_the_likeliest_opener_of_each_prompt_alone():
    prompts = random_prompts(2 * TOGETHER + 5)
    for seed in range(3):
        model = wild_model(seed)
        alone = [model(torch.tensor([SMALL.pack(prompt)]))[0, -1] for prompt in prompts]
        wanted = [max(MODALITIES, key=lambda kind: logits[OPEN[kind]].item()) for logits in alone]
        assert choose_modality(model, SMALL, prompts) == wanted and len(set(wanted)) > 1
    assert choose_modality(model, SMALL, prompts[::-1]) == wanted[::-1] and choose_modality(model, SMALL, []) == []


# ---------------------------------------------------------------- what is said in words, and what is made of the words

def test_a_text_stands_as_it_is_and_all_else_as_the_words_for_it():
    text, picture = Segment("text", (1, 2)), Segment("image", (1, 2, 3, 4, 5))
    assert in_words(text) == [text] and in_words(picture, text) == [Segment("image", ()), text]


def test_what_is_seen_and_heard_is_put_into_words_each_alone():
    model, given = wild_model(1, context=300), [segment for prompt in random_prompts(9) for segment in prompt]
    assert {segment.modality for segment in given} == set(MODALITIES)
    found = perceive(model, SMALL, given)
    for segment, stands in zip(given, found, strict=True):
        words = generate(model, SMALL, [[segment]], "text", temperature=0.0)
        assert stands == ([segment] if segment.modality == "text" else [Segment(segment.modality, ()), *words])
    assert perceive(model, SMALL, []) == []


@pytest.mark.parametrize("given", [True, False])
def test_a_reply_is_the_kind_and_the_words_in_the_order_of_the_talks(given):
    model, talks = wild_model(1, context=300), random_prompts(9)
    wants = [MODALITIES[i % 3] for i in range(9)] if given else choose_modality(model, SMALL, talks)
    assert len(set(wants)) > 1
    for talk, want, found in zip(talks, wants, reply(model, SMALL, talks, wants if given else None), strict=True):
        opened = [] if want == "text" else [Segment(want, ())]
        assert found == [*opened, *generate(model, SMALL, [[*talk, *opened]], "text", temperature=0.0)]
    assert reply(model, SMALL, []) == []


def test_an_answer_is_drawn_and_spoken_from_its_words_alone():
    model, talks = wild_model(2, scale=4.0, context=300), random_prompts(9)
    for wants, sampling in (([MODALITIES[i % 3] for i in range(9)], {}), (MODALITIES, {"temperature": 1.0, "seed": 5})):
        replies = reply(model, SMALL, talks[:len(wants)], wants)
        found = draw_or_speak(model, SMALL, replies, **sampling)
        for want, (*_, words), answer in zip(wants, replies, found, strict=True):
            made = generate(model, SMALL, [[words]], want, **{"temperature": 0.0, **sampling}) if want != "text" else [words]
            assert [answer] == made and answer.modality == want
    assert found != draw_or_speak(model, SMALL, replies) and draw_or_speak(model, SMALL, []) == []


def test_wrong_wants_are_refused():
    model, talks = wild_model(context=300), random_prompts(2)
    for wants in (["text"], ["text"] * 3):
        with pytest.raises(ValueError, match="argument 2"):
            reply(model, SMALL, talks, wants)
    with pytest.raises(ValueError, match=r"a segment's modality is one of \('text', 'image', 'audio'\), got 'video'"):
        reply(model, SMALL, talks, ["text", "video"])


# ---------------------------------------------------------------- the picture of now

A, B, C = ([Segment("image", ()), Segment("text", (n,))] for n in (1, 2, 3))
HEARD, ASKED = [Segment("audio", ()), Segment("text", (4,))], [Segment("text", (5,))]


@pytest.mark.parametrize("given, answer, after", [
    (ASKED, ASKED, A), (ASKED, HEARD, A), (HEARD, ASKED, A), ([*ASKED, *HEARD], HEARD, A),                  # nothing new to see
    (ASKED, C, C), (HEARD, C, C), ([*B, *ASKED], ASKED, B), ([*ASKED, *B], HEARD, B), ([*HEARD, *B], ASKED, B), ([*B, *ASKED], C, C),
])
def test_the_picture_of_now_is_what_was_drawn_or_shown_last(given, answer, after):
    now = list(A)
    assert picture_of_now(now, given, answer) == after and now == A
    assert picture_of_now([], given, answer) == ([] if after is A else after)


@pytest.mark.parametrize("given, shown", [(ASKED, False), (HEARD, False), ([*HEARD, *ASKED], False), (B, True), ([*ASKED, *B], True)])
def test_the_model_sees_it_before_what_is_given_unless_another_is_shown(given, shown):
    now = list(A)
    assert after_picture(now, given) == ([] if shown else A) + given and now == A
    assert after_picture([], given) == given


# ---------------------------------------------------------------- a conversation

SAID = [(("two cats on the left, blue ground",), "image"), (("make the ground green",), None), ((Image(CAT), Text("what is it?")), "text"),
        ((Audio(tone(0.5), 8000),), "audio"), (("how many cats are there?",), None), (("describe it",), "text")]


def test_each_turn_is_answered_from_the_picture_of_now_and_the_words_of_what_is_given(opinionated, shown):
    a, talk, now = opinionated, opinionated.chat(), []
    for n, (parts, want) in enumerate(SAID):
        given, understood, seen = [], [], now
        for part in parts:                                              # by hand
            if isinstance(part, Image):
                tokens = Segment("image", tuple(a.vqvae.encode(part.square()).flatten().tolist()))
            elif isinstance(part, Audio):
                tokens = a.sound_segment(part.speech(a.codec.sample_rate))
            else:
                given.append(Segment("text", tuple(a.bpe.encode(f" {part}"))))
                continue
            given += [Segment(tokens.modality, ()), *generate(a.transformer, a.vocabulary, [[tokens]], "text", temperature=0.0)]
            understood.append(a.bpe.decode(given[-1].ids).strip())
            if isinstance(part, Image):
                seen, now = [], given[-2:]
        ((*opened, words),) = reply(a.transformer, a.vocabulary, [seen + given], [want] if want else None)
        (answer,) = draw_or_speak(a.transformer, a.vocabulary, [[*opened, words]])
        now = [*opened, words] if answer.modality == "image" else now
        said = talk.say(*parts, want=want)
        assert shown[n] == seen + given and talk.now == now and len(talk.turns) == len(shown) == n + 1
        assert same(said, a.render(answer)) and said.remarks == () and type(said) is KINDS[answer.modality]
        turn = talk.turns[-1]
        assert turn.answer is said and turn.understood == tuple(understood)
        assert turn.thought == (a.bpe.decode(words.ids).strip() if opened else "")
        assert [str(part) for part in turn.given] == [str(part) for part in parts] and (n != 2 or turn.given[0] is parts[0])
    assert any(turn.thought for turn in talk.turns) and any(turn.understood[0] for turn in talk.turns if turn.understood)
    assert {type(turn.answer) for turn in talk.turns} == {Text, Image, Audio}


PICTURE, SOUND, SEEN, HEARS, NOT_KNOWN = Image(CAT), Audio(tone(0.5), 8000), "<image>", "<audio>", "I do not know"
STORY = [       # what is given; what the model says to itself, the answer last; of which kind it is; what it was shown; the picture then
    (["how many cats are there?"], [NOT_KNOWN], "text", ["how many cats are there?"], []),                              # absent
    ([SOUND], ["giraffe", "giraffe"], "audio", [HEARS, "giraffe"], []),
    (["draw a cat, blue ground"], ["a cat"], "image", ["draw a cat, blue ground"], [SEEN, "a cat"]),                    # drawn
    (["how many cats are there?"], ["one"], "text", [SEEN, "a cat", "how many cats are there?"], [SEEN, "a cat"]),
    (["say dog"], ["dog"], "audio", [SEEN, "a cat", "say dog"], [SEEN, "a cat"]),
    (["write down what I say", SOUND], ["a sun", "a sun"], "text", [SEEN, "a cat", "write down what I say", HEARS, "a sun"], [SEEN, "a cat"]),
    (["add a dog"], ["a cat, a dog"], "image", [SEEN, "a cat", "add a dog"], [SEEN, "a cat, a dog"]),                   # changed
    ([SOUND], ["name it", NOT_KNOWN], "text", [SEEN, "a cat, a dog", HEARS, "name it"], [SEEN, "a cat, a dog"]),
    ([PICTURE, "what is it?"], ["an owl", "owl"], "audio", [SEEN, "an owl", "what is it?"], [SEEN, "an owl"]),          # shown
    (["describe it"], ["an owl"], "text", [SEEN, "an owl", "describe it"], [SEEN, "an owl"]),
    (["name it", PICTURE], [NOT_KNOWN, NOT_KNOWN], "text", ["name it", SEEN, NOT_KNOWN], [SEEN, NOT_KNOWN]),            # foreign
    (["how many cats are there?"], [NOT_KNOWN], "text", [SEEN, NOT_KNOWN, "how many cats are there?"], [SEEN, NOT_KNOWN]),
    ([PICTURE, SOUND], ["a car", "add a sun", "a car, a sun"], "image", [SEEN, "a car", HEARS, "add a sun"], [SEEN, "a car, a sun"]),
    (["describe it"], ["a car, a sun"], "text", [SEEN, "a car, a sun", "describe it"], [SEEN, "a car, a sun"]),
]


def test_the_model_is_shown_the_picture_of_now_and_nothing_else_that_was_said(parts, shown, says):
    """Here it sees, hears and answers as it is told."""
    assistant = assistant_of(parts)
    talk, bpe = assistant.chat(), assistant.bpe

    def stands(*words: str) -> list[Segment]:
        return [Segment("text", tuple(bpe.encode(" " + word))) if word[0] != "<" else Segment(word[1:-1], ()) for word in words]
    for n, (given, said, want, seen, now) in enumerate(STORY):
        says(*(segment for word in said for segment in stands(word)))
        answer = talk.say(*given, want=want)
        assert shown[n:] == [stands(*seen)] and talk.now == stands(*now)
        assert type(answer) is KINDS[want] and (want != "text" or answer.text.strip() == said[-1])
        assert talk.turns[n].understood == tuple(said[:-1]) and talk.turns[n].thought == ("" if want == "text" else said[-1])


@pytest.mark.parametrize("kind", MODALITIES)
def test_the_model_decides_of_which_kind_its_answer_is_unless_it_is_told(parts, kind):
    talk = decided(parts, kind).chat()
    assert type(talk.say("a cat")) is KINDS[kind]
    other = MODALITIES[(MODALITIES.index(kind) + 1) % 3]
    assert type(talk.say("a cat", want=other)) is KINDS[other]


def test_conversations_are_independent(opinionated):
    one, other = opinionated.chat(), opinionated.chat()
    assert isinstance(one, Chat) and one is not other
    first = one.say("a cat on the left", want="image")
    now = list(one.now)
    one.say("make the ground green", want="image")
    assert other.turns == [] and other.now == [] and len(one.turns) == 2
    assert same(other.say("a cat on the left", want="image"), first) and other.now == now != one.now
    assert not same(opinionated.chat().say("describe it", want="text"), one.say("describe it", want="text")), "the picture of now counts"
    assert other.now == now and len(other.turns) == 1


def test_what_was_only_said_leaves_nothing(opinionated):
    talk = opinionated.chat()
    for parts, want in ((("a cat",), "text"), (("say dog",), "audio"), ((Audio(tone(0.5), 8000),), "text")):
        talk.say(*parts, want=want)
    assert talk.now == [] and same(talk.say("describe it", want="text"), opinionated.chat().say("describe it", want="text"))


def test_what_is_typed_is_read_and_what_became_another_word_is_said_once(opinionated, capsys):
    talk = opinionated.chat()
    answer = talk.say("Please draw 2 KITTENS,blue ground!", Text("the kittens"), "the kittens?", want="text")
    assert [str(part) for part in talk.turns[0].given] == ["draw two cats, blue ground", "the cats", "the cats?"]
    assert answer.remarks == ("I read “kittens” as “cats”.",) and capsys.readouterr().out == ""
    assert talk.say("a cat", want="text").remarks == ()


def test_a_picture_is_painted_as_it_is_asked_for(opinionated, monkeypatch):
    asked, real = [], Assistant.pixels

    def note(self, ids, decoder, steps, seed):
        asked.append((decoder, seed))
        return real(self, ids, decoder, steps, seed)
    monkeypatch.setattr(Assistant, "pixels", note)
    for decoder, seed in (("vq", 7), (None, 8)):
        opinionated.chat().say("a cat", want="image", decoder=decoder, seed=seed)
    assert asked == [("vq", 7), (None, 8)]


def test_seeds(parts):
    assistant = assistant_of(parts, scale=3.0)

    def answer(seed, want="image", **more):
        said = assistant.chat().say("a cat", want=want, seed=seed, **more)
        return said.text if want == "text" else said.pixels.tobytes()
    assert answer(3, temperature=1.0) == answer(np.int64(3), temperature=1.0) != answer(4, temperature=1.0)
    assert answer(3) == answer(4), "by default the likeliest"
    assert answer(3, "text", temperature=1.0) == answer(4, "text", temperature=1.0), "words are the likeliest"
    assert len({answer(None, temperature=1.0) for _ in range(4)}) > 1, "None: another each time"


def test_more_speech_is_heard_than_a_word(opinionated):
    phrase = Audio(tone((MAX_SECONDS + LONGEST_HEARD) / 2), 8000)
    opinionated.chat().say(phrase, want="text")
    with pytest.raises(ValueError, match="it knows single words"):
        opinionated.generate([phrase], "text")


# ---------------------------------------------------------------- what does not fit

@pytest.mark.parametrize("want", MODALITIES)
def test_there_is_room_for_the_longest_answer_and_the_picture_of_now_takes_of_it(parts, shown, want):
    def talk(context: int) -> Chat:
        return decided(parts, want, context).chat()
    (bpe, *_, vocabulary), text = parts, "a cat" + " a cat" * 40
    longest, tokens = content_limit(vocabulary, "text"), len(bpe.encode(" " + text))
    asked = 2 + tokens + 2 + 2 + longest
    least = asked + 2 + 2 + longest                                     # the kind of the answer, and its words
    full = talk(least)
    full.say(text, Image(CAT))
    ((*_, words),) = reply(full.assistant.transformer, vocabulary, shown, [want])
    assert len(words.ids) == longest, "this model never stops by itself"
    full.say(text)                                                      # about a picture with as many words
    assert len(vocabulary.pack(shown[-1])) == asked and shown[-1][:2] == full.now
    more = text + " cat"
    asked_more = asked + len(bpe.encode(" " + more)) - tokens
    full.assistant.chat().say(more)                                     # no picture, more room
    with pytest.raises(ValueError, match=f"a turn has {asked_more} tokens, and there is room for {asked}: say less at once"):
        full.say(more)
    with pytest.raises(ValueError, match=f"a turn has {asked} tokens, and there is room for {asked - 1}: say less at once"):
        talk(least - 1).say(text, Image(CAT))


def test_room_is_counted_in_tokens(parts):
    vocabulary = parts[-1]
    talk = [Segment("image", ()), Segment("text", (1,) * 7), Segment("text", (1,) * 3)]
    least = len(vocabulary.pack(talk)) + 4 + content_limit(vocabulary, "text")
    check_room(vocabulary, least, talk)
    with pytest.raises(ValueError, match="a turn has 16 tokens, and there is room for 15: say less at once"):
        check_room(vocabulary, least - 1, talk)


def test_a_conversation_may_be_as_long_as_one_likes(parts, shown):
    talk = decided(parts, "text").chat()
    for n in range(12):
        answer = talk.say(*([Image(CAT), "what is it?"] if n == 5 else ["a cat"]))
        assert answer.remarks == () and len(shown[-1]) == (1 if n < 5 else 3)
    assert len(talk.turns) == 12


@pytest.mark.parametrize("kind, parts_, settings, sentence", [
    (ValueError, [], {}, r"say, show or play something: talk.say\('two cats on the left'\)"),
    (ValueError, [""], {}, "the text is empty: type a few words"),
    (ValueError, [" \n\u200b"], {}, "the text is empty: type a few words"),
    (ValueError, ["a cat", ""], {}, "the text is empty"),
    (ValueError, ["x" * 2001], {}, "2,001 characters are more than anybody says at once: write at most 2,000"),
    (ValueError, ["zebra " * 300], {}, r"a turn has \d+ tokens, and there is room for 460: say less at once"),
    (ValueError, [Image(CAT)] * 9, {}, "a turn has 468 tokens, and there is room for 460"),
    (ValueError, ["a cat"], {"want": "video"}, r"want is one of \('text', 'image', 'audio'\), or None to let the model decide; got 'video'"),
    (ValueError, ["a cat"], {"want": ""}, "want is one of"),
    (ValueError, ["a cat"], {"decoder": "magic"}, "decoder is 'vq', 'diffusion', 'diffusion128', got 'magic'"),
    (ValueError, ["a cat"], {"decoder": "diffusion"}, "this model has no diffusion decoder: `python -m mmcourse train decoder` makes one"),
    (ValueError, ["a cat"], {"want": "image", "temperature": -1}, "temperature must be finite and not negative"),
    (ValueError, [Image(CAT)], {"want": "image", "temperature": -1}, "temperature must be finite and not negative"),
    (ValueError, ["a cat"], {"want": "audio", "temperature": 1.0, "top_p": 0}, "0 < top_p <= 1"),
    (ValueError, ["a cat"], {"seed": -1}, "seed"),
    (TypeError, ["a cat"], {"best_of": 8}, "best_of"),
    (ValueError, [Audio(tone(10.0), 8000)], {}, r"10.0 s of sound, but the model listens to at most 3 s: it knows short phrases. Use .cut\(start, seconds\)"),
    (ValueError, [Audio(np.zeros(8000), 8000)], {}, "the sound is silent: record again, nearer to the microphone"),
    (ValueError, [Audio(tone(0.02), 8000)], {}, "too short for a word"),
    (TypeError, [np.zeros((64, 64, 3))], {}, "a conversation is made of strings, mm.Text, mm.Image and mm.Audio, got ndarray"),
    (TypeError, [["a cat"]], {}, "got list"), (TypeError, ["a cat", None], {}, "got NoneType"), (TypeError, [b"a cat"], {}, "got bytes"),
])
def test_what_cannot_be_answered_leaves_the_conversation_as_it_was(parts, kind, parts_, settings, sentence):
    assistant = decided(parts, "text")
    talk, other = assistant.chat(), assistant.chat()
    for said in ([Image(CAT), "a cat"], ["a cat"]):
        assert same(talk.say(*said), other.say(*said))
    turns, now, words = list(talk.turns), talk.now, list(talk.now)
    with pytest.raises(kind, match=sentence):
        talk.say(*parts_, **settings)
    assert len(talk.turns) == 2 and all(a is b for a, b in zip(talk.turns, turns)) and talk.now is now and now == words != []
    answer, wanted = talk.say("a dog"), other.say("a dog")
    assert same(answer, wanted) and answer.remarks == wanted.remarks and talk.now == other.now and len(talk.turns) == len(other.turns)


@pytest.mark.parametrize("where", ["perceive", "reply", "draw_or_speak", "render"])
def test_an_interrupted_answer_leaves_the_conversation_as_it_was(opinionated, monkeypatch, where):
    talk = opinionated.chat()
    talk.say("a cat", want="image")
    turns, now, words = list(talk.turns), talk.now, list(talk.now)

    def interrupted(*args, **more):
        raise KeyboardInterrupt
    monkeypatch.setattr(Assistant if where == "render" else module, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        talk.say(Image(CAT), "add a dog", want="image")
    assert talk.turns == turns and talk.now is now and now == words != []


def test_of_two_pictures_the_last_is_talked_about():
    one, two = ([Segment("image", ()), Segment("text", (i,))] for i in (1, 2))
    assert picture_of_now([], [*one, *two], [Segment("text", (3,))]) == two
    assert picture_of_now(one, [Segment("text", (3,))], two) == two and picture_of_now(one, [], [Segment("text", (3,))]) == one
