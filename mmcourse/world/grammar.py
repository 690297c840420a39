"""How a scene is told: a grammar of a few words, and its exact inverse."""
from dataclasses import dataclass, field

COUNTS = ("one", "two", "three", "four")
PLACES = ("left", "right")


def plural(noun: str) -> str:
    """The regular English plural.

    >>> plural("cat"), plural("bus"), plural("cherry"), plural("fish")
    ('cats', 'buses', 'cherries', 'fishes')
    """
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")


@dataclass(frozen=True)
class Grammar:
    """The words between the names: `a cat on the left, two suns on the right, blue ground, sign K I T E`.

    Args:
        background: the word after a background's name. sign: the word before a sign.
        spelled: the letters of a sign stand apart, so that a text tokenizer sees each of them.
        plurals: irregular ones, noun -> plural.
    """
    background: str = "ground"
    sign: str = "sign"
    spelled: bool = True
    plurals: dict[str, str] = field(default_factory=dict, hash=False)

    def plural(self, noun: str) -> str:
        """The plural of a noun, regular unless `plurals` has another."""
        return self.plurals.get(noun) or plural(noun)

    def describe(self, group) -> str:
        """A `Group` in words: `a cat on the left`, `two suns on the right`, `four dogs`."""
        if group.count == 1:
            words = f"{'an' if group.noun[0] in 'aeiou' else 'a'} {group.noun}"
        else:
            words = f"{COUNTS[group.count - 1]} {self.plural(group.noun)}"
        return words + (f" on the {group.place}" if group.place else "")

    def spell(self, word: str) -> str:
        """A sign's word as a caption writes it: `K I T E`, or `KITE` if signs are not spelled."""
        return " ".join(word) if self.spelled else word

    def caption(self, groups, background: str = "", sign: str = "") -> str:
        """Groups, then the background by its name, then the sign; nothing is said of what is empty."""
        parts = [self.describe(group) for group in groups]
        if background:
            parts.append(f"{background} {self.background}")
        if sign:
            parts.append(f"{self.sign} {self.spell(sign)}")
        return ", ".join(parts)

    def parse(self, text: str, nouns) -> tuple[list[tuple[str, int, str]], str, str]:
        """What a caption of these nouns seems to say: [(noun, count, place), ...], background, sign.

        ValueError without a background. It trusts the caption: whoever asks compares with what `caption`
        makes of the result.
        """
        singular = {self.plural(noun): noun for noun in nouns}
        parts, sign = text.strip().split(", "), ""
        if parts[-1].startswith(f"{self.sign} "):
            sign = parts.pop().removeprefix(f"{self.sign} ").replace(" ", "")
        if not parts or not parts[-1].endswith(f" {self.background}"):
            raise ValueError(f"not a caption of this world (no {self.background}): {text!r}")
        background, groups = parts.pop().removesuffix(f" {self.background}"), []
        for part in parts:
            words, _, place = part.partition(" on the ")
            number, _, noun = words.partition(" ")
            count = 1 if number in ("a", "an") else COUNTS.index(number) + 1 if number in COUNTS[1:] else 0
            groups.append((singular.get(noun, noun) if count > 1 else noun, count, place))
        return groups, background, sign
