"""One vocabulary for everything: ranges of ids and boundary tokens. Segments <-> one sequence of ids.

    0 .. 6        <pad> <text> </text> <image> </image> <audio> </audio>
    7 ..          text tokens (BPE)
    then          image tokens (VQ-VAE)
    then          audio tokens, one range for each level of the residual quantizer
"""
import operator
from dataclasses import dataclass

MODALITIES = ("text", "image", "audio")
SPECIAL = ("<pad>", "<text>", "</text>", "<image>", "</image>", "<audio>", "</audio>")
PAD = 0
OPEN = {m: 1 + 2 * i for i, m in enumerate(MODALITIES)}
CLOSE = {m: 2 + 2 * i for i, m in enumerate(MODALITIES)}


def whole_numbers(ids) -> tuple[int, ...]:
    """A flat row of ids (list, array, tensor) as Python integers; TypeError for anything else."""
    try:
        return tuple(map(operator.index, ids))
    except TypeError:
        raise TypeError(f"ids are a flat row of whole numbers, got {str(ids)[:60]}") from None


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one modality. Text: BPE ids. Image: 64 ids in reading order. Audio: frame
    after frame, within a frame the levels from coarse to fine. Ids are those of the modality's own
    tokenizer, from 0."""
    modality: str
    ids: tuple[int, ...]

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(f"a segment's modality is one of {MODALITIES}, got {self.modality!r}")
        object.__setattr__(self, "ids", whole_numbers(self.ids))


class Vocabulary:
    """The map between a tokenizer's own ids and the ids of the one vocabulary.

    >>> v = Vocabulary(text=300, image=512, audio=512, audio_levels=2)
    >>> v.size, v.ranges["image"]
    (1843, range(307, 819))
    >>> v.pack([Segment("text", (5, 6))])
    [1, 12, 13, 2]
    """

    def __init__(self, text: int, image: int = 512, audio: int = 512, audio_levels: int = 2,
                 image_tokens: int = 64):
        self.config = {"text": text, "image": image, "audio": audio, "audio_levels": audio_levels,
                       "image_tokens": image_tokens}
        if min(text, image, audio) < 0 or min(audio_levels, image_tokens) < 1:
            raise ValueError("sizes must not be negative, levels and tokens of a picture at least 1, got "
                             f"{self.config}")
        first = len(SPECIAL)
        self.ranges = {"text": range(first, first + text), "image": range(first + text, first + text + image)}
        first += text + image
        self.audio_ranges = [range(first + i * audio, first + (i + 1) * audio) for i in range(audio_levels)]
        self.ranges["audio"] = range(first, first + audio * audio_levels)
        self.size = self.ranges["audio"].stop
        self.image_tokens, self.audio_levels = image_tokens, audio_levels

    def modality(self, token: int) -> str:
        """`text`, `image`, `audio` or `special`."""
        if not 0 <= token < self.size:
            raise ValueError(f"ids lie in 0..{self.size - 1}, got {token}")
        return next((m for m, r in self.ranges.items() if token in r), "special")

    def shift(self, segment: Segment) -> list[int]:
        """A segment's ids, moved into their range, without boundary tokens."""
        if segment.modality == "audio":
            if len(segment.ids) % self.audio_levels:
                raise ValueError(f"audio ids come in frames of {self.audio_levels} levels, got "
                                 f"{len(segment.ids)} ids")
            ranges = [self.audio_ranges[i % self.audio_levels] for i in range(len(segment.ids))]
        else:
            ranges = [self.ranges[segment.modality]] * len(segment.ids)
        if segment.modality == "image" and len(segment.ids) not in (0, self.image_tokens):
            raise ValueError(f"a picture has {self.image_tokens} tokens, got {len(segment.ids)}")
        for i, r in zip(segment.ids, ranges):
            if not 0 <= i < len(r):
                raise ValueError(f"{segment.modality} ids lie in 0..{len(r) - 1}, got {i}")
        return [r.start + i for i, r in zip(segment.ids, ranges)]

    def pack(self, segments) -> list[int]:
        """Segments -> one sequence: each between its two boundary tokens."""
        out = []
        for segment in segments:
            out += [OPEN[segment.modality], *self.shift(segment), CLOSE[segment.modality]]
        return out

    def unpack(self, ids) -> list[Segment]:
        """One sequence -> its segments. ValueError says where a sequence that does not parse goes wrong."""
        segments, i, ids = [], 0, list(whole_numbers(ids))
        while i < len(ids) and ids[i] != PAD:
            modality = next((m for m in MODALITIES if OPEN[m] == ids[i]), None)
            if modality is None:
                raise ValueError(f"position {i}: expected an opening boundary token, got id {ids[i]}")
            if CLOSE[modality] not in ids[i:]:
                raise ValueError(f"position {i}: the {modality} segment is never closed")
            end = ids.index(CLOSE[modality], i)
            body = ids[i + 1:end]
            for j, token in enumerate(body):
                if token not in self.allowed(modality, j):
                    raise ValueError(f"position {i + 1 + j}: id {token} has no place in a segment of "
                                     f"{modality}")
            segment = Segment(modality, tuple(t - self._start(modality, j) for j, t in enumerate(body)))
            self.shift(segment)                                        # checks lengths too
            segments.append(segment)
            i = end + 1
        if any(ids[i:]):
            raise ValueError(f"position {i}: only padding may follow padding")
        return segments

    def _start(self, modality: str, index: int) -> int:
        return self.allowed(modality, index).start

    def allowed(self, modality: str, index: int) -> range:
        """The content ids that may stand at a place (0 = first) of a segment: the modality mask."""
        return self.audio_ranges[index % self.audio_levels] if modality == "audio" else self.ranges[modality]

    def may_close(self, modality: str, index: int) -> bool:
        """Whether the segment may end before its content token `index`."""
        if modality == "image":
            return index == self.image_tokens
        return index > 0 and (modality == "text" or index % self.audio_levels == 0)
