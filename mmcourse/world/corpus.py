"""Text to learn a vocabulary from: English prose from Python, captions, some Vietnamese."""
import ast
import sysconfig
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmcourse.world.languages import GERMAN, JAPANESE, RUSSIAN
from mmcourse.world.scene import WORLD, World

# Modules of the standard library that every supported Python has and whose docstrings are real sentences.
MODULES = (
    "argparse", "calendar", "codecs", "configparser", "contextlib", "datetime", "difflib", "doctest",
    "enum", "fractions", "functools", "heapq", "inspect", "ipaddress", "locale", "os", "pathlib",
    "pickletools", "random", "shutil", "socketserver", "statistics", "string", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "turtle", "typing", "uuid", "zipfile",
)


@lru_cache(maxsize=1)
def prose() -> str:
    """About 0.8 million characters of English: Python's own manual (`pydoc_data.topics`) and docstrings.

    The same on every run of one Python version; another version has slightly different manuals.
    """
    from pydoc_data.topics import topics
    return "\n\n".join([topics[name] for name in sorted(topics)] + [_docstrings(name) for name in MODULES])


def _docstrings(module: str) -> str:
    """The docstrings of a module of the standard library, in the order of its source; it is not imported."""
    path = Path(sysconfig.get_paths()["stdlib"], *module.split("."))
    path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    if not path.exists():
        return ""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [tree, *(node for node in ast.walk(tree) if isinstance(node, kinds))]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def captions(n: int, seed: int = 0, world: World = WORLD) -> str:
    """The captions of `n` training scenes, one a line. Nothing in them is held out; signs are spelled."""
    if n < 1:
        raise ValueError(f"ask for at least one caption, got n={n}")
    rng = np.random.default_rng(seed)
    return "\n".join(world.caption(world.sample(rng, "train")) for _ in range(n))


def spoken_words(world: World = WORLD) -> str:
    """Every word and plural of the world once, each with a space before: ` ant ants apple apples ...`."""
    return "".join(f" {word}" for word in sorted({*world.words, *map(world.grammar.plural, world.nouns)}))


def vietnamese() -> str:
    """Some paragraphs of Vietnamese about this course, written for it, in composed form (Unicode NFC)."""
    return VIETNAMESE


def english() -> str:
    """The same paragraphs in English, one for one: what `vietnamese` says, for fair comparisons."""
    return ENGLISH


def languages() -> dict[str, str]:
    """The same seven paragraphs in five languages, one for one. The shipped vocabulary learned from none of them."""
    return {"English": ENGLISH, "German": GERMAN, "Vietnamese": VIETNAMESE, "Russian": RUSSIAN, "Japanese": JAPANESE}


VIETNAMESE = """\
Máy tính không đọc được chữ. Nó chỉ biết những con số. Muốn cho máy đọc một câu, trước hết ta phải
cắt câu ấy ra thành từng mảnh nhỏ, rồi đánh số cho mỗi mảnh. Mỗi mảnh như thế gọi là một token.
Trong khóa học này, bạn sẽ tự tay viết chương trình cắt chữ, không dùng thư viện có sẵn, và bạn sẽ
hiểu vì sao mỗi dòng lệnh phải có mặt.

Ý tưởng rất đơn giản. Ban đầu, mỗi byte là một token. Sau đó ta đếm xem hai token nào hay đứng cạnh
nhau nhất, và gộp chúng lại thành một token mới. Ta lặp lại việc ấy vài trăm lần, vài nghìn lần.
Những từ thường gặp dần dần trở thành một token duy nhất, còn những từ hiếm vẫn được ghép từ nhiều
mảnh. Không có từ nào bị bỏ rơi, vì trong trường hợp xấu nhất ta vẫn còn các byte.

Tiếng Việt có nhiều dấu. Một chữ như "ế" vừa có dấu mũ vừa có dấu sắc, và trong bộ nhớ nó chiếm ba
byte. Nếu bộ từ vựng chỉ học từ tiếng Anh, nó chưa bao giờ nhìn thấy ba byte ấy đi cùng nhau, cho
nên nó phải dùng ba token cho một chữ cái. Cùng một nội dung, người viết tiếng Việt phải trả nhiều
token hơn, chờ lâu hơn, và nhận được một cửa sổ ngữ cảnh ngắn hơn. Đó không phải lỗi của tiếng Việt.
Đó là lỗi của dữ liệu mà ta đã chọn để học.

Cũng có hai cách để lưu cùng một chữ. Cách thứ nhất là dùng một ký tự dựng sẵn. Cách thứ hai là viết
chữ cái gốc trước, rồi viết các dấu theo sau. Trên màn hình, hai cách trông giống hệt nhau, nhưng
đối với máy thì chúng là hai chuỗi byte hoàn toàn khác. Vì vậy, trước khi học, người ta thường chuẩn
hóa văn bản về cùng một dạng.

Sau phần chữ viết, chúng ta sẽ làm điều tương tự với hình ảnh và âm thanh. Một bức tranh nhỏ được
chia thành sáu mươi tư ô vuông, mỗi ô được thay bằng một con số trong một cuốn từ điển. Một đoạn
tiếng nói được chia thành những khung ngắn, và mỗi khung cũng được thay bằng vài con số. Khi tất cả
đều là con số, một mạng nơ-ron duy nhất có thể đọc, vẽ và nói. Nó không cần biết con số nào là chữ,
con số nào là hình, con số nào là tiếng. Nó chỉ đoán con số kế tiếp.

Thế giới của khóa học này rất bé. Trong đó có con mèo, con chó, con cá, quả táo, ngôi nhà, mặt trời
và mặt trăng. Có tám màu nền, có bên trái và bên phải, có một con, hai con, ba con, bốn con. Có khi
có một tấm biển với vài chữ cái viết hoa. Thế giới bé như vậy để ta có thể kiểm tra mọi câu trả lời:
mô hình đúng hay sai là chuyện đếm được, không phải chuyện cảm tính. Một mô hình nhỏ, chạy trên máy
xách tay, không thể biết hết mọi thứ, nhưng nó có thể cho ta thấy rõ từng bánh răng bên trong.

Hãy chạy từng ô lệnh, hãy sửa thử một con số, rồi xem điều gì thay đổi. Nếu có gì hỏng, đừng lo: mở
lại chương và bắt đầu lại từ đầu. Học như vậy chậm hơn đọc lướt, nhưng nhớ lâu hơn nhiều.
"""

ENGLISH = """\
A computer cannot read letters. It knows only numbers. To let a machine read a sentence, we must
first cut the sentence into small pieces, and then give each piece a number. Such a piece is called
a token. In this course you will write the program that cuts text with your own hands, without a
ready-made library, and you will understand why each line has to be there.

The idea is very simple. In the beginning, every byte is a token. Then we count which two tokens
stand side by side most often, and join them into one new token. We repeat this a few hundred times,
or a few thousand times. Words that are met often slowly become a single token, while rare words are
still put together from several pieces. No word is left behind, because in the worst case we still
have the bytes.

Vietnamese has many accents. A letter such as e with two accents has both a circumflex and an acute
accent, and in memory it takes three bytes. If a vocabulary has learnt from English alone, it has
never seen these three bytes together, so it must spend three tokens on one letter. For the same
content, a person who writes Vietnamese has to pay for more tokens, wait longer, and receive a
shorter context window. That is not the fault of Vietnamese. It is the fault of the data that we
chose to learn from.

There are also two ways to store the same letter. The first way is to use one ready-made character.
The second way is to write the base letter first, and then write the accents after it. On the screen
the two ways look exactly the same, but for the machine they are two entirely different strings of
bytes. Therefore, before learning, people usually normalise the text to one form.

After the part about writing, we will do the same with pictures and sound. A small picture is
divided into sixty-four squares, and each square is replaced by a number from a dictionary. A
stretch of speech is divided into short frames, and each frame is replaced by a few numbers as well.
When everything is a number, a single neural network can read, draw and speak. It does not need to
know which number is a letter, which is a picture and which is a sound. It only guesses the next
number.

The world of this course is very small. In it there are a cat, a dog, a fish, an apple, a house, the
sun and the moon. There are eight background colours, there is a left side and a right side, there
are one, two, three or four animals. Sometimes there is a sign with a few capital letters. The world
is this small so that we can check every answer: whether the model is right or wrong is a matter of
counting, not a matter of feeling. A small model that runs on a laptop cannot know everything, but
it can let us see clearly every wheel inside.

Run each cell, try changing a number, then see what becomes different. If something breaks, do not
worry: open the chapter again and start from the beginning. Learning this way is slower than
skimming, but it stays in memory much longer.
"""
