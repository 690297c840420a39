"""The sound tokenizer: any length, in pieces as at once, bad input, exact resume, and what the shipped one does to speech."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse import codec as C
from mmcourse.codec import AudioCodec
from mmcourse.media import Audio
from mmcourse.spectrogram import log_mel, normalize_loudness
from mmcourse.world.speech import load_speech, resample


@pytest.fixture(scope="module")
def small(random_codec):
    return random_codec


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("codec")


@pytest.fixture(scope="module")
def elephant():
    """A word of a held-out voice."""
    corpus = load_speech(progress=False)
    return corpus.clips[corpus.select("elephant", held_out=True)[0]]


def test_training_passes_gradients_and_drops_levels():
    model = AudioCodec(width=16, dim=8, codebook_size=32, warmup=1).train()
    sound, n_levels = normalize_loudness(torch.randn(4, 320 * 6)), torch.tensor([1, 2, 3, 4])
    C.codec_loss(model, sound, n_levels)["loss"].backward()                          # the warm-up step quantizes nothing
    assert not any(level.initialized for level in model.quantizer.levels)
    model.zero_grad()
    C.codec_loss(model, sound, n_levels)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.encoder[0].weight.grad.abs().sum() > 0                          # through the rounding
    model.eval()
    before = [book.clone() for book in model.codebooks]
    one, _, _ = model(model.features(sound), torch.full((4,), 1))
    four, _, ids = model(model.features(sound), torch.full((4,), 4))
    assert not torch.allclose(one, four) and ids.shape == (4, 6, 4)
    assert all(torch.equal(a, book) for a, book in zip(before, model.codebooks, strict=True))


@pytest.mark.parametrize("samples, frames", [(1, 1), (80, 1), (320, 1), (321, 2), (8000, 25), (480_000, 1500)])
def test_any_length(small, samples, frames):
    ids = small.encode(torch.randn(samples) * 0.1)
    assert ids.shape == (1, frames, 4) and ids.dtype == torch.int64
    if frames < 100:
        sound = small.decode(ids)
        assert sound.shape == (1, frames * 320) and sound.abs().max() <= 1


def test_a_minute_decodes_in_pieces(small, monkeypatch):
    seen = []
    monkeypatch.setattr(C, "griffin_lim", lambda a: seen.append(a.shape[1]) or torch.ones(len(a), a.shape[1] * 80) * 0.1)
    sound = small.decode(torch.zeros(1, 1500, 2, dtype=torch.long))
    assert sound.shape == (1, 480_000) and max(seen) <= 2050
    assert torch.allclose(sound, torch.full_like(sound, 0.1))                    # no seam
    for frames in (499, 500, 501, 512, 513, 514, 1001):
        assert small.decode(torch.zeros(1, frames, 1, dtype=torch.long)).shape == (1, frames * 320)


@pytest.mark.parametrize("piece", [1, 13, 500])
def test_pieces_change_nothing(small, piece):
    x, z = torch.randn(2, 320 * 60), torch.randn(2, 8, 60)
    whole = small.encoder(small.features(x))
    pieces = C.in_pieces(lambda p: small.encoder(small.features(p)), x, 320, 1, piece=piece)
    assert torch.allclose(pieces, whole, atol=1e-5)
    assert torch.allclose(C.in_pieces(small.decoder, z, 1, 4, piece=piece), small.decoder(z), atol=1e-5)


def test_a_long_sound_has_the_ids_that_it_would_have_at_once_and_is_never_held_whole(small, monkeypatch):
    """65 s of noise that swells and fades, so that neither its loudness nor its spectrum is constant."""
    n, lengths, features = 8000 * 65, [], small.features
    x = torch.randn(n) * 0.1 * (1.1 + torch.sin(torch.arange(n) / 900))
    whole = small.quantizer(small.encoder(features(normalize_loudness(x[None])))[0].T)[1]
    monkeypatch.setattr(small, "features", lambda samples: lengths.append(samples.shape[1]) or features(samples))
    assert (small.encode(x)[0] == whole).float().mean() > 0.999, "but for ties, the very same"
    assert len(lengths) == 4 and max(lengths) <= (500 + 2 * 8) * 320, "20 s at a time, with a little context"


def test_loudness_does_not_matter(small):
    x = 0.2 * torch.randn(1, 3200)
    assert torch.equal(small.encode(x * 0.05), small.encode(x * 0.5))


def test_what_is_no_sound_is_not_encoded(small):
    with pytest.raises(ValueError, match="NaN"):                                 # all of `check_sound`: see test_spectrogram.py
        small.encode(torch.tensor([0.1, float("nan")]))


@pytest.mark.parametrize("bad, error", [
    (torch.zeros(1, 5, 2), TypeError), (torch.zeros(5, dtype=torch.long), ValueError),
    (torch.zeros(1, 5, 5, dtype=torch.long), ValueError), (torch.zeros(1, 0, 2, dtype=torch.long), ValueError),
    (torch.full((1, 5, 2), 32), ValueError), (torch.full((1, 5, 2), -1), ValueError)])
def test_decode_bad_input(small, bad, error):
    with pytest.raises(error):
        small.decode(bad)


def test_numpy_and_double_are_welcome(small):
    x = 0.1 * np.random.default_rng(0).normal(size=(2, 3200))
    assert torch.equal(small.encode(x), small.encode(torch.from_numpy(x).float()))
    assert torch.equal(small.decode(np.zeros((5, 2), np.int16)), small.decode(torch.zeros(1, 5, 2, dtype=torch.long)))


def test_config_rebuilds_the_model(small, tmp_path):
    checkpoints.save("codec", small, seed=0, steps=1, cpu_minutes=0.0, metrics={}, folder=tmp_path)
    again = checkpoints.load("codec", folder=tmp_path)
    x = 0.2 * torch.randn(1, 3200)
    assert torch.equal(again.encode(x), small.encode(x)) and not again.training


def test_shipped_codec_and_silence(shipped):
    assert (shipped.sample_rate, shipped.codebook_size, shipped.levels, shipped.frame_rate) == (8000, 512, 4, 25)
    for sound in (torch.zeros(8000), torch.zeros(80)):
        out = shipped.decode(shipped.encode(sound))
        assert not out.any()                                                     # silence in, silence out


def test_shipped_codec_on_held_out_voices(shipped):
    corpus = load_speech(progress=False)
    chosen = np.random.default_rng(1).choice(corpus.select(held_out=True), 32, replace=False)
    x = torch.zeros(32, 24 * 320)
    for row, i in zip(x, chosen, strict=True):
        row[:len(corpus.clips[i])] = torch.from_numpy(corpus.clips[i])
    ids, true = shipped.encode(x), log_mel(normalize_loudness(x), shipped.filters)
    errors = [(shipped.decode_mel(ids[..., :n]) - true).abs().mean().item() for n in (1, 2, 4)]
    floor = (true.mean((0, 2), keepdim=True) - true).abs().mean().item()         # always the mean spectrum
    assert errors[0] > errors[1] > errors[2] and errors[0] < 0.4 * floor
    loudness = shipped.decode(ids[:4]).square().mean(1).sqrt() / x[:4].square().mean(1).sqrt()
    assert (0.75 < loudness).all() and (loudness < 1.3).all()


# ---------------------------------------------------------------- sound as it comes: files, faults

def test_a_constant_offset_is_no_sound(shipped, elephant):
    assert not shipped.decode(shipped.encode(np.full(8000, 0.5, np.float32))).any()
    without = shipped.encode(elephant - elephant.mean())     # the word has a small mean of its own, which is heard with it
    assert (shipped.encode(elephant + 0.3) == without).float().mean() > 0.9
    small_mean = elephant + 0.2 * np.sqrt((elephant**2).mean())
    assert not torch.equal(shipped.encode(small_mean), without)                  # as it was in training: left alone


def test_clipping_costs_quality_not_sense(shipped, elephant):
    clipped = np.clip(elephant * 10, -1, 1)
    out = shipped.decode(shipped.encode(clipped))
    assert out.isfinite().all() and out.abs().max() <= 1 and out.square().mean().sqrt() == pytest.approx(0.1, abs=0.05)
    near, far = ((shipped.decode_mel(shipped.encode(clipped)) - shipped.decode_mel(shipped.encode(other))).abs().mean()
                 for other in (elephant, elephant[::-1].copy()))
    assert near < 0.8 * far


@pytest.mark.parametrize("kind, subtype, rate, channels", [
    ("WAV", "PCM_U8", 8000, 1), ("WAV", "PCM_24", 16000, 1), ("WAV", "FLOAT", 44100, 2), ("WAV", "PCM_16", 44100, 2),
    ("FLAC", "PCM_24", 48000, 2), ("OGG", "VORBIS", 22050, 1), ("MP3", "MPEG_LAYER_III", 44100, 2)])
def test_a_recording_of_any_format_is_the_same_word(shipped, elephant, tmp_path, kind, subtype, rate, channels):
    soundfile = pytest.importorskip("soundfile")
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile does not write {kind}")
    path = tmp_path / f"word.{kind.lower()}"
    soundfile.write(path, np.stack([resample(elephant, 8000, rate)] * channels, 1), rate, format=kind, subtype=subtype)
    back = Audio(path).at(8000)
    assert abs(len(back) - len(elephant)) < 1200                                 # an MP3 begins with some silence
    a, b = (shipped.decode_mel(shipped.encode(x)) for x in (elephant, back))
    shifts = [(a[..., :40] - b[..., s:s + 40]).abs().mean().item() for s in range(12) if b.shape[2] >= s + 40]
    assert min(shifts) < 0.45, shifts                                            # two words differ by more than 1


def test_encoding_in_train_mode_does_not_train():
    torch.manual_seed(0)
    model = AudioCodec(width=16, dim=8, codebook_size=16, warmup=0).train()
    before = [book.clone() for book in model.codebooks]
    model.encode(0.2 * torch.randn(3200))
    assert all(torch.equal(a, b) for a, b in zip(before, model.codebooks, strict=True))
    C.codec_loss(model, torch.randn(2, 3200), torch.tensor([4, 4]))
    assert not torch.equal(before[0], model.codebooks[0]), "a training pass does move them"
