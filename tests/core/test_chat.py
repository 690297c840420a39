"""A conversation: what the model is shown at each turn, who decides of which kind the answer is, and what is forgotten.

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
    choose_modality,
    first_that_fits,
    reply,
    room_for_prompt,
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
    return Assistant(bpe, vqvae, codec, model.eval(), vocabulary)


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


def test_a_prompt_without_a_question_is_refused():
    with pytest.raises(ValueError, match="a prompt is empty: ask something, or say what is wanted"):
        choose_modality(wild_model(), SMALL, [*random_prompts(2), []])
    with pytest.raises(ValueError, match="a prompt is empty"):
        reply(wild_model(context=300), SMALL, [[]])
    assert [segment.modality for segment in reply(wild_model(context=300), SMALL, [[]], ["image"])[0]] == ["text", "image"], "from nothing"


# ---------------------------------------------------------------- replies

@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_replies_are_those_of_generate_in_the_order_of_the_prompts(think, given):
    model, prompts = wild_model(1, context=300), random_prompts(9)
    wants = [MODALITIES[i % 3] for i in range(9)] if given else choose_modality(model, SMALL, prompts)
    assert len(set(wants)) > 1
    found = reply(model, SMALL, prompts, wants if given else None, think)
    for prompt, want, segments in zip(prompts, wants, found, strict=True):
        words = generate(model, SMALL, [prompt], "text", temperature=0.0) if think and want != "text" else []
        assert list(segments) == [*words, *generate(model, SMALL, [[*prompt, *words]], want, temperature=0.0)]
        assert segments[-1].modality == want


def test_answers_are_sampled_as_asked_and_the_words_before_them_are_the_likeliest():
    model, prompts = wild_model(2, scale=4.0, context=300), random_prompts(3)
    found = reply(model, SMALL, prompts, MODALITIES, temperature=1.0, seed=5)
    for prompt, want, segments in zip(prompts, MODALITIES, found, strict=True):
        words = generate(model, SMALL, [prompt], "text", temperature=0.0) if want != "text" else []
        assert list(segments) == [*words, *generate(model, SMALL, [[*prompt, *words]], want, temperature=1.0, seed=5)]
    assert found != reply(model, SMALL, prompts, MODALITIES) and found == reply(model, SMALL, prompts, MODALITIES, temperature=1.0, seed=5)


def test_nothing_is_answered_by_nothing_and_wrong_wants_are_refused():
    model, prompts = wild_model(context=300), random_prompts(2)
    assert reply(model, SMALL, []) == []
    with pytest.raises(ValueError, match="2 prompts and 1 wants: give one for each, or None"):
        reply(model, SMALL, prompts, ["text"])
    with pytest.raises(ValueError, match=r"want is one of \('text', 'image', 'audio'\), got 'video'"):
        reply(model, SMALL, prompts, ["text", "video"])


# ---------------------------------------------------------------- a conversation

SAID = [(("two cats on the left, blue ground",), "image"), (("make the ground green",), None), ((Image(CAT), Text("what is it?")), "text"),
        ((Audio(tone(0.5), 8000),), "audio"), (("how many cats are there?",), None), (("describe it",), "text")]


@pytest.mark.parametrize("think", [True, False])
def test_each_turn_is_answered_from_all_that_was_given_and_answered_but_not_from_thoughts(opinionated, shown, think):
    a, talk, prompt = opinionated, opinionated.chat(), []
    for n, (parts, want) in enumerate(SAID):
        for part in parts:                                              # as tokens, by hand
            if isinstance(part, Image):
                prompt.append(Segment("image", tuple(a.vqvae.encode(part.square()).flatten().tolist())))
            elif isinstance(part, Audio):
                prompt.append(a.sound_segment(part.speech(a.codec.sample_rate)))
            else:
                prompt.append(Segment("text", tuple(a.bpe.encode(f" {part}"))))
        ((*words, answer),) = reply(a.transformer, a.vocabulary, [prompt], [want] if want else None, think)
        said = talk.say(*parts, want=want, think=think)
        assert shown[n] == prompt and len(talk.turns) == len(shown) == n + 1
        assert same(said, a.render(answer)) and said.remarks == () and type(said) is KINDS[answer.modality]
        turn = talk.turns[-1]
        assert turn.answer is said and turn.segments[-1] == answer and turn.segments[:-1] == tuple(prompt[-len(parts):])
        assert turn.thought == "".join(a.bpe.decode(segment.ids).strip() for segment in words)
        assert bool(words) == (think and answer.modality != "text")
        assert [str(part) for part in turn.given] == [str(part) for part in parts] and (n != 2 or turn.given[0] is parts[0])
        prompt.append(answer)
    assert any(turn.thought for turn in talk.turns) == think and talk.forgotten == 0
    assert {type(turn.answer) for turn in talk.turns} == {Text, Image, Audio}


@pytest.mark.parametrize("kind", MODALITIES)
def test_the_model_decides_of_which_kind_its_answer_is_unless_it_is_told(parts, kind):
    talk = decided(parts, kind).chat()
    assert type(talk.say("a cat")) is KINDS[kind]
    other = MODALITIES[(MODALITIES.index(kind) + 1) % 3]
    assert type(talk.say("a cat", want=other)) is KINDS[other]


def test_conversations_are_independent(opinionated):
    one, other = opinionated.chat(), opinionated.chat()
    assert isinstance(one, Chat) and one is not other
    first = one.say("a cat on the left", want="text")
    one.say("make the ground green", want="text")
    assert other.turns == [] and same(other.say("a cat on the left", want="text"), first) and len(one.turns) == 2
    assert not same(other.say("a dog", want="text"), one.say("a dog", want="text")), "what came before counts"


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

    def answer(seed, **more):
        return assistant.chat().say("a cat", want="text", seed=seed, **more).text
    assert answer(3, temperature=1.0) == answer(np.int64(3), temperature=1.0) != answer(4, temperature=1.0)
    assert answer(3) == answer(4), "by default the likeliest"
    assert len({answer(None, temperature=1.0) for _ in range(4)}) > 1, "None: another each time"


def test_more_speech_is_heard_than_a_word(opinionated):
    phrase = Audio(tone((MAX_SECONDS + LONGEST_HEARD) / 2), 8000)
    opinionated.chat().say(phrase, want="text")
    with pytest.raises(ValueError, match="it knows single words"):
        opinionated.generate([phrase], "text")


# ---------------------------------------------------------------- what does not fit

def test_the_oldest_turns_are_left_out_whole():
    turns = [[Segment("text", (1,) * 8)], [Segment("text", (1,) * 18), Segment("text", (2,) * 8)], [Segment("text", (1,) * 3)]]
    assert [first_that_fits(turns, room) for room in (45, 44, 35, 34, 5)] == [0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="a turn has 5 tokens, and there is room for 4"):
        first_that_fits(turns, 4)


@pytest.mark.parametrize("want", MODALITIES)
def test_there_is_room_for_the_longest_thought_and_the_longest_answer(parts, want):
    def talk(context: int) -> Chat:
        return decided(parts, want, context).chat()
    vocabulary = parts[-1]
    prompt = 2 + len(parts[0].encode(" a cat")) + 2 + vocabulary.image_tokens
    least = prompt + 2 + content_limit(vocabulary, "text") + 2 + content_limit(vocabulary, "audio")
    assert room_for_prompt(vocabulary, least) == prompt
    full = talk(least)
    full.say("a cat", Image(CAT))
    assert len(full.turns[0].segments[-1].ids) == content_limit(vocabulary, want), "this model never stops by itself"
    with pytest.raises(ValueError, match=f"a turn has {prompt} tokens, and there is room for {prompt - 1}: ask for less"):
        talk(least - 1).say("a cat", Image(CAT))


def test_a_long_conversation_forgets_its_oldest_turns_says_so_once_and_goes_on(parts, shown):
    assistant = decided(parts, "text")
    talk, room, forgotten = assistant.chat(), room_for_prompt(assistant.vocabulary, 512), [0]
    for n in range(14):
        asked = [Image(CAT), "what is it?"] if n > 9 and n % 2 else ["a cat"]
        answer, before = talk.say(*asked), [turn.segments for turn in talk.turns]
        before[-1] = before[-1][:-1]                                    # its answer was not there yet
        kept = [segment for turn in before[talk.forgotten:] for segment in turn]
        assert shown[-1] == kept and len(assistant.vocabulary.pack(kept)) <= room
        if talk.forgotten:
            more = [segment for turn in before[talk.forgotten - 1:] for segment in turn]
            assert len(assistant.vocabulary.pack(more)) > room, "not one turn too many"
        which = "turn" if talk.forgotten == 1 else f"{talk.forgotten} turns"
        sentence = f"The conversation is longer than what I can see at once: I have forgotten its first {which}."
        assert answer.remarks == ((sentence,) if talk.forgotten > forgotten[-1] else ())
        forgotten.append(talk.forgotten)
    assert len(talk.turns) == 14 and forgotten == sorted(forgotten) and {1, 2} < set(forgotten)
    assert forgotten.count(0) > 3 and len(set(forgotten)) < len(forgotten) - forgotten.count(0), "at times nothing more is forgotten"


@pytest.mark.parametrize("kind, parts_, settings, sentence", [
    (ValueError, [], {}, r"say, show or play something: talk.say\('two cats on the left'\)"),
    (ValueError, [""], {}, "the text is empty: type a few words"),
    (ValueError, [" \n\u200b"], {}, "the text is empty: type a few words"),
    (ValueError, ["a cat", ""], {}, "the text is empty"),
    (ValueError, ["x" * 2001], {}, "2,001 characters are more than anybody says at once: write at most 2,000"),
    (ValueError, ["zebra " * 300], {}, r"a turn has \d+ tokens, and there is room for 364: ask for less, or show one thing at a time"),
    (ValueError, [Image(CAT)] * 6, {}, "a turn has 396 tokens, and there is room for 364"),
    (ValueError, ["a cat"], {"want": "video"}, r"want is one of \('text', 'image', 'audio'\), or None to let the model decide; got 'video'"),
    (ValueError, ["a cat"], {"want": ""}, "want is one of"),
    (ValueError, ["a cat"], {"decoder": "magic"}, "decoder is 'vq', 'diffusion', 'diffusion128', got 'magic'"),
    (ValueError, ["a cat"], {"decoder": "diffusion"}, "this model has no diffusion decoder: `python -m mmcourse train decoder` makes one"),
    (ValueError, ["a cat"], {"temperature": -1}, "temperature must be finite and not negative"),
    (ValueError, [Image(CAT)] * 3, {"temperature": -1}, "temperature must be finite and not negative"),         # more would be forgotten
    (ValueError, ["a cat"], {"temperature": 1.0, "top_p": 0}, "0 < top_p <= 1"),
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
    for _ in range(4):
        assert same(talk.say(Image(CAT), "a cat"), other.say(Image(CAT), "a cat"))
    turns, forgotten = list(talk.turns), talk.forgotten
    assert forgotten > 0
    with pytest.raises(kind, match=sentence):
        talk.say(*parts_, **settings)
    assert talk.turns == turns and all(a is b for a, b in zip(talk.turns, turns)) and talk.forgotten == forgotten
    (answer, wanted), segments = (talk.say("a dog"), other.say("a dog")), [turn.segments for turn in other.turns]
    assert same(answer, wanted) and answer.remarks == wanted.remarks and [turn.segments for turn in talk.turns] == segments


def test_an_interrupted_answer_leaves_the_conversation_as_it_was(opinionated, monkeypatch):
    talk = opinionated.chat()
    talk.say("a cat", want="text")
    turns = list(talk.turns)

    def interrupted(*args, **more):
        raise KeyboardInterrupt
    monkeypatch.setattr(module, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        talk.say("a dog", want="text")
    assert talk.turns == turns and talk.forgotten == 0
