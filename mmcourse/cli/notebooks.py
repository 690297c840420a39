"""Reading the chapters as a machine does: are they clean runs, and is their code the package's code, both ways?

`drift`: what a chapter defines under a name of the package is the package's code, docstring included. `missing`: the
definitions in `CORE` stand in their chapter. Used by `mmcourse check` and by the tests. Nothing here runs a notebook:
`mmcourse test` does that with nbval.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
LARGEST = 1_500_000  # bytes: more than this, and code-hosting pages refuse to show a notebook
GUARDED = ("world", "judges")  # with the root: whose names a chapter may not use for something else

# What a chapter must show as code, by the module that it comes from. `Class.method`: a method that stands in
# the chapter as a function, because the whole class would be too long a cell.
CORE = {
    "02": {
        "bpe": "byte_order to_byte_chars count_words pairs merge_words learn_merges apply_merges WordIds BPETokenizer",
    },
    "03": {
        "quantize": "nearest_code k_means VectorQuantizer FSQ",
        "vqvae": "ChannelNorm ResidualBlock border_colour matte GlobalContext make_encoder make_decoder VQVAE vqvae_loss",
    },
    "04": {
        "spectrogram": "hann stft istft hz_to_mel mel_to_hz mel_filterbank log_mel griffin_lim normalize_loudness",
        "quantize": "ResidualQuantizer",
        "codec": "DilatedBlock make_sound_encoder make_sound_decoder in_pieces AudioCodec codec_loss",
    },
    "05": {
        "transformer": "Attention MLP Block LayerCache segment_positions Transformer KVCache next_token_loss",
        "optim": "orthogonalize Muon make_optimizers schedule set_rates EMA",
        "training": "step train",
        "generate": "filter_logits sample",
    },
    "06": {
        "vocabulary": "Vocabulary",
        "generate": "modality_mask NextLogits generate continue_rows",
        "dataset": "Direction direction draw_caption describe_image draw_heard say_then_edit "
                   "Mixture.weighted Mixture.batch mixture_loss",
        "rerank": "sum_log_probs log_likelihood backward_log_likelihood best_of_n answer_directly caption_first "
                  "augmented_consensus verbalize retold_log_likelihood answer_retold answer_edit answer",
    },
    "07": {
        "diffusion": "interpolate flow_loss velocity_of euler heun time_features TimeConditionedBlock2d FlowDecoder "
                     "paint_flow enlarge plain_and_codes decoder_loss",
        "sound_decoder": "TimeConditionedBlock1d SoundDecoder sound_decoder_loss",
    },
    "08": {
        "painters": "Trunk TokenPainter FlowPainter shifted in_order_loss masked_loss early from_noise_loss guided "
                    "paint_in_order paint_surest_first paint_from_noise score_in_order score_masked score_from_noise to_patches "
                    "from_patches",
    },
    "10": {
        "in_context": "TokenChunk VectorChunk EpisodeNet",
    },
    "11": {
        "posttraining": "Question Task mark Rollouts roll_out written allowed_ids sampled_log_probs advantages has_contrast "
                        "best_alone any_one best_and_worst where_they_differ policy_loss preference_loss Method Practice "
                        "post_train",
        "chat": "choose_modality in_words perceive reply draw_or_speak picture_of_now after_picture",
    },
    "12": {
        "parallel": "race throw_dice rewind WindowLogits as_found continue_at_once Draft caption_ids draft_loss",
        "generate": "paint_at_once",
        "nested": "NestedTokenizer first nested_loss",
        "experiments.budgets": "BudgetNet budget_loss",
        "experiments.exits": "layer_states ExitHeads exit_loss",
        "experiments.routed": "pass_through",
        "experiments.byte_patches": "PatchNet",
    },
    "13": {
        "experiments.inside": "looking stream states patched attend cut no_look",
        "experiments.probes": "probe control_labels",
        "experiments.concepts": "concept_states retrieval mean_difference steered",
        "experiments.sparse": "SparseAutoencoder largest sparse_loss",
    },
    "14": {
        "distributed": "summed from_first gathered same_start add_gradients rows share Divided",
        "experiments.scaling": "parameters wsd branches Law fit_law",
        "experiments.bill": "training_flops utilisation",
    },
}
_REMOTE = re.compile(
    r"""!\[[^\]]*\]\(\s*(?:https?:)?//|<(?:img|audio|video|script|iframe)\b[^>]*\bsrc\s*=\s*["']?"""
    r"""(?:https?:)?//|<link\b[^>]*\bhref\s*=\s*["']?(?:https?:)?//""",
    re.IGNORECASE,
)
_PRIVATE = re.compile(r"(?:/home/|/root/|/Users/|/work/main|/tmp/|[A-Z]:\\\\?Users\\)[\w.\\/-]*")


def all_notebooks() -> list[Path]:
    """The chapters in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


@dataclass(frozen=True)
class Notebook:
    """One notebook as parsed JSON, with where it came from and how many bytes it had."""

    path: Path
    content: dict
    size: int

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Read a notebook; ValueError if it is not one."""
        raw = Path(path).read_bytes()
        try:
            content = json.loads(raw)
            if not all(isinstance(source(cell), str) and cell["cell_type"] for cell in content["cells"]):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{path} is not a notebook: open it in JupyterLab and save it again") from None
        return cls(Path(path), content, len(raw))

    @property
    def code(self) -> list[dict]:
        """The code cells that hold anything."""
        return [c for c in self.content["cells"] if c["cell_type"] == "code" and source(c).strip()]

    @property
    def prose(self) -> list[str]:
        """The text of each markdown cell."""
        return [source(c) for c in self.content["cells"] if c["cell_type"] == "markdown"]


def source(cell: dict) -> str:
    """A cell's text, however it is stored."""
    return "".join(cell.get("source", ""))


def parse(cell: dict) -> ast.Module:
    """A code cell as a syntax tree, IPython's % and ! lines made into Python first; or SyntaxError."""
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(source(cell)))


def _texts(output: dict) -> dict[str, str]:
    """The textual parts of an output: what a reader could read, or a page could load."""
    if output["output_type"] == "stream":
        return {"text": "".join(output["text"])}
    bundle = output.get("data", {})
    return {
        kind: "".join(text)
        for kind, text in bundle.items()
        if isinstance(text, (str, list)) and (kind.startswith("text/") or kind == "image/svg+xml")
    }


def lint(book: Notebook) -> list[str]:
    """What keeps this notebook from being a clean run that a page can show, one sentence each."""
    name, problems = book.path.name, []
    counts = [c.get("execution_count") for c in book.code]
    if counts != list(range(1, len(counts) + 1)):
        first = next(i for i, n in enumerate(counts) if n != i + 1)
        problems.append(
            f"{name}: not one clean run: code cell {first + 1} has execution count {counts[first]}; "
            "restart the kernel, run all, save"
        )
    for i, cell in enumerate(book.code, 1):
        try:
            parse(cell)
        except SyntaxError as error:
            problems.append(f"{name}: code cell {i} is not Python: {error.msg}")
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                problems.append(
                    f"{name}: code cell {i} ends in {output.get('ename')}: {output.get('evalue')}"
                )
            for kind, text in _texts(output).items():
                if _REMOTE.search(text):
                    problems.append(f"{name}: the output of code cell {i} loads something from the network")
                leak = None if kind == "text/html" and "data:" in text else _PRIVATE.search(text)
                if leak:
                    problems.append(
                        f"{name}: the output of code cell {i} shows a folder of one machine: {leak[0]}"
                    )
    for text in book.prose:
        for hit in _REMOTE.finditer(text):
            shown = text[hit.start() : hit.start() + 70].split("\n")[0]
            problems.append(f"{name}: the prose loads something from the network: {shown}")
    if book.size > LARGEST:
        problems.append(
            f"{name}: {book.size / 1e6:.2f} MB, more than {LARGEST / 1e6} MB: smaller figures, shorter sounds"
        )
    meta = book.content.get("metadata", {})
    if meta.get("kernelspec", {}).get("name") != "python3":
        problems.append(
            f"{name}: its kernel is {meta.get('kernelspec', {}).get('name')!r}, which others may lack: "
            "choose 'python3'"
        )
    if meta.get("language_info", {}).get("name") != "python":
        problems.append(f"{name}: the metadata does not say that its language is python")
    return problems


def _lengths(book: Notebook) -> list[int]:
    """Lines of each code cell, blank lines and comments left out."""
    return [
        sum(1 for line in source(c).splitlines() if line.strip() and not line.lstrip().startswith("#"))
        for c in book.code
    ]


def words(book: Notebook) -> int:
    """Words of prose before "In depth"; folded solutions (<details>) and code blocks do not count."""
    first_reading = "\n\n".join(book.prose).partition("\n## In depth")[0]
    text = re.sub(r"<details>.*?</details>|```.*?```", " ", first_reading, flags=re.DOTALL)
    return len(re.findall(r"[^\W\d_][\w'’-]*", text))


def statistics(book: Notebook) -> str:
    """One line on a chapter's shape: cells, lines, words, size."""
    lines = _lengths(book) or [0]
    long = sum(n > 20 for n in lines) / len(lines)
    return (
        f"{len(book.code)} code cells, median {median(lines):g} lines, {long:.0%} over 20, "
        f"{sum(lines)} lines, {words(book):,} words, {book.size / 1e6:.2f} MB"
    )


def notes(book: Notebook) -> list[str]:
    """Where a chapter leaves the house style: lengths, and warnings shown (taste, so no error)."""
    lines, said = _lengths(book) or [0], []
    if median(lines) > 6:
        said.append(f"the median code cell has {median(lines):g} lines; 3 to 6 keeps a reader with you")
    if sum(n > 20 for n in lines) > 0.1 * len(lines):
        said.append("more than one cell in ten is over 20 lines")
    if not 2000 <= words(book) <= 3500:
        said.append(f"{words(book):,} words of prose in the first reading; chapters have 2,000 to 3,500")
    long = sum(len(line) > 110 for cell in book.code for line in source(cell).splitlines())
    if long:
        said.append(f"{long} lines of code are wider than 110 characters")
    for i, cell in enumerate(book.code, 1):
        if any("Warning" in text for output in cell.get("outputs", []) for text in _texts(output).values()):
            said.append(f"code cell {i} shows a warning")
    return said


_KINDS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _definitions(tree: ast.Module) -> list[ast.stmt]:
    """The functions and classes at the top of a module or cell, also under `if`, `try` and `with`."""
    found, todo = [], list(tree.body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, _KINDS):
            found.append(node)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            todo += [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
    return found


def is_check(node: ast.AST) -> bool:
    """Whether a statement is a bare call of a `check_...` function: it refuses bad arguments and does nothing else."""
    called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return isinstance(called, ast.Name) and called.id.startswith("check_")


def meaning(node: ast.AST, checks: bool = True, notes: bool = True) -> str:
    """A definition as text that is equal for equal code: comments, layout and line breaks of docstrings do not count.

    Args:
        checks: False leaves out its `check_...(...)` statements.
        notes: False leaves out docstrings and annotations.
    """
    node = ast.parse(ast.unparse(node))
    for part in ast.walk(node):
        if isinstance(part, _KINDS):
            text, body = ast.get_docstring(part), part.body
            if text is not None:
                part.body = [ast.Expr(ast.Constant(" ".join(text.split()))), *body[1:]] if notes else body[1:]
            part.body = [line for line in part.body if checks or not is_check(line)] or [ast.Pass()]
        if not notes and isinstance(part, ast.arg):
            part.annotation = None
        if not notes and isinstance(part, ast.FunctionDef):
            part.returns = None
    return ast.dump(node)


def same(lesson: ast.AST, package: ast.AST) -> bool:
    """Whether a lesson's definition is the package's, whole or without the package's `check_...(...)` statements."""
    return meaning(lesson) in (meaning(package), meaning(package, checks=False))


def is_naive(cell: dict) -> bool:
    """True for a cell that says, in its first line, that it holds a first version: `# naive: ...`."""
    return source(cell).lstrip().startswith("# naive:")


def exercise_of(node: ast.AST) -> str | None:
    """The name in `@exercise("03.psnr")` above a definition, if it is there."""
    for mark in getattr(node, "decorator_list", []):
        if isinstance(mark, ast.Call) and mark.args and isinstance(mark.args[0], ast.Constant):
            called = mark.func
            if (getattr(called, "id", None) or getattr(called, "attr", None)) == "exercise":
                return mark.args[0].value
    return None


@lru_cache(maxsize=1)
def package_definitions() -> dict[str, dict[str, ast.stmt]]:
    """{name: {module: definition}} for the functions and classes at the top of the modules that chapters are about.

    These are the root's, the world's and the judges'; what a recipe, a study or a drawing calls its helpers is its own
    business. `main`s are left out.
    """
    table: dict[str, dict[str, ast.stmt]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[0] not in GUARDED:
            continue
        for node in _definitions(ast.parse(path.read_text("utf-8"))):
            if node.name != "main":
                table.setdefault(node.name, {})[".".join(("mmcourse", *parts))] = node
    return table


def lesson_definitions(book: Notebook) -> list[tuple[int, ast.stmt]]:
    """(number of the code cell, definition) for what a chapter defines; cells that say `# naive:` are left out."""
    found = []
    for i, cell in enumerate(book.code, 1):
        if not is_naive(cell):
            with contextlib.suppress(SyntaxError):  # lint says so
                found += [(i, node) for node in _definitions(parse(cell))]
    return found


def drift(book: Notebook, package: dict[str, dict[str, ast.stmt]] | None = None) -> list[str]:
    """Definitions that bear a name of the package but are not its code, one sentence each."""
    package = package_definitions() if package is None else package
    problems = []
    for i, node in lesson_definitions(book):
        homes = package.get(node.name)
        if homes and exercise_of(node) is None and not any(same(node, home) for home in homes.values()):
            problems.append(
                f"{book.path.name}: code cell {i} defines {node.name} otherwise than {' or '.join(homes)} (docstrings "
                "count too); make them the same, or begin the cell with '# naive: why'"
            )
    return problems


def core_definition(module: str, name: str) -> ast.stmt | None:
    """The definition of an entry of `CORE`: a function or class of a module (`experiments.exits`), or a method of one."""
    body = _definitions(ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")))
    for part in name.split("."):
        found = next((node for node in body if isinstance(node, _KINDS) and node.name == part), None)
        body = getattr(found, "body", [])
    return found


def solutions(book: Notebook) -> dict[str, tuple[ast.stmt, str]]:
    """{name: (definition, the text around it)} for what the folded solutions of a chapter define."""
    found = {}
    for fold in re.findall(r"<details>.*?</details>", "\n\n".join(book.prose), flags=re.DOTALL):
        for block in re.findall(r"```python\n(.*?)```", fold, flags=re.DOTALL):
            with contextlib.suppress(SyntaxError):  # an example with dots in it
                found |= {node.name: (node, fold) for node in _definitions(ast.parse(block))}
    return found


def is_solved(solution: tuple[ast.stmt, str] | None, definition: ast.stmt) -> bool:
    """Whether a folded solution shows a definition of the package. Docstrings and annotations may be left out; where the
    code differs, the fold says in words what "the package's version" does besides."""
    if solution is None:
        return False
    node, fold = solution
    wanted = (meaning(definition, checks, notes=False) for checks in (True, False))
    return meaning(node, notes=False) in wanted or "package's version" in " ".join(fold.split())


def missing(book: Notebook, core: dict[str, dict[str, str]] = CORE) -> list[str]:
    """Definitions of `CORE` that do not stand in their chapter as code, one sentence each.

    What is an exercise stands there if its folded solution is the package's code (`is_solved`).
    """
    lesson, solved, problems = lesson_definitions(book), solutions(book), []
    for module, names in core.get(book.path.name[:2], {}).items():
        for name in names.split():
            definition, short = core_definition(module, name), name.split(".")[-1]
            if definition is None:
                problems.append(f"CORE names {name}, which mmcourse.{module} does not define")
                continue
            tasks = [node for _, node in lesson if node.name == short and exercise_of(node)]
            shown = any(same(node, definition) for _, node in lesson if node.name == short)
            if not shown and not (tasks and is_solved(solved.get(short), definition)):
                problems.append(
                    f"{book.path.name}: {name} of mmcourse.{module} must stand in this chapter, word for word: as code"
                    + (", or in the folded solution of its exercise" if tasks else " (CORE in mmcourse/cli/notebooks.py)")
                )
    return problems


def exercises_in(book: Notebook) -> list[str]:
    """The names of the exercises of this notebook, in order."""
    found = []
    for cell in book.code:
        try:
            found += [name for node in _definitions(parse(cell)) if (name := exercise_of(node))]
        except SyntaxError:
            continue
    return found


def exercise_problems(book: Notebook) -> list[str]:
    """Exercises of this notebook that are in the wrong chapter, twice there, or not left as a stub."""
    name, seen, problems = book.path.name, set(), []
    for cell in book.code:
        try:
            nodes = _definitions(parse(cell))
        except SyntaxError:
            continue
        for node in nodes:
            task = exercise_of(node)
            if task is None:
                continue
            if not task.startswith(name[:2] + "."):
                problems.append(f"{name}: exercise {task} belongs to another chapter")
            if task in seen:
                problems.append(f"{name}: exercise {task} is there twice")
            seen.add(task)
            if "NotImplementedError" not in ast.unparse(node):
                problems.append(
                    f"{name}: exercise {task} is not left as a stub that raises NotImplementedError"
                )
    return problems
