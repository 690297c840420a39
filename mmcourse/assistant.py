"""All of it together: text, picture or sound in; text, picture or sound out.

>>> import mmcourse as mm
>>> a = mm.load("reference")                                                    # doctest: +SKIP
>>> a.generate([mm.Text("two cats on the left, blue ground")], want="image")    # doctest: +SKIP
"""
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.generate import READING, generate_best
from mmcourse.paths import CHECKPOINTS
from mmcourse.vocabulary import MODALITIES, Segment, Vocabulary
from mmcourse.world.augment import faster
from mmcourse.world.pictures import SIZE
from mmcourse.world.speech import resample, trim

MAX_SECONDS = 2.5                                       # the longest sound that the transformer listens to
TEMPOS = (1.0, 0.8, 0.87, 0.93, 1.07, 1.15, 1.25)       # a sound is put into words after it was heard at each of these
RATES = (1000, 400_000)                                 # Hz: anything else is no sound that a person recorded
DEFAULTS = {"text": {"temperature": 0.0}, "image": {"temperature": 1.0, "guidance": 1.5, "best_of": 8},
            "audio": {"temperature": 0.7, "best_of": 8}}
COPY = {"temperature": 0.0}                             # a picture after a picture is mostly a copy: no luck is wanted
DECODERS = {"vq": None, "diffusion": "decoder", "diffusion128": "decoder128"}      # who paints a picture: its checkpoint
STEPS = 2                                               # of the diffusion decoders: chapter 07 measures that more gain nothing
SAY_FIRST = {("audio", "image"), ("image", "audio"), ("image", "text", "image")}    # in words what it means to draw or speak


def says_first(prompt: list[Segment], want: str) -> bool:
    """Whether the model, left to itself, says in words what it was given before it answers."""
    return (*(segment.modality for segment in prompt), want) in SAY_FIRST


def settings(prompt: list[Segment], want: str) -> dict:
    """How the model samples if nobody says otherwise: `DEFAULTS`, but `READING` for one picture or sound that is put into
    words, and `COPY` for a picture that follows another one without having been put into words first."""
    if want == "text" and len(prompt) == 1 and prompt[0].modality != "text":
        return READING
    copies = want == "image" and any(s.modality == "image" for s in prompt) and not says_first(prompt, want)
    return COPY if copies else DEFAULTS[want]


@dataclass(frozen=True)
class Text:
    """Words. `Text("a cat on the left, red ground, sign K I T E")`; letters of a sign in capitals."""
    text: str

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise TypeError(f"Text takes a string, got {type(self.text).__name__}")
        if not self.text.strip():
            raise ValueError('the text is empty: type a few words, for example "two cats on the left, blue ground"')

    def __str__(self):
        return self.text

    def normalised(self) -> str:
        """As the captions of the world are written: lower case, single spaces, a word in capitals spelled letter by letter.

        >>> Text("A cat,  sign KITE").normalised()
        'a cat, sign K I T E'
        """
        words = " ".join(self.text.split()).split(" ")
        spelled = [" ".join(w) if re.fullmatch("[A-Z]{2,}", w) else w for w in words]
        single = [w if re.fullmatch("[A-Z]( [A-Z])*", w) and i else w.lower() for i, w in enumerate(spelled)]
        return " ".join(single).rstrip(".")


class Image:
    """A picture: from a file, its bytes, a PIL image or pixels (H, W), (H, W, 3), (H, W, 4), uint8 or float in [0, 1].

    `pixels` is (H, W, 3) uint8. Transparent parts become white; CMYK, grey and palette pictures become RGB.
    """

    def __init__(self, source):
        self.pixels = _read_pixels(source)

    @property
    def pil(self):
        from PIL import Image as Pillow
        return Pillow.fromarray(self.pixels)

    def square(self, size: int = SIZE) -> torch.Tensor:
        """What the model sees: the whole picture, fitted into (1, 3, size, size), edges filled with its border's colour."""
        from PIL import Image as Pillow
        height, width = self.pixels.shape[:2]
        if (height, width) == (size, size):
            fitted = self.pixels
        else:
            ratio = size / max(height, width)
            new = (max(1, round(width * ratio)), max(1, round(height * ratio)))
            small = np.asarray(self.pil.resize(new, Pillow.Resampling.BOX if ratio < 1 else Pillow.Resampling.NEAREST))
            border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
            fitted = np.empty((size, size, 3), np.uint8)
            fitted[:] = np.median(border, axis=0)
            top, left = (size - small.shape[0]) // 2, (size - small.shape[1]) // 2
            fitted[top:top + small.shape[0], left:left + small.shape[1]] = small
        return torch.from_numpy(fitted.copy()).permute(2, 0, 1)[None].float() / 255        # (H, W, 3) -> (1, 3, H, W)

    def _repr_png_(self):
        from PIL import Image as Pillow
        times = max(1, 256 // max(self.pixels.shape[:2]))
        big = self.pil.resize((self.pixels.shape[1] * times, self.pixels.shape[0] * times), Pillow.Resampling.NEAREST)
        buffer = io.BytesIO()
        big.save(buffer, "PNG")
        return buffer.getvalue()

    def __repr__(self):
        return f"Image({self.pixels.shape[1]}x{self.pixels.shape[0]})"


def _read_pixels(source) -> np.ndarray:
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError
    if isinstance(source, Image):
        return source.pixels
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, (str, Path, bytes, bytearray)):
        name = "the bytes" if isinstance(source, (bytes, bytearray)) else str(source)
        if isinstance(source, (str, Path)) and not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {source}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Pillow.DecompressionBombWarning)
                source = Pillow.open(io.BytesIO(source) if name == "the bytes" else source)
                if source.width * source.height > 4096 * 4096:          # JPEGs can be read smaller right away
                    source.draft("RGB", (1024, 1024))
                source.load()
        except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError):
            raise ValueError(f"{name} has too many pixels: make it smaller than 9,000 x 9,000") from None
        except Exception as error:
            said = "no known picture format" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"{name} cannot be read as a picture ({said}): is it whole, and really a PNG, JPEG, GIF, BMP "
                             "or WebP file?") from None
    if isinstance(source, Pillow.Image):
        source = ImageOps.exif_transpose(source)                        # photos of a phone that was held upright
        if source.mode[0] in "IF":                                      # 16 or 32 bits a pixel: Pillow would cut, not scale
            values, full = np.asarray(source, dtype=np.float64), 65535 if source.mode[0] == "I" else 1
            source = values.clip(0) / max(values.max(), full)           # NaN stays, and is named below
        else:
            if source.mode in ("RGBA", "LA", "PA") or "transparency" in source.info:
                rgba = source.convert("RGBA")
                source = Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba)
            source = np.asarray(source.convert("RGB"))
    if not isinstance(source, np.ndarray):
        raise TypeError(f"Image takes a file name, bytes, a PIL image or an array of pixels, got {type(source).__name__}")
    if source.ndim == 3 and source.shape[0] in (1, 3, 4) and source.shape[2] not in (1, 3, 4):
        source = np.moveaxis(source, 0, 2)                              # (3, H, W) -> (H, W, 3)
    if source.ndim == 2:
        source = source[..., None]
    if source.ndim != 3 or source.shape[2] not in (1, 3, 4) or 0 in source.shape:
        raise ValueError(f"pixels have the shape (H, W), (H, W, 3) or (H, W, 4), got {source.shape}")
    if source.dtype != np.uint8:
        values = source.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("the picture holds NaN or infinite values: look at what made it")
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"pixels that are not uint8 must lie in [0, 1], got {values.min():.3g}..{values.max():.3g}: "
                             "divide by the largest value, or convert to uint8 if they are 0..255")
        source = (values * 255 + 0.5).astype(np.uint8)
    if source.shape[2] == 4:
        alpha = source[..., 3:].astype(np.float64) / 255
        source = (source[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
    return np.broadcast_to(source, (*source.shape[:2], 3)).copy()


class Audio:
    """A sound: samples (n,) or (n, channels) with their rate, or a file that soundfile reads (WAV, FLAC, OGG, MP3, ...).

    `samples` is (n,) float32 in [-1, 1], mono, at `rate` Hz.
    """

    def __init__(self, source, rate: int | None = None):
        if isinstance(source, (str, Path, bytes, bytearray)):
            source, rate = _read_sound(source)
        if rate is None or not RATES[0] <= rate <= RATES[1] or int(rate) != rate:
            raise ValueError(f"Audio needs the sample rate, a whole number of {RATES[0]} to {RATES[1]} Hz, for example "
                             f"Audio(samples, 16000); got {rate!r}")
        samples = np.asarray(source.detach() if isinstance(source, torch.Tensor) else source)
        if samples.dtype.kind not in "iuf":
            raise TypeError(f"samples are floats in [-1, 1] or integers, got {samples.dtype}")
        if samples.ndim not in (1, 2) or not samples.size:
            raise ValueError(f"samples have the shape (n,) or (n, channels) with n > 0, got {samples.shape}")
        if samples.dtype.kind in "iu":                                  # unsigned samples rest at the middle
            full = np.iinfo(samples.dtype).max + 1
            samples = samples / full if samples.dtype.kind == "i" else samples / (full / 2) - 1
        if samples.ndim == 2:
            if samples.shape[0] < samples.shape[1] and samples.shape[0] <= 8:
                samples = samples.T                                     # (channels, n) -> (n, channels)
            samples = samples.mean(1)
        if not np.isfinite(samples).all():
            raise ValueError("the sound holds NaN or infinite values: look at what made it")
        if np.abs(samples).max() > 2:                                   # a little over 1 is what MP3 and resampling do
            raise ValueError(f"samples that are floats must lie in [-1, 1], got {samples.min():.3g}..{samples.max():.3g}: "
                             "divide 16-bit samples by 32768, or pass them as int16")
        self.samples, self.rate = samples.astype(np.float32).clip(-1, 1), int(rate)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def cut(self, start: float, seconds: float) -> "Audio":
        """A part of the sound, from `start`, in seconds."""
        first = int(start * self.rate)
        return Audio(self.samples[first:first + int(seconds * self.rate)], self.rate)

    def speech(self, rate: int = 8000) -> np.ndarray:
        """What the model hears: mono at `rate`, silence trimmed. ValueError if nothing or too much is left."""
        if np.abs(self.samples - self.samples.mean()).max() < 1e-4:
            raise ValueError("the sound is silent: record again, nearer to the microphone")
        if self.seconds < 0.05:
            raise ValueError(f"the sound lasts {self.seconds:.3f} s, too short for a word: give it at least 0.05 s")
        samples = trim(resample(self.samples - self.samples.mean(), self.rate, rate), rate)
        if len(samples) > MAX_SECONDS * rate:
            raise ValueError(f"{len(samples) / rate:.1f} s of sound, but the model listens to at most {MAX_SECONDS} s: it "
                             "knows single words. Use .cut(start, seconds) to choose one")
        return samples.astype(np.float32)

    def _repr_html_(self):
        from IPython.display import Audio as Player
        return Player(self.samples, rate=self.rate)._repr_html_()

    def __repr__(self):
        return f"Audio({self.seconds:.2f} s at {self.rate} Hz)"


def _read_sound(source) -> tuple[np.ndarray, int]:
    import soundfile
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise FileNotFoundError(f"there is no file {source}")
    try:
        return soundfile.read(io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else str(source), dtype="float32")
    except Exception as error:
        name = "the bytes" if isinstance(source, (bytes, bytearray)) else str(source)
        raise ValueError(f"{name} cannot be read as sound ({error}): is it whole, and really a WAV, FLAC, OGG or MP3 file?") \
            from None


class Assistant:
    """Any modality in, any modality out: `bpe`, `vqvae`, `codec`, `transformer`, their `vocabulary`, and diffusion decoders
    for pictures of 64x64 (`decoder`) and 128x128 (`decoder128`)."""

    def __init__(self, bpe, vqvae, codec, transformer, vocabulary: Vocabulary, decoder=None, decoder128=None):
        self.bpe, self.vqvae, self.codec, self.transformer = bpe, vqvae, codec, transformer
        self.vocabulary, self.decoder, self.decoder128 = vocabulary, decoder, decoder128

    def segment(self, part) -> Segment:
        """The tokens of one part of a prompt."""
        if isinstance(part, str):
            part = Text(part)
        if isinstance(part, Text):
            return Segment("text", tuple(self.bpe.encode(" " + part.normalised())))
        if isinstance(part, Image):
            return Segment("image", tuple(self.vqvae.encode(part.square()).flatten().tolist()))
        if isinstance(part, Audio):
            return self.sound_segment(part.speech(self.codec.sample_rate))
        raise TypeError(f"a prompt is made of mm.Text, mm.Image and mm.Audio, got {type(part).__name__}")

    def sound_segment(self, samples: np.ndarray) -> Segment:
        """The tokens of samples (n,) at the codec's rate, of the levels that the transformer models."""
        ids = self.codec.encode(torch.from_numpy(np.asarray(samples, np.float32))[None])[0, :, :self.vocabulary.audio_levels]
        return Segment("audio", tuple(ids.flatten().tolist()))         # (frames, levels) -> frame after frame

    def hearings(self, samples: np.ndarray) -> list[list[Segment]]:
        """Prompts: the same at several tempos (`TEMPOS`), as it is first. What is listened to before anything is written down."""
        return [[self.sound_segment(samples if tempo == 1 else faster(samples, tempo))] for tempo in TEMPOS]

    def render(self, segment: Segment, decoder: str | None = None, steps: int = STEPS, seed: int = 0):
        """The thing that a segment stands for: Text, Image or Audio. Arguments as for `pixels`."""
        if segment.modality == "text":
            return Text(self.bpe.decode(segment.ids).strip() or "...")
        if segment.modality == "image":
            ids = torch.tensor(segment.ids).view(1, 8, 8)              # (64,) -> (1, 8, 8)
            return Image(self.pixels(ids, decoder, steps, seed)[0].permute(1, 2, 0))
        frames = torch.tensor(segment.ids).view(1, -1, self.vocabulary.audio_levels)      # (1, frames, levels)
        return Audio(self.codec.decode(frames)[0].clamp(-1, 1), self.codec.sample_rate)

    def pixels(self, ids: torch.Tensor, decoder: str | None = None, steps: int = STEPS, seed: int = 0) -> torch.Tensor:
        """Image tokens (B, 8, 8) -> pictures (B, 3, 64, 64), or (B, 3, 128, 128) by `diffusion128`.

        Args:
            decoder: `vq`, the tokenizer's own, `diffusion` or `diffusion128`; by default `diffusion` if there is one.
            steps: of a diffusion decoder.
        """
        painter = self._painter(decoder)
        return self.vqvae.decode(ids) if painter is None else painter.decode(ids, steps=steps, seed=seed, vqvae=self.vqvae)

    def _painter(self, decoder: str | None):
        """The diffusion decoder of that name; None: the tokenizer's own."""
        if decoder is None:
            return self.decoder
        if decoder not in DECODERS:
            raise ValueError(f"decoder is {', '.join(map(repr, DECODERS))}, got {decoder!r}")
        name = DECODERS[decoder]
        painter = getattr(self, name) if name else None
        if name and painter is None:
            raise ValueError(f"this model has no {decoder} decoder: `python -m mmcourse train {name}` makes one")
        return painter

    def generate(self, parts, want: str, seed: int = 0, *, decoder: str | None = None, think: bool | None = None, **sampling):
        """Answer a prompt.

        Args:
            parts: a list of Text, Image and Audio. A picture and an instruction, such as `make the ground green`, are an edit.
            want: `text`, `image` or `audio`.
            decoder: who paints a picture from its tokens: `vq`, `diffusion` (the default) or `diffusion128`.
            think: whether the model first says in words what it means to draw or speak, and goes on from there; by default
                only from sound to picture and from picture to sound (`SAY_FIRST`).
            sampling: temperature, top_k, top_p, guidance, best_of; by default what suits the prompt (`settings`). A sound that
                is put into words is heard at several tempos (`hearings`), unless sampling says how to do it.
        """
        self._painter(decoder)                                         # a wrong name is refused before the model runs
        return self.render(self.tokens(parts, want, seed, think=think, **sampling), decoder=decoder, seed=seed)

    def tokens(self, parts, want: str, seed: int = 0, think: bool | None = None, **sampling) -> Segment:
        """The answer as the transformer gives it: tokens, not yet rendered. Arguments as for `generate`."""
        if want not in MODALITIES:
            raise ValueError(f"want is one of {MODALITIES}, got {want!r}")
        if isinstance(parts, (str, Text, Image, Audio)):
            parts = [parts]
        if not parts:
            raise ValueError("the prompt is empty: give at least one Text, Image or Audio")
        prompt = [self.segment(part) for part in parts]
        if think is None:
            think = says_first(prompt, want)
        views, listens = None, not sampling if want == "text" else think
        if listens and len(parts) == 1 and isinstance(parts[0], Audio):
            views = [self.hearings(parts[0].speech(self.codec.sample_rate))]
        return generate_best(self.transformer, self.vocabulary, [prompt], want, seed=seed, think=think, views=views,
                             **{**settings(prompt, want), **sampling})[0]


def load(name: str = "reference", folder=CHECKPOINTS) -> Assistant:
    """The shipped any-to-any model: every file checked against the manifest, offline."""
    from mmcourse.bpe import BPETokenizer
    if name != "reference":
        raise ValueError(f"there is one shipped model, 'reference'; got {name!r}. Single parts: "
                         "mmcourse.checkpoints.load(name)")
    path, _ = checkpoints.verify("bpe", folder)
    _, entry = checkpoints.verify("transformer", folder)
    entries = checkpoints.manifest(folder)
    for part, expected in entry["tokenizers"].items():
        if part not in entries or entries[part]["sha256"] != expected:
            raise ValueError(f"the transformer was trained on another {part}: its ids would mean other things. "
                             "Restore data/checkpoints with git or run `python -m mmcourse train transformer`")
    decoders = {name: checkpoints.load(name, folder) if name in entries else None for name in ("decoder", "decoder128")}
    transformer, vocabulary = checkpoints.load("transformer", folder), Vocabulary(**entry["vocabulary"])
    if transformer.vocab_size != vocabulary.size:
        raise ValueError(f"the manifest in {folder} contradicts itself: the transformer has {transformer.vocab_size} ids, its "
                         f"vocabulary {vocabulary.size}. Restore data/checkpoints with git")
    return Assistant(BPETokenizer.load(path), checkpoints.load("vqvae", folder), checkpoints.load("codec", folder),
                     transformer, vocabulary, **decoders)
