"""What people type, read as a caption or an instruction of the world, and a sentence for each thing that was not
understood.

The model knows a few hundred words in one order. What is clear (case, punctuation, quotes, numerals, plurals, the
order of things) is put into that order; what is not is left out and said. A prompt that is in the grammar already
stays as it is.
"""
import difflib
import re
import unicodedata
from dataclasses import dataclass, field, replace
from functools import lru_cache

from mmcourse.world.grammar import COUNTS, PLACES
from mmcourse.world.scene import DIGITS, WORLD, World

LONGEST = 2000                      # characters: nobody's prompt is longer
NUMBERS = {**{word: i for i, word in enumerate(COUNTS, 1)}, "a": 1, "an": 1, "single": 1, "pair": 2, "couple": 2,
           "both": 2, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
           "dozen": 12}
SOME = {"some", "several", "many", "few", "lots", "various"}
ELSEWHERE = set("""above below under over behind between beside near middle center centre top bottom inside
around front up down far next""".split())
NOT = {"no", "without", "not", "except", "zero", "don't", "never"}
GROUND = {"ground", "background", "backdrop"}                           # beside the grammar's own word
# what may stand between without meaning anything here
FILLERS = set("""the of is are be there and with in at to on it its plus also please me my i you we want like would
could can picture image photo drawing scene draw show paint create generate sketch imagine see side hand this that
these as from by for colour color coloured colored now then let us lot so just them they have has where which s x make
give very it's there's that's i'm i'd let's""".split())
SIGN_FILLERS = set("""saying says say said reading reads read that which with the word words letters text spelled
spelling labelled labeled written of is to called as it a an into""".split())
SAYS = set("saying says reading reads letters text word labelled labeled".split())   # may stand for the word `sign`
VERBS = {**dict.fromkeys(("make", "change", "turn", "paint", "colour", "color", "set", "give"), "make"),
         **dict.fromkeys(("replace", "swap", "exchange", "substitute"), "replace"),
         **dict.fromkeys(("add", "put", "place", "insert"), "add"),
         **dict.fromkeys(("remove", "delete", "erase", "drop", "clear", "take"), "remove"),
         **dict.fromkeys(("move", "shift", "push", "bring"), "move")}
POLITE = {"please", "can", "could", "you", "now", "then", "and", "also", "would", "just"}
# everyday words for what the course's world has under another name; the answer says so
SYNONYMS = {"kitten": "cat", "kitty": "cat", "puppy": "dog", "bike": "bicycle", "automobile": "car", "ship": "boat",
            "sailboat": "boat", "mug": "cup", "doughnut": "donut", "bunny": "rabbit", "blossom": "flower",
            "gray": "grey", "watch": "clock", "home": "house", "spaceship": "rocket", "tortoise": "turtle",
            "violet": "purple", "locomotive": "train"}
CANNOT = ("I can make the ground another colour, make or remove the sign, add, remove or move one thing, or replace it "
          "with another.")
_QUOTES = "\"“”„«»‟″"
_TOKENS = re.compile(r"[^\W\d_]+\d\w*|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+|[,;.!?()\[\]{}\n/|&+]")


@dataclass
class Token:
    """A word as it was typed; `first`: it begins a part of the sentence; `quoted`: it stood alone in quotes."""
    text: str
    first: bool = False
    quoted: bool = False

    @property
    def low(self) -> str:
        return self.text.lower()


@dataclass
class Named:
    """Things of one kind that a prompt names; `count` None: it does not say how many."""
    noun: str
    count: int | None = None
    place: str = ""
    plural: bool = False
    definite: bool = False
    some: bool = False


@dataclass
class Reading:
    """All that was understood of a prompt, in the order in which it was said, and remarks on the rest."""
    groups: list[Named] = field(default_factory=list)
    background: str = ""
    sign: str = ""
    has_sign: bool = False
    remarks: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.groups or self.background or self.has_sign)


def read_prompt(text: str, world: World = WORLD) -> tuple[str, tuple[str, ...]]:
    """A prompt as the world's captions and instructions are written, and what was not understood, a sentence each.

    >>> read_prompt('TWO CATS on the left;  sign "Kite".')
    ('two cats on the left, sign K I T E', ())
    >>> read_prompt("2 cats, a zebra and a dog")[0]
    'two cats on the left, a dog on the right'
    """
    plain = " ".join(text.split())
    if plain in world.words or _is_caption(plain, world):
        return plain, ()
    tokens = tokenise(text) if len(text) <= LONGEST else []
    verb, tokens, left_out = split_instruction(tokens)
    if len(tokens) == 1 and not verb and tokens[0].low in world.words:
        return tokens[0].low, ()                                        # Yellow.
    reading = Reader(world, verb).read(tokens)
    remarks = reading.remarks
    if reading.empty:
        group = [Named(world.nouns[0], 1, PLACES[0])] if world.nouns else []
        example = world.grammar.caption(group, [*world.backgrounds][0])
        remarks.append(f"I understand nothing of this; I know captions such as “{example}”.")
        return _as_typed(plain), tuple(remarks)
    written = (instruction(reading, verb, world) if verb else "") or caption_of(reading, world)
    if left_out:
        remarks.append(f"I make one change at a time: “{left_out}” is left out.")
    if re.search(r"\b(swap|exchange)\b", text.lower()):
        remarks.append(f"I read this as “{written}”.")
    return written, tuple(dict.fromkeys(remarks))


def read_word(text: str, world: World = WORLD) -> tuple[str, tuple[str, ...]]:
    """The one word of a prompt that can be spoken, its only word or the first noun that it names, and a remark if
    there is more."""
    plain, names = " ".join(text.split()), names_of(world)
    words = [token.low for token in tokenise(text[:LONGEST])]
    known = [names.get(word, word) for word in words if word in names or word in world.words]
    nouns = [name for name in known if name in world.pictograms] or known
    if plain in world.words:
        return plain, ()
    if not nouns:
        examples = "”, “".join(world.words[:3])
        return _as_typed(plain), (f"I speak single words that I know, such as “{examples}”, and know none of these.",)
    alone = len([word for word in words if word not in ("a", "an", "the")]) == 1
    return nouns[0], () if alone else (f"I speak one word at a time: this is “{nouns[0]}”.",)


ASKS = {"how", "what", "where", "which", "is", "are", "do", "does", "who", "when", "why"}       # a question begins so
_SPELLED = (r"\b[A-Z](?P<one> |, ?|[-.] ?)[A-Z](?:(?P=one)[A-Z])+\b|"                   # K I T E, K.I.T.E, K, I, T, E
            r"\b[a-z](?P<other>[-. ])[a-z](?:(?P=other)[a-z])+\b")                      # k i t e, k-i-t-e


def read_request(text: str, world: World = WORLD) -> tuple[str, tuple[str, ...]]:
    """What is said to a model that converses, in its spelling, and a sentence for each word that became another.

    Capitals, quotes, marks, numerals and politeness alone are put right: whatever else was said is for the model to understand
    or not. ValueError for a text of more than `LONGEST` characters.

    >>> read_request('Please draw 2 Cats, sign "Kite".')
    ('draw two cats, sign K I T E', ())
    >>> read_request("How many cats are there")
    ('how many cats are there?', ())
    """
    plain = " ".join(visible(text).split())
    if len(plain) > LONGEST:
        raise ValueError(f"{len(plain):,} characters are more than anybody says at once: write at most {LONGEST:,}")
    if plain in world.words or _is_caption(plain, world):
        return plain, ()
    said = re.sub(rf"[{_QUOTES}()\[\]]|(?<!\w)['‘’`]|['‘’`](?!\w)", " ", lower_but_signs(plain, world))
    said = re.sub(r" ?(?:[,;][ ,;.!?]*|[.!?]+(?: [ ,;.!?]*|$))", lambda m: "? " if "?" in m[0] else ", ", " ".join(said.split()))
    said = re.sub(r"\b(what|where)['’]?s\b", r"\1 is", said.strip(" ,"))
    said, remarks = _our_words(said, world)
    said = re.sub(r"^(?:please,? )?(?:can|could) you see\b", "do you see", said)
    asked = re.sub(rf"^(?:(?:{'|'.join(POLITE)}),? )+", "", re.sub(r"(?:,? please)+(\??)$", r"\1", said))
    asked = re.sub(r"^tell me[,:]? (?=\w)", "tell me: ", asked)
    if re.match(rf"(?:tell me: )?(?:{'|'.join(ASKS - {'do'})}|do (?:you|I|we|they))\b", asked):
        asked += "?" * ("?" not in asked)
    elif asked != said:
        asked = asked.rstrip("?")                                       # can you draw a cat?
    return asked or plain, remarks


def lower_but_signs(text: str, world: World = WORLD) -> str:
    """The text in lower case, but for names that have capitals, and signs: these as the world writes them.

    >>> lower_but_signs("A CAT and the Sign KITE")
    'a cat and the sign K I T E'
    """
    grammar, lengths, shouted = world.grammar, world.signs.lengths, text.isupper() and " " in text
    sign = re.escape(grammar.sign.lower())
    forms = [form(noun) for noun in world.nouns for form in (str, grammar.plural)]
    own = set(re.findall(r"\w+", " ".join([*forms, *world.backgrounds, grammar.background, grammar.sign])))
    known = (FILLERS | SIGN_FILLERS | SOME | ELSEWHERE | NOT | POLITE | ASKS | GROUND | {*NUMBERS, *VERBS, *SYNONYMS, *PLACES}
             | {*names_of(world), *world.words, grammar.background, grammar.sign})

    def is_sign(low: str, loud: bool, before: str, after: str) -> bool:
        ends = re.match(r"[.!?]*(?:$|[.,;])", after) is not None        # a part of the sentence
        if not loud:                                                    # , sign kite
            return ends and low not in known and re.search(rf"(?:^|[,;.] ?|make the ){sign} $", before) is not None
        if re.search(rf"\b{sign} $", before):
            return low not in SIGN_FILLERS | POLITE
        alone = ends and not re.search(r"\b(?:say|an?|the) $", before)
        return low not in known and (alone or re.search(rf"\b{sign}\b", text.lower()) is not None)

    def write(match: re.Match) -> str:
        word = match["quoted"] or match[0]
        if match["spelled"]:
            return grammar.spell(re.sub("[^A-Za-z]", "", word).upper())
        if world.has_signs and re.fullmatch("[A-Za-z]+", word) and len(word) in lengths:
            loud = match["quoted"] is not None or word.isupper() and not shouted
            if is_sign(word.lower(), loud, text[:match.start()].lower(), text[match.end():]):
                return grammar.spell(word.upper())
        return word if word in own else match[0].lower()
    quote, spelled = rf"[{_QUOTES}'‘’`]", _SPELLED if world.has_signs else "(?!)"
    return re.sub(rf"(?P<spelled>{spelled})|(?<!\w){quote}(?P<quoted>[A-Za-z]+)[.!]?{quote}|\w+", write, text)


def _our_words(said: str, world: World) -> tuple[str, tuple[str, ...]]:
    """Everyday words, numerals and articles as the world has them, and a remark on each word that became another."""
    grammar, names, remarks = world.grammar, names_of(world), []
    alike = {form(old): form(new) for old, new in SYNONYMS.items() if new in names for form in (str, grammar.plural)}
    alike |= {word: grammar.background for word in GROUND}

    def write(match: re.Match) -> str:
        new = alike.get(match[0], match[0])
        if new != match[0]:
            remarks.append(f"I read “{match[0]}” as “{new}”.")
        return new
    said = re.sub(r"\w+", write, said)
    said = re.sub(r"(?<!\S)i(?=[,?]?(?: |$))", "I", re.sub(r"\bcolor(s?)\b", r"colour\1", said))
    said = re.sub(r"(?<!\S)[0-9](?=[,?]?(?: |$))", lambda m: DIGITS[int(m[0])], said)
    said = re.sub(rf"\bone (?=(?:{'|'.join(map(re.escape, world.nouns)) or '(?!)'})\b)", "a ", said)
    said = re.sub(r"\ban? (?=(\w))", lambda m: "an " if m[1] in "aeiou" else "a ", said)
    return said, tuple(dict.fromkeys(remarks))


def random_prompt(rng, world: World = WORLD) -> str:
    """A random caption of the world, as an example of what it understands."""
    return world.caption(world.sample(rng, "any"))


def _is_caption(text: str, world: World) -> bool:
    try:
        world.parse(text)
        return True
    except (ValueError, IndexError):
        return False


def _as_typed(text: str) -> str:
    return text.lower().rstrip(".") or text


# ---------------------------------------------------------------- words

def visible(text: str) -> str:
    """The text in one Unicode form, without characters that nobody sees."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cc") or c in "\n\t")


def tokenise(text: str) -> list[Token]:
    """Words and numbers of any text: no marks, no invisible characters, capitals kept."""
    text = visible(text)
    quoted = re.compile(rf"[{_QUOTES}]([^{_QUOTES}]*)[{_QUOTES}]|(?<!\w)['‘’`]([^'‘’`]*)['‘’`](?!\w)")
    spans = [m.span() for m in quoted.finditer(text)
             if re.fullmatch(r"\W*(\w+|\w(\W+\w)*)\W*", m.group(1) or m.group(2) or "")]
    tokens, first = [], True
    for match in _TOKENS.finditer(text):
        word = match.group()
        if not (word[0].isalnum()):
            first = True
            continue
        inside = any(a <= match.start() < b for a, b in spans)
        tokens.append(Token(word, first or word.lower() in ("and", "with", "plus"), inside))
        first = False
    return tokens


def split_instruction(tokens: list[Token]) -> tuple[str, list[Token], str]:
    """The kind of change that a prompt asks for ("" if it asks for none), its words, and a second change as typed."""
    start = next((i for i, t in enumerate(tokens) if t.low not in POLITE), len(tokens))
    verb = VERBS.get(tokens[start].low, "") if start < len(tokens) else ""
    if [t.low for t in tokens[start:start + 2]] == ["get", "rid"]:
        verb, start = "remove", start + 1
    if not verb:
        return "", tokens, ""
    rest = tokens[start + 1:]
    for i, token in enumerate(rest):
        begins = token.first or i and rest[i - 1].low in ("and", "then")
        if i and begins and token.low in VERBS and not token.quoted and not token.text.isupper():
            return verb, rest[:i], " ".join(t.text for t in rest[i:])
    return verb, rest, ""


@lru_cache(maxsize=16)
def names_of(world: World) -> dict[str, str]:
    """Every way in which a noun or a background may be written, in lower case -> its name in the world."""
    right = {form.lower(): noun for noun in world.nouns for form in (noun, world.grammar.plural(noun))}
    wrong = {form.lower(): noun for noun in world.nouns
             for form in (noun + "s", noun + "es", noun[:-2] + "i" if noun.endswith("us") else noun)}
    names = wrong | right
    names |= {name.lower(): name for name in world.backgrounds}
    return names


# ---------------------------------------------------------------- reading

class Reader:
    """Goes through the words of a prompt once, from left to right."""

    def __init__(self, world: World, verb: str = ""):
        self.world, self.verb, self.names = world, verb, names_of(world)
        self.found, self.count, self.some, self.place, self.definite = Reading(), None, False, "", False
        self.unknown: list[str] = []

    def read(self, tokens: list[Token]) -> Reading:
        """All that the words say."""
        self.tokens, i = tokens, 0
        while i < len(tokens):
            i = self.step(i)
        self.say_unknown()
        return self.found

    def say(self, remark: str) -> None:
        self.found.remarks.append(remark)

    def word(self, i: int) -> str:
        return self.tokens[i].low if 0 <= i < len(self.tokens) else ""

    def name(self, i: int) -> tuple[str, int]:
        """The name in the world that begins at word i, and how many words it has; ("", 0) if none does."""
        for n in (3, 2, 1):
            words = " ".join(self.word(j) for j in range(i, i + n))
            if i + n <= len(self.tokens) and words in self.names:
                return self.names[words], n
        near = SYNONYMS.get(self.word(i)) or SYNONYMS.get(self.word(i).removesuffix("s"))
        return (near, 1) if near in self.names else ("", 0)

    def step(self, i: int) -> int:
        """Understand word i; returns where to go on."""
        low, grammar = self.word(i), self.world.grammar
        name, n = self.name(i)
        if self.world.has_signs and low in (grammar.sign, grammar.sign + "s"):
            return self.read_sign(i + 1)
        if low == grammar.background or low in GROUND:
            return self.read_ground(i + 1)
        if name in self.world.backgrounds:
            return self.read_colour(i, name, n)
        if low in SAYS and self.may_be_sign(i + 1, known=True):
            return self.lone_sign(i + 1)
        if name:
            return self.read_noun(i, name, n)
        if low in PLACES:
            return self.read_place(i)
        if low in NOT:
            return self.read_not(i)
        if low == "of" and self.count == 2:                             # a pair of cats
            return i + 1
        if low in NUMBERS or low.isdigit():
            self.count = NUMBERS[low] if low in NUMBERS else int(low[:4])
            if low in ("a", "an") and self.word(i + 1) in {"pair", "couple", "dozen", "few", "lot"}:
                self.count = None
            return i + 1 if not self.spelled(i) else self.lone_sign(i)
        if low in SOME:
            self.some = True
            return i + 1
        if self.spelled(i) or self.may_be_sign(i):
            return self.lone_sign(i)
        if low in ELSEWHERE:
            self.say(f"I know only left and right: “{low}” is left out.")
        elif low == "the":
            self.definite = True
        elif low not in FILLERS and low not in SIGN_FILLERS and not (self.verb and low in VERBS):
            return self.guess(i)
        return i + 1

    def guess(self, i: int) -> int:
        """A word that is not known: a slip of the pen is mended, all else is left out."""
        word = self.word(i)
        near = difflib.get_close_matches(word, self.names, 1, 0.82) if len(word) > 3 and len(self.unknown) < 9 else []
        if near and near[0][0] == word[0]:
            self.say(f"I read “{word}” as “{near[0]}”.")
            self.tokens[i] = replace(self.tokens[i], text=near[0])
            return i
        if word not in self.unknown:
            self.unknown.append(word)
        return i + 1

    def say_unknown(self) -> None:
        """One sentence for all words that were left out."""
        parts = []
        for word in self.unknown[:3]:
            near = difflib.get_close_matches(word, [*self.world.nouns, *self.world.backgrounds], 2, 0.5)
            parts.append(f"no “{word}”" + (f" (nearest: {', '.join(near)})" if near else ""))
        if len(self.unknown) > 3:
            parts.append(f"{len(self.unknown) - 3} more of these words not either")
        if parts:
            said = ", ".join(parts[:-1]) + f" and {parts[-1]}" if parts[1:] else parts[0]
            self.say(f"I know {said}.")

    # ---- things, and where they stand

    def read_noun(self, i: int, name: str, n: int) -> int:
        word = " ".join(self.word(j) for j in range(i, i + n))
        if word not in self.names:
            self.say(f"I read “{word}” as “{name}”.")
        plural = word not in (name.lower(), *SYNONYMS)
        plural = plural if self.count is None else self.count > 1
        group = Named(name, self.count, self.place, plural, self.definite, self.some)
        if len(self.found.groups) >= 2:
            self.say(f"I draw two kinds of things at most: “{word}” is left out." if not self.verb else
                     f"I change one thing at a time: “{word}” is left out.")
        else:
            self.found.groups.append(group)
        self.count, self.some, self.place, self.definite = None, False, "", False
        return i + n

    def clause_has_later_noun(self, i: int) -> bool:
        """Whether word i's part of the sentence names a thing after i, none before it: `on the left a cat`."""
        start = i
        while start > 0 and not self.tokens[start].first:
            start -= 1
        end = i + 1
        while end < len(self.tokens) and not self.tokens[end].first:
            end += 1
        named = [j for j in range(start, end) if self.name(j)[0] in self.world.pictograms]
        return bool(named) and min(named) > i

    def read_place(self, i: int) -> int:
        place, groups = self.word(i), self.found.groups
        if self.verb in ("move",) and groups:
            groups[0].place = place
        elif not groups or self.clause_has_later_noun(i):
            self.place = place
        elif not groups[-1].place:
            groups[-1].place = place
        if self.word(i + 1) == "of":                                    # a cat left of a dog
            self.place = PLACES[1 - PLACES.index(place)]
        return i + 1

    def read_not(self, i: int) -> int:
        """`without a dog`: what is not there cannot be asked for; the noun goes too."""
        for j in range(i + 1, min(i + 4, len(self.tokens))):
            name, n = self.name(j)
            if name in self.world.pictograms or self.word(j) == self.world.grammar.sign:
                said = " ".join(self.tokens[k].text for k in range(i, j + max(n, 1)))
                self.say(f"I draw only what is named: “{said}” is left out.")
                return j + max(n, 1)
        return i + 1

    # ---- the ground

    def read_colour(self, i: int, name: str, n: int) -> int:
        follows = self.word(i + n)
        following, _ = self.name(i + n)
        same_part = i + n < len(self.tokens) and not self.tokens[i + n].first
        if same_part and following in self.world.pictograms:
            self.say(f"“{self.word(i)}” before “{follows}” is left out: things have colours of their own, and a colour "
                     f"names the ground (“{name} {self.world.grammar.background}”).")
        elif same_part and follows == self.world.grammar.sign:
            self.say(f"“{self.word(i)}” is left out: a sign has one colour.")
        else:
            self.set_ground(name)
        return i + n

    def read_ground(self, i: int) -> int:
        """After `ground`: a colour that follows it, as in `make the ground blue`, is its own."""
        for j in range(i, min(i + 4, len(self.tokens))):
            name, n = self.name(j)
            if name in self.world.backgrounds and (j == i or not self.found.background):
                self.set_ground(name)
                return j + n
            if self.word(j) not in FILLERS or self.tokens[j].first:
                break
        return i

    def set_ground(self, name: str) -> None:
        if self.found.background and self.found.background != name and not self.verb:
            self.say(f"There is one ground: I take “{name}”, not “{self.found.background}”.")
        self.found.background = name

    # ---- the sign

    def spelled(self, i: int) -> bool:
        """Whether three capitals or more stand alone from word i on: K I T E."""
        letters = [token.text for token in self.tokens[i:i + 3]]
        return self.world.has_signs and len(letters) == 3 and all(re.fullmatch("[A-Z]", text) for text in letters)

    def may_be_sign(self, i: int, known: bool = False) -> bool:
        """Whether word i is in quotes or capitals, as the word of a sign would be, and as long; `known`: words of
        the world too."""
        if i >= len(self.tokens) or not self.world.has_signs or self.found.has_sign:
            return False
        token = self.tokens[i]
        stands_out = token.quoted or self.is_letters(i) or token.text.isupper() and len(self.tokens) == 1
        letters = re.fullmatch("[A-Za-z]+", token.text) is not None and len(token.text) in self.world.signs.lengths
        return stands_out and letters and (known or not self.name(i)[0]) and token.low not in FILLERS

    def lone_sign(self, i: int) -> int:
        """Letters that are a sign though the word is missing."""
        end = self.read_sign(i, lone=True)
        if self.found.sign:
            self.say(f"I read “{self.found.sign}” as the {self.world.grammar.sign}.")
        return max(end, i + 1)

    def read_sign(self, i: int, lone: bool = False) -> int:
        """The letters of a sign from word i on, however they are written; returns where they end. `lone`: the word
        `sign` is missing."""
        self.found.has_sign = self.verb == "remove" or self.found.has_sign
        if self.verb == "remove":                                       # remove the sign KITE
            return len(self.tokens)
        start = i
        while i < len(self.tokens) and self.says_nothing(i):
            if self.tokens[i].first and self.word(i) != "with" and i > start:
                break
            i += 1
        word, end = self.letters(i)
        if not word and i < len(self.tokens) and self.takes(i) and (lone or i > start or not self.tokens[i].first):
            word, end = self.tokens[i].text, i + 1
        sign, spelled = self.world.grammar.sign, self.world.grammar.spell("KITE")
        if not word:
            self.say(f"The {sign} has no letters: write “{sign} {spelled}”.")
        elif not re.fullmatch("[A-Za-z]+", word):
            self.say(f"A {sign} has letters A to Z: “{word}” is left out.")
        else:
            self.found.has_sign, self.found.sign = True, word.upper()
            self.check_sign()
        return end if word else start

    def check_sign(self) -> None:
        """A remark on a sign that this world does not have."""
        word, rule = self.found.sign, self.world.signs
        if rule.words and word not in rule.words:
            self.say(f"I learned only the signs {', '.join(rule.words[:8])}: “{word}” may go wrong.")
        elif len(word) not in rule.lengths:
            *most, last = map(str, rule.lengths)
            lengths = f"{', '.join(most)} or {last}" if most else last
            self.say(f"I learned signs of {lengths} letters: “{word}” has {len(word)} and may go wrong.")

    def says_nothing(self, i: int) -> bool:
        """Whether word i stands between `sign` and its letters: `sign that says KITE`."""
        lone_letters = len(self.word(i)) == 1 == len(self.word(i + 1))
        return self.word(i) in SIGN_FILLERS and not (self.tokens[i].quoted or self.is_letters(i) or lone_letters)

    def is_letters(self, i: int) -> bool:
        """Whether word i is in capitals though not all of the prompt is: then it is meant as it stands."""
        text = self.tokens[i].text
        return text.isupper() and len(text) > 1 and any(token.text.islower() for token in self.tokens)

    def takes(self, i: int) -> bool:
        """Whether word i can be what the sign says: not the beginning of something else."""
        token = self.tokens[i]
        if token.quoted or self.is_letters(i):
            return True
        return self.word(i) not in FILLERS | NOT | {*PLACES, *NUMBERS, self.world.grammar.background}

    def letters(self, i: int) -> tuple[str, int]:
        """Single letters from word i on, together, and where they end: `K I T E`, `K.I.T.E`, `k-i-t-e`."""
        word, j = "", i
        while j < len(self.tokens) and len(self.word(j)) == 1 and self.word(j).isalpha():
            after = self.word(j + 1)
            article = self.word(j) in ("a", "i") and len(after) > 1 and not self.tokens[j + 1].first
            other_case = word and self.tokens[j].text.isupper() != word[-1].isupper()
            if word and (article or other_case):
                break
            word, j = word + self.tokens[j].text, j + 1
        return (word, j) if len(word) > 1 or j == len(self.tokens) else ("", i)


# ---------------------------------------------------------------- writing

def caption_of(reading: Reading, world: World) -> str:
    """What was understood, as a caption of the world; what it cannot show is said in `reading.remarks`."""
    groups, say, most = reading.groups, reading.remarks.append, len(world.counts)
    one = groups[0] if len(groups) == 1 else None
    if one and not (reading.background or reading.sign or one.place or one.count or one.plural or one.some):
        return one.noun                                                 # a word alone is in the grammar
    groups = [replace(group, count=group.count or 1 + (group.plural or group.some))
              for group in groups[:max(world.kinds)]]
    for group, asked in zip(groups, reading.groups):
        if asked.count is None and group.count > 1:
            say(f"How many of “{group.noun}”? I take two.")
    for group in groups:
        room = most if len(groups) == 1 else min(2, most)
        if group.count > room:
            so = "" if len(groups) == 1 else " if there are two kinds"
            say(f"I count to {COUNTS[room - 1]}{so}: I take {COUNTS[room - 1]} of “{group.noun}”.")
            group.count = room
    if len(groups) == 2:
        _stand_apart(groups, say)
        groups.sort(key=lambda group: PLACES.index(group.place))
    elif groups and groups[0].count > 2 and groups[0].place:
        say(f"Three or four things fill the picture: “on the {groups[0].place}” is left out.")
        groups[0].place = ""
    elif groups and groups[0].count == 2 and not groups[0].place:
        groups[0].place = PLACES[0]
        say(f"Where do the two stand? I take the {PLACES[0]}.")
    return world.grammar.caption(groups, reading.background, reading.sign)


def _stand_apart(groups: list[Named], say) -> None:
    """Two kinds stand on two sides; what is not said is chosen."""
    one, two = groups
    if one.place and one.place == two.place:
        say(f"One kind stands on each side: “{two.noun}” goes to the other one.")
        two.place = ""
    one.place = one.place or (PLACES[1 - PLACES.index(two.place)] if two.place else PLACES[0])
    two.place = two.place or PLACES[1 - PLACES.index(one.place)]


def instruction(reading: Reading, verb: str, world: World) -> str:
    """What was understood, as an instruction of the world; "" if it is a caption that begins with a verb."""
    grammar, groups, say = world.grammar, reading.groups, reading.remarks.append

    def the(group: Named) -> str:
        return f"the {grammar.plural(group.noun) if group.plural else group.noun}"

    def some(group: Named) -> str:
        return grammar.plural(group.noun) if group.plural else grammar.describe(Named(group.noun, 1))
    if groups and reading.has_sign or verb in ("add", "remove", "move") and groups and reading.background:
        said = groups[0].noun if reading.has_sign else f"{reading.background} {grammar.background}"
        say(f"I make one change at a time: “{said}” is left out.")
    if reading.has_sign:
        return f"remove the {grammar.sign}" if verb == "remove" else (
            f"make the {grammar.sign} {grammar.spell(reading.sign)}" if reading.sign else "")
    if reading.background and not groups:
        return f"make the {grammar.background} {reading.background}"
    if len(groups) == 2 and verb in ("replace", "make"):
        return f"replace {the(groups[0])} with {some(groups[1])}"
    if verb in ("replace", "make"):
        if groups[0].definite or verb == "replace":
            say(CANNOT)
        ground = reading.background and groups[0].definite
        return f"make the {grammar.background} {reading.background}" if ground else ""
    first = groups[0]
    if len(groups) > 1:
        say(f"I make one change at a time: “{groups[1].noun}” is left out.")
    if verb == "remove":
        return f"remove {the(first)}"
    if verb == "move" or first.definite and first.place:
        if not first.place:
            say("To which side? Say “to the left” or “to the right”.")
        return f"move {the(first)}" + (f" to the {first.place}" if first.place else "")
    count = first.count or (2 if first.plural else 1)
    if count > 2:
        say(f"Beside another thing there is room for two: I take two of “{first.noun}”.")
    if not first.place:
        say("On which side? Say “on the left” or “on the right”.")
    return f"add {grammar.describe(replace(first, count=min(count, 2)))}"
