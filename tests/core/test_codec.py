import subprocess
import sys

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse import codec as C
from mmcourse.codec import AudioCodec, Quantizer, quantize_residual
from mmcourse.spectrogram import griffin_lim, istft, mel_filterbank, normalize_loudness, stft
from mmcourse.world.speech import load_speech

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small():
    """An untrained codec with random codes: shapes and errors do not need a good one."""
    torch.manual_seed(0)
    model = AudioCodec(width=16, dim=8, codebook_size=32)
    for quantizer in model.quantizers:
        quantizer.codes.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("codec")


def test_stft_equals_torch():
    x = torch.randn(2, 80 * 50)
    theirs = torch.stft(torch.nn.functional.pad(x, (88, 88)), 256, 80, 256, torch.hann_window(256), center=False,
                        return_complex=True).transpose(1, 2)
    ours = stft(x)                                               # padded to 512: every second bin is one of theirs
    assert ours.shape == (2, 50, 257) and theirs.shape == (2, 50, 129)
    assert torch.allclose(ours[..., ::2], theirs, atol=1e-4)


def test_stft_equals_scipy():
    scipy_signal = pytest.importorskip("scipy.signal")
    x = torch.randn(1, 80 * 40)
    padded = np.pad(x[0].numpy(), 88)
    _, _, theirs = scipy_signal.stft(padded, 8000, "hann", 256, 256 - 80, 512, boundary=None, padded=False, scaling="spectrum")
    assert np.allclose(theirs.T * C.hann(256).sum().item(), stft(x)[0].numpy(), atol=1e-3)


def test_istft_inverts_stft():
    x = torch.randn(3, 80 * 33)
    assert torch.allclose(istft(stft(x)), x, atol=1e-5)


def test_mel_filterbank():
    filters = mel_filterbank(64)
    assert filters.shape == (64, 257) and (filters >= 0).all()
    assert torch.allclose(filters.sum(1), torch.ones(64), atol=1e-5)
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all() and peaks[-1] > 240
    assert C.mel_to_hz(C.hz_to_mel(1234.0)) == pytest.approx(1234.0)


def test_log_mel_of_a_tone_peaks_at_its_band():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)[None]
    mel = C.log_mel(tone, mel_filterbank(64))
    assert mel.shape == (1, 64, 100)
    hz = C.mel_to_hz(np.linspace(C.hz_to_mel(40), C.hz_to_mel(4000), 66))[1:-1]
    assert abs(hz[int(mel[0, :, 50].argmax())] - 1000) < 60
    assert C.log_mel(torch.zeros(1, 800), mel_filterbank(64)).max() == pytest.approx(np.log(C.FLOOR))


def test_griffin_lim_finds_consistent_phases():
    corpus = load_speech(progress=False)
    clip = torch.from_numpy(corpus.clips[0][:3200 - 3200 % 80])[None]
    wanted = stft(clip).abs()

    def error(rounds):
        return ((stft(griffin_lim(wanted, rounds)).abs() - wanted).norm() / wanted.norm()).item()
    assert error(32) < 0.15 and error(32) < 0.5 * error(0)
    assert torch.equal(griffin_lim(wanted), griffin_lim(wanted))                # the same sound each time


def test_residual_quantization():
    z = torch.tensor([[1.0, 2.0], [-1.0, 0.4]])
    books = [torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), torch.tensor([[0.0, 0.5], [0.0, 1.0]])]
    ids, total = quantize_residual(z, books)
    assert ids.tolist() == [[0, 1], [1, 0]] and total.tolist() == [[1.0, 2.0], [-1.0, 0.5]]
    z, books = torch.randn(500, 8), [torch.randn(64, 8) / 2**level for level in range(4)]
    errors = [(z - quantize_residual(z, books[:n])[1]).norm().item() for n in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)


def test_codes_follow_their_vectors_and_dead_ones_restart():
    torch.manual_seed(0)
    centres = torch.randn(16, 4) * 4
    quantizer = Quantizer(16, 4, decay=0.8)
    batch = centres.repeat(16, 1) + 0.05 * torch.randn(256, 4)
    quantizer.start(batch)
    quantizer.codes[:12] = 50.0                                                  # far from everything: nobody chooses them
    for _ in range(100):
        quantizer.update(batch, quantizer.nearest(batch))
    assert (quantizer.codebook_size - 50).norm(dim=1).min() > 10
    assert quantizer.nearest(batch).unique().numel() >= 12
    nearest = torch.cdist(centres, quantizer.codebook_size).min(1).values
    assert (nearest < 0.5).float().mean() >= 0.5               # k-means stops at a local optimum


def test_training_passes_gradients_and_drops_levels():
    torch.manual_seed(0)
    model = AudioCodec(width=16, dim=8, codebook_size=32, warmup=1).train()
    sound, keep = normalize_loudness(torch.randn(4, 320 * 6)), torch.tensor([1, 2, 3, 4])
    C.codec_loss(model, sound, keep)["loss"].backward()                          # the warm-up step quantizes nothing
    assert not model.quantizers[0].started
    model.zero_grad()
    C.codec_loss(model, sound, keep)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.encoder[0].weight.grad.abs().sum() > 0                          # through the rounding
    model.eval()
    before = [q.codes.clone() for q in model.quantizers]
    one, _, _ = model(model.features(sound), torch.full((4,), 1))
    four, _, ids = model(model.features(sound), torch.full((4,), 4))
    assert not torch.allclose(one, four) and ids.shape == (4, 6, 4)
    assert all(torch.equal(a, q.codes) for a, q in zip(before, model.quantizers, strict=True))


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


def test_pieces_change_nothing(small):
    x = torch.randn(2, 320 * 60)
    whole = small.encoder(small.features(x))
    assert torch.allclose(C.in_pieces(lambda p: small.encoder(small.features(p)), x, 320, 1, piece=13), whole, atol=1e-5)
    z = torch.randn(2, 8, 60)
    assert torch.allclose(C.in_pieces(small.decoder, z, 1, 4, piece=13), small.decoder(z), atol=1e-5)


def test_loudness_does_not_matter(small):
    x = torch.randn(1, 3200)
    assert torch.equal(small.encode(x * 0.01), small.encode(x * 0.5))


@pytest.mark.parametrize("bad, error, says", [
    (torch.zeros(0), ValueError, "not empty"), (torch.zeros(2, 0), ValueError, "not empty"),
    (torch.zeros(1, 2, 800), ValueError, "mean over the channels"), (torch.tensor(0.5), ValueError, "shape"),
    (torch.tensor([0.1, float("nan")]), ValueError, "NaN"), (torch.tensor([float("inf")]), ValueError, "infinite"),
    (torch.zeros(800, dtype=torch.int16), TypeError, "32768"), (np.zeros(800, np.int16), TypeError, "32768")])
def test_encode_bad_input(small, bad, error, says):
    with pytest.raises(error, match=says):
        small.encode(bad)


@pytest.mark.parametrize("bad, error", [
    (torch.zeros(1, 5, 2), TypeError), (torch.zeros(5, dtype=torch.long), ValueError),
    (torch.zeros(1, 5, 5, dtype=torch.long), ValueError), (torch.zeros(1, 0, 2, dtype=torch.long), ValueError),
    (torch.full((1, 5, 2), 32), ValueError), (torch.full((1, 5, 2), -1), ValueError)])
def test_decode_bad_input(small, bad, error):
    with pytest.raises(error):
        small.decode(bad)


def test_numpy_and_double_are_welcome(small):
    x = np.random.default_rng(0).normal(size=(2, 3200))
    assert torch.equal(small.encode(x), small.encode(torch.from_numpy(x).float()))
    assert torch.equal(small.decode(np.zeros((5, 2), np.int16)), small.decode(torch.zeros(1, 5, 2, dtype=torch.long)))


def test_config_rebuilds_the_model(small, tmp_path):
    checkpoints.save("codec", small, seed=0, steps=1, cpu_minutes=0.0, metrics={}, folder=tmp_path)
    again = checkpoints.load("codec", folder=tmp_path)
    x = torch.randn(1, 3200)
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
    ids, true = shipped.encode(x), C.log_mel(normalize_loudness(x), shipped.filters)
    errors = [(shipped.decode_mel(ids[..., :n]) - true).abs().mean().item() for n in (1, 2, 4)]
    floor = (true.mean((0, 2), keepdim=True) - true).abs().mean().item()         # always the mean spectrum
    assert errors[0] > errors[1] > errors[2] and errors[0] < 0.4 * floor
    loudness = shipped.decode(ids[:4]).square().mean(1).sqrt() / x[:4].square().mean(1).sqrt()
    assert (0.75 < loudness).all() and (loudness < 1.3).all()


def test_training_is_resumed_exactly(tmp_path, monkeypatch):
    from mmcourse.recipes import codec as recipe
    monkeypatch.setattr(recipe, "load_human_digits", lambda: None)
    whole, _ = recipe.train_codec(4, seed=3, progress=False, width=16, batch=4)
    stop = {"after": 2}

    class Interrupting(recipe.CodecBatches):
        def __call__(self, rng):
            stop["after"] -= 1
            if stop["after"] < 0:
                raise KeyboardInterrupt
            return super().__call__(rng)
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "CodecBatches", Interrupting)
        _, history = recipe.train_codec(4, tmp_path / "run.pt", seed=3, progress=False, width=16, batch=4)
    assert history.interrupted
    resumed, _ = recipe.train_codec(4, tmp_path / "run.pt", seed=3, progress=False, width=16, batch=4)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_batches_hold_training_voices_only():
    from mmcourse.recipes.codec import CodecBatches
    batches, corpus = CodecBatches(humans=False), load_speech(progress=False)
    assert len(batches.clips) == len(corpus.select())
    sound, keep = batches(np.random.default_rng(0))
    assert sound.shape == (32, 7680) and sound.isfinite().all() and set(keep.tolist()) <= {1, 2, 3, 4}


# ---------------------------------------------------------------- sound as it comes: streams, files, faults

def noise_in_words(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades, so that neither its loudness nor its spectrum is constant."""
    rng, n = np.random.default_rng(seed), int(seconds * 8000)
    return (rng.normal(size=n) * 0.1 * (1.1 + np.sin(np.arange(n) / 900))).astype(np.float32)


@pytest.mark.parametrize("piece", [1, 77, 8000, 163_000])
def test_a_stream_gives_the_ids_of_the_whole(small, piece):
    x = noise_in_words(0.3 if piece == 1 else 65)
    whole = small.encode(x)
    stream = small.encode_stream(x[i:i + piece] for i in range(0, len(x), piece))
    assert stream.shape == whole.shape
    assert (stream == whole).float().mean() > 0.97           # the loudness of 20 s is not quite that of 65 s
    with pytest.raises(ValueError, match="no samples"):
        small.encode_stream([])


def test_a_stream_waits_for_the_first_sound(small):
    silence, sound = np.zeros(8000 * 45, np.float32), noise_in_words(20)
    late = small.encode_stream([silence, sound])
    assert (late[:, -480:] == small.encode(sound)[:, -480:]).float().mean() > 0.97


def test_a_decoded_stream_is_the_whole_sound(shipped):
    ids = shipped.encode(noise_in_words(41))
    whole, pieces = shipped.decode(ids), list(shipped.decode_stream(ids))
    assert [p.shape[1] for p in pieces] == [160_000, 160_000, 8_000]
    stream = torch.cat(pieces, 1)
    assert torch.corrcoef(torch.cat([stream, whole]))[0, 1] > 0.999
    assert (stream.square().mean() / whole.square().mean()).sqrt() == pytest.approx(1, abs=0.1)


def test_ten_minutes_need_no_more_memory_than_one():
    script = """
import resource, numpy as np, torch
from mmcourse.codec import AudioCodec
torch.set_num_threads(1); torch.manual_seed(0)
codec, rng = AudioCodec(width=16, dim=8, codebook_size=32).eval(), np.random.default_rng(0)
for quantizer in codec.quantizers: quantizer.codes.normal_()
def run(seconds, decoded):
    ids = codec.encode_stream(rng.normal(size=8000) * 0.1 for _ in range(seconds))
    assert ids.shape == (1, seconds * 25, 4)
    for piece in codec.decode_stream(ids[:, :decoded * 25]): assert piece.isfinite().all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(60, 60)
before = run(60, 60)
print(run(600, 120) - before)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unit = 1024 if sys.platform != "darwin" else 1024**2                         # kilobytes on Linux, bytes on macOS
    assert int(out.stdout) < 24 * unit                       # the ten minutes themselves would be 19 MB, their work 140 MB


def test_a_constant_offset_is_no_sound(shipped):
    corpus = load_speech(progress=False)
    word = corpus.clips[corpus.select("elephant", held_out=True)[0]]
    assert not shipped.decode(shipped.encode(np.full(8000, 0.5, np.float32))).any()
    without = shipped.encode(word - word.mean())             # the word has a small mean of its own, which is heard with it
    assert (shipped.encode(word + 0.3) == without).float().mean() > 0.9
    small_mean = word + 0.2 * np.sqrt((word**2).mean())
    assert not C.dc_offset(torch.from_numpy(small_mean)[None]).any()                # as it was in training: left alone
    streamed = shipped.encode_stream([word[:1000] + 0.3, word[1000:] + 0.3])
    assert (streamed == without).float().mean() > 0.9


def test_clipping_costs_quality_not_sense(shipped):
    corpus = load_speech(progress=False)
    word = corpus.clips[corpus.select("elephant", held_out=True)[0]]
    clipped = np.clip(word * 10, -1, 1)
    out = shipped.decode(shipped.encode(clipped))
    assert out.isfinite().all() and out.abs().max() <= 1 and out.square().mean().sqrt() == pytest.approx(0.1, abs=0.05)
    near = (shipped.decode_mel(shipped.encode(clipped)) - shipped.decode_mel(shipped.encode(word))).abs().mean()
    far = (shipped.decode_mel(shipped.encode(clipped)) - shipped.decode_mel(shipped.encode(word[::-1].copy()))).abs().mean()
    assert near < 0.8 * far


@pytest.mark.parametrize("kind, subtype, rate, channels", [
    ("WAV", "PCM_U8", 8000, 1), ("WAV", "PCM_24", 16000, 1), ("WAV", "FLOAT", 44100, 2), ("WAV", "PCM_16", 44100, 2),
    ("FLAC", "PCM_24", 48000, 2), ("OGG", "VORBIS", 22050, 1), ("MP3", "MPEG_LAYER_III", 44100, 2)])
def test_a_recording_of_any_format_is_the_same_word(shipped, tmp_path, kind, subtype, rate, channels):
    soundfile = pytest.importorskip("soundfile")
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile does not write {kind}")
    from mmcourse.world.speech import read_sound, resample
    corpus = load_speech(progress=False)
    word = corpus.clips[corpus.select("elephant", held_out=True)[0]]
    other = resample(word, 8000, rate)
    path = tmp_path / f"word.{kind.lower()}"
    soundfile.write(path, np.stack([other] * channels, 1), rate, format=kind, subtype=subtype)
    back = read_sound(path)
    assert abs(len(back) - len(word)) < 1200                                     # an MP3 begins with some silence
    a, b = (shipped.decode_mel(shipped.encode(x)) for x in (word, back))
    shifts = [(a[..., :40] - b[..., s:s + 40]).abs().mean().item() for s in range(12) if b.shape[2] >= s + 40]
    assert min(shifts) < 0.45, shifts                                            # two words differ by more than 1


def test_a_file_that_is_no_sound_is_named(tmp_path):
    from mmcourse.world.speech import read_sound
    path = tmp_path / "word.mp3"
    path.write_text("not a sound")
    with pytest.raises(ValueError, match="not a sound file"):
        read_sound(path)
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        read_sound(tmp_path / "nowhere.wav")


def test_the_route_without_tokens():
    from mmcourse.studies.ch04_limits import interval, through_mel
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(3200) / 8000)[None]
    inside = slice(400, -400)
    exact = through_mel(tone, None, true_phase=True)
    assert (exact - tone)[:, inside].abs().max() < 1e-4, "all amplitudes and true phases: nothing is lost"
    for window in (256, 512):
        assert through_mel(tone, 64, window).shape == tone.shape
    low, high = interval([0, 1] * 50, np.random.default_rng(0))
    assert 0.35 < low < 0.5 < high < 0.65
