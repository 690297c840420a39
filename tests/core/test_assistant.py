"""Any modality in, any modality out: sensible answers to odd input, and a clear sentence for what cannot be answered.

Most tests use a tiny untrained model: what is asked of them is not what the answer says but that there is one.
"""
import doctest
import shutil

import numpy as np
import pytest
import torch
from helpers import CAT, tone

import mmcourse as mm
from mmcourse import assistant as module
from mmcourse import checkpoints, rerank
from mmcourse.codec import AudioCodec
from mmcourse.media import Audio, Image, Text
from mmcourse.paths import CHECKPOINTS
from mmcourse.vocabulary import MODALITIES, Segment
from mmcourse.vqvae import VQVAE


@pytest.fixture
def folder(parts, tmp_path):
    """A folder of checkpoints as the shipped one is, with the tiny models."""
    bpe, vqvae, codec, transformer, vocabulary = parts
    shutil.copy(CHECKPOINTS / "bpe.json", tmp_path)
    checkpoints.record("bpe", tmp_path / "bpe.json", folder=tmp_path, model="BPETokenizer")
    made = {"seed": 0, "steps": 0, "cpu_minutes": 0, "metrics": {}, "folder": tmp_path}
    checkpoints.save("vqvae", vqvae, **made)
    checkpoints.save("codec", codec, **made)
    hashes = {name: checkpoints.manifest(tmp_path)[name]["sha256"] for name in ("bpe", "vqvae", "codec")}
    checkpoints.save("transformer", transformer, vocabulary=vocabulary.config, tokenizers=hashes, **made)
    return tmp_path


def prompt_of(modality: str):
    return {"text": Text("two cats on the left"), "image": Image(CAT), "audio": Audio(tone(0.5), 8000)}[modality]


def test_docstrings():
    assert doctest.testmod(module).failed == 0


# ---------------------------------------------------------------- every direction answers

@pytest.mark.parametrize("given", MODALITIES)
@pytest.mark.parametrize("want", MODALITIES)
def test_every_direction_answers(tiny, given, want):
    answer = tiny.generate([prompt_of(given)], want, seed=1, temperature=1.0)
    assert type(answer).__name__.lower() == want
    if want == "image":
        assert answer.pixels.shape == (64, 64, 3) and answer.pixels.dtype == np.uint8
    if want == "audio":
        assert 0 < answer.seconds <= 2 and np.isfinite(answer.samples).all() and np.abs(answer.samples).max() <= 1
    again = tiny.generate([prompt_of(given)], want, seed=1, temperature=1.0)
    assert repr(answer) == repr(again) and _bytes(answer) == _bytes(again), "the same seed gives the same answer"


def _bytes(answer) -> bytes:
    if isinstance(answer, Text):
        return answer.text.encode()
    return (answer.pixels if isinstance(answer, Image) else answer.samples).tobytes()


@pytest.mark.parametrize("given", MODALITIES)
@pytest.mark.parametrize("want", MODALITIES)
def test_whatever_comes_out_is_one_segment_that_parses(tiny, given, want):
    prompt = tiny.segment(prompt_of(given))
    answer = tiny.tokens([prompt_of(given)], want, seed=3, temperature=2.0)
    assert tiny.vocabulary.unpack(tiny.vocabulary.pack([prompt, answer])) == [prompt, answer] and answer.modality == want


def test_prompts_of_several_parts(tiny):
    answer = tiny.generate([Text("a cat"), Image(CAT), Text("again")], "text", temperature=1.0)
    assert isinstance(answer, Text)
    assert isinstance(tiny.generate("a cat", "text", temperature=1.0), Text), "a bare string is a prompt too"


@pytest.mark.parametrize("kind, parts_, sentence", [
    (ValueError, [], "the prompt is empty: give at least one Text, Image or Audio"),
    (TypeError, [np.zeros((64, 64, 3))], "a prompt is made of mm.Text, mm.Image and mm.Audio, got ndarray"),
    (TypeError, [3], "got int"),
    (ValueError, [""], "the text is empty: type a few words"),
    (ValueError, [Text("zebra " * 400)], "more than the context of 256: shorten it by"),
    (ValueError, [Image(CAT)] * 4, "shorten it by"),
])
def test_prompts_that_cannot_be(tiny, kind, parts_, sentence):
    with pytest.raises(kind, match=sentence):
        tiny.generate(parts_, "image")


@pytest.mark.parametrize("settings, sentence", [
    ({"want": "video"}, r"want is one of \('text', 'image', 'audio'\), got 'video'"),
    ({"want": "text", "temperature": -1}, "temperature must be finite and not negative"),
    ({"want": "text", "temperature": float("nan")}, "temperature must be finite"),
    ({"want": "text", "temperature": 1.0, "top_p": 0}, "0 < top_p <= 1"),
    ({"want": "image", "decoder": "magic"}, "decoder is 'vq', 'diffusion', 'diffusion128', got 'magic'"),
    ({"want": "image", "decoder": "diffusion"}, "this model has no diffusion decoder: `python -m mmcourse train decoder`"),
])
def test_settings_that_cannot_be(tiny, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.generate([Text("a cat")], **settings)


# ---------------------------------------------------------------- prompts of odd characters

@pytest.mark.parametrize("text", ["một con mèo", "猫 🐱", "\x00\x07", "a\u202ecat", "<image></text><pad>", "\ud83d".encode(
    "utf-16", "surrogatepass").decode("utf-16", "replace"), "...", "É" * 40])
def test_characters_never_seen(tiny, text):
    segment = tiny.segment(Text(text))
    assert all(i < tiny.bpe.vocab_size for i in segment.ids), "nothing that a user types becomes a boundary token"
    for want in MODALITIES:
        tiny.generate([Text(text)], want, temperature=1.0)


# ---------------------------------------------------------------- checkpoints

def test_a_saved_model_comes_back(folder, tiny):
    again = module.load(folder=folder)
    for want in MODALITIES:
        ask = {"want": want, "seed": 3, "temperature": 1.0}
        assert _bytes(again.generate("a cat", **ask)) == _bytes(tiny.generate("a cat", **ask))


def test_there_is_one_model():
    with pytest.raises(ValueError, match="the models are 'reference' and 'chat'; got 'gpt'"):
        mm.load("gpt")


@pytest.mark.parametrize("name", ["transformer.safetensors", "vqvae.safetensors", "codec.safetensors", "bpe.json"])
def test_a_changed_byte(folder, name):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is not the file that the manifest records.*Restore it with git or run"):
        module.load(folder=folder)


def test_a_missing_file(folder):
    (folder / "codec.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="codec.safetensors is missing though the manifest names it; restore it"):
        module.load(folder=folder)


def test_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'transformer' .*python -m mmcourse train transformer"):
        module.load(folder=tmp_path)


@pytest.mark.parametrize("change, sentence", [
    (lambda e: e["transformer"]["config"].update(width=32), "does not fit the config in the manifest"),
    (lambda e: e["transformer"]["config"].update(layers=2), "does not fit the config in the manifest: (?s:.*)Missing"),
    (lambda e: e["transformer"]["config"].update(layers=0), "does not fit the config in the manifest: (?s:.*)Unexpected"),
    (lambda e: e["transformer"]["config"].update(heads=3), "width must be a multiple of heads"),
    (lambda e: e["transformer"]["config"].update(depth=2), "the config in the manifest is not one of .*depth"),
    (lambda e: e["vqvae"]["config"].update(codebook_size=64), "does not fit the config in the manifest"),
    (lambda e: e["transformer"]["vocabulary"].update(image=64), "contradicts itself: the transformer has .* ids"),
    (lambda e: e["transformer"].pop("vocabulary"), "contradicts itself: the transformer has .* restore it with git"),
    (lambda e: e["transformer"].pop("tokenizers"), "contradicts itself: .* its tokenizers 0: restore it with git"),
    (lambda e: e["transformer"].update(model="os.path.join"), "names the class 'os.path.join', which is not of this package"),
])
def test_a_checkpoint_of_another_config(folder, change, sentence):
    entries = checkpoints.manifest(folder)
    change(entries)
    checkpoints.write_manifest(entries, folder)
    with pytest.raises(ValueError, match=sentence):
        module.load(folder=folder)


@pytest.mark.parametrize("part", ["vqvae", "codec"])
def test_a_transformer_of_other_tokenizers(folder, parts, part):
    """Another tokenizer of the same config loads without complaint, but its ids would mean other things."""
    torch.manual_seed(5)
    other = {"vqvae": VQVAE, "codec": AudioCodec}[part](**checkpoints.manifest(folder)[part]["config"])
    checkpoints.save(part, other, seed=5, steps=0, cpu_minutes=0, metrics={}, folder=folder)
    with pytest.raises(ValueError, match=f"trained on another {part}: its ids would mean other things. Restore"):
        module.load(folder=folder)


def test_a_damaged_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="manifest.json is not JSON any more .* restore it with git"):
        module.load(folder=folder)


# ---------------------------------------------------------------- the shipped model

@pytest.mark.slow                                                      # test_golden.py asks in all directions too
def test_the_shipped_model_answers_in_every_direction():
    a = mm.load()
    for want in MODALITIES:
        for given in MODALITIES:
            assert type(a.generate([prompt_of(given)], want, best_of=1)).__name__.lower() == want
    plain, fine = (a.generate("a cat", "image", decoder=name) for name in (None, "diffusion"))
    assert (plain.pixels == fine.pixels).all() and fine.pixels.shape == (64, 64, 3), "the diffusion decoder paints by default"
    assert (plain.pixels != a.generate("a cat", "image", decoder="vq").pixels).any()
    assert a.generate("a cat", "image", decoder="diffusion128").pixels.shape == (128, 128, 3)


@pytest.mark.slow                                                      # test_golden.py asks in all directions too
def test_the_shipped_model_draws_what_it_is_told():
    """Not how well (the matrix says that), but that it is wired up: backgrounds alone are far above chance, 1 in 8."""
    from mmcourse.judges.pictures import PictureReader
    from mmcourse.world.scene import BACKGROUNDS
    a = mm.load()
    asked = list(BACKGROUNDS)
    made = [a.generate([Text(f"a cat on the left, {background} ground")], "image", best_of=1).square() for background in asked]
    read = PictureReader().read_backgrounds(torch.cat(made))
    assert sum(x == y for x, y in zip(asked, read, strict=True)) >= 6


# ---------------------------------------------------------------- segments, and sounds that are heard several times

def test_segments_of_a_prompt(tiny):
    assert tiny.segment("a cat") == tiny.segment(Text("A  cat."))
    assert tiny.segment(Image(CAT)).modality == "image" and isinstance(tiny.segment(Image(CAT)), Segment)


def test_a_sound_is_heard_several_times_before_it_is_put_into_words(tiny, monkeypatch):
    sound, heard, real = Audio(tone(0.5), 8000), [], rerank.augmented_consensus

    def note(model, vocabulary, views):
        heard.append(views)
        return real(model, vocabulary, views)
    monkeypatch.setattr(rerank, "augmented_consensus", note)
    tiny.generate([sound], "text")
    ((views,),) = heard
    assert views[0] == [tiny.segment(sound)] and len(views) == len(module.TEMPOS)
    assert len(views[1][0].ids) > len(views[0][0].ids) > len(views[-1][0].ids), "slower is longer"
    tiny.generate([sound], "image", best_of=1)
    assert heard[1:] == [[views]], "also what it says before it draws"
    for parts, want, sampling in (([sound], "text", {"temperature": 0.0}), ([sound], "text", {"think": True, "temperature": 1.0}),
                                  ([sound], "image", {"think": False}), ([sound], "audio", {}), ([sound, "a cat"], "text", {})):
        tiny.generate(parts, want, **sampling)
    assert len(heard) == 2, "not where sampling says how to write it down, and not where no words are said"


def test_thinking_can_be_asked_for_and_left_out(tiny, monkeypatch):
    asked, real = [], rerank.answer
    monkeypatch.setattr(rerank, "answer", lambda *args, **kw: asked.append(kw["say_first"]) or real(*args, **kw))
    for think in (None, True, False):
        tiny.generate([Image(CAT), "make the ground green"], "image", think=think, best_of=1)
    assert asked == [None, True, False]


# ---------------------------------------------------------------- what people type, and numbers of every kind

def test_a_prompt_is_read_before_it_is_answered(tiny, capsys):
    ask = {"want": "image", "temperature": 1.0, "seed": 3}
    meant = tiny.generate("a cat on the left, blue ground, sign K I T E", **ask)
    assert meant.remarks == () and capsys.readouterr().out == ""
    for typed in ("A CAT ON THE LEFT, BLUE GROUND, SIGN KITE.", "a cat on the left, sign “Kite”; blue background"):
        assert _bytes(tiny.generate(typed, **ask)) == _bytes(meant), typed
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("want", MODALITIES)
def test_what_was_not_understood_comes_with_the_answer(tiny, capsys, want):
    answer = tiny.generate("a zebra and a cat", want, temperature=1.0)
    said = "I speak one word at a time: this is “cat”." if want == "audio" else "I know no “zebra” (nearest: camera)."
    assert answer.remarks == (said,) and capsys.readouterr().out == said + "\n", "printed once"


def test_a_text_with_remarks_is_the_same_text():
    assert Text("a", ("not understood",)) == Text("a") and repr(Text("a", ("x",))) == "Text(text='a')"


def test_a_change_of_a_picture_is_read_too(tiny):
    parts, remarks = tiny.read([Image(CAT), "Please turn the CAT into a zebra or a dog!"], "image")
    assert isinstance(parts[0], Image) and parts[1].text == "replace the cat with a dog" and len(remarks) == 1


def test_a_model_that_answers_in_one_try_looks_and_listens_once(parts, monkeypatch):
    asked, real = [], rerank.answer
    monkeypatch.setattr(rerank, "answer", lambda *args, **kw: asked.append(kw) or real(*args, **kw))
    a = module.Assistant(*parts, sampling=module.ONE_TRY)
    for given, want in ((Audio(tone(0.5), 8000), "text"), (Audio(tone(0.5), 8000), "image"), (Image(CAT), "audio")):
        a.generate([given], want)
    a.generate([Image(CAT), "make the ground green"], "image", temperature=0.5)
    assert all(kw["views"] == [] and kw["best_of"] == 1 for kw in asked) and len(asked) == 4
    assert [kw["temperature"] for kw in asked] == [0.0, 0.0, 0.0, 0.5], "what is asked for goes before what the model has"


@pytest.mark.parametrize("want", MODALITIES)
def test_numbers_of_numpy_and_no_seed(tiny, want):
    plain = tiny.generate("cat", want, seed=3, best_of=2, temperature=1.0)
    other = tiny.generate("cat", want, seed=np.int64(3), best_of=np.int64(2), temperature=np.float32(1.0), top_k=np.int64(0))
    assert _bytes(plain) == _bytes(other)
    assert len({_bytes(tiny.generate("cat", want, seed=None, temperature=1.0)) for _ in range(4)}) > 1, "None: another each time"


@pytest.mark.parametrize("change, sentence", [
    ({"seed": 2**64}, "seed is a whole number from 0"), ({"seed": -1}, "seed is a whole"), ({"seed": 0.5}, "seed is a whole"),
    ({"guidance": float("nan")}, "guidance is a finite number, got nan"), ({"best_of": 10**9}, "best_of is at most 512"),
    ({"best_of": 1.5}, "best_of is a whole number"), ({"temperature": float("nan")}, "temperature must be finite"),
])
def test_numbers_that_cannot_be(tiny, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.generate("cat", "image", **{"temperature": 1.0, **change})


def test_decoders_of_pictures_take_the_same_numbers(parts):
    from mmcourse.diffusion import FlowDecoder
    flow = FlowDecoder(code_dim=4, width=16, depth=1, time=16)
    a = module.Assistant(*parts, decoder=flow)
    ids = torch.zeros(1, 8, 8, dtype=torch.int16)
    assert torch.equal(a.pixels(ids, steps=np.int64(1), seed=np.int64(2)), a.pixels(ids.long(), steps=1, seed=2))
    assert a.generate("cat", "image", seed=None, temperature=1.0, best_of=1).pixels.shape == (64, 64, 3)
    assert a.pixels(ids, seed=None).shape == (1, 3, 64, 64)
