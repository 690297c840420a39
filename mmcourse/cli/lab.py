"""`mmcourse lab`: JupyterLab on a chapter, on this machine only; `--check` starts it, questions it and stops it."""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from mmcourse.cli import NOTEBOOKS, ROOT, find_notebook, usage_error

FIRST = "00_start_here.ipynb"


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


def _trust() -> None:
    """Sign the chapters that are as git has them: JupyterLab mutes the players of a notebook that nobody on this machine
    signed. What somebody changed or put beside them is not ours to vouch for."""
    import nbformat
    from nbformat.sign import NotebookNotary

    own = _committed()
    if not own:
        print("git does not say which notebooks are the course's: their sounds play once their cells have run")
    for path in (NOTEBOOKS / name for name in own):
        with contextlib.suppress(Exception):  # whatever ails a notebook or a database of signatures is JupyterLab's to say
            data = path.read_bytes()
            kind = hashlib.sha1 if len(own[path.name]) == 40 else hashlib.sha256
            if kind(b"blob %d\0" % len(data) + data).hexdigest() == own[path.name]:
                NotebookNotary().sign(nbformat.reads(data.decode("utf-8"), as_version=4))


def _committed() -> dict[str, str]:
    """{file name: git's hash of its content} of the chapters; empty where git knows nothing of them."""
    try:
        done = subprocess.run(["git", "ls-tree", "HEAD", f"{NOTEBOOKS.name}/"], cwd=NOTEBOOKS.parent,
                              capture_output=True, text=True)
    except OSError:  # no git, or no such folder
        return {}
    found = re.findall(rf"^100644 blob (\w+)\t{NOTEBOOKS.name}/([\w.-]+\.ipynb)$", done.stdout, re.MULTILINE)
    return {name: digest for digest, name in found}


def _port(text: str) -> int:
    """A port's number, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 1 to 65535, got {text}")
    return int(text)


def lab(argv: list[str]) -> int:
    """Open JupyterLab on a chapter; with `--check`, start the server, question it and stop it."""
    parser = argparse.ArgumentParser(
        prog="mmcourse lab", description="Open the course in JupyterLab.",
        epilog="A chapter uses two threads; MMCOURSE_THREADS sets another number (1 where much else runs).",
    )  # fmt: skip
    parser.add_argument("notebook", nargs="?", default=FIRST, help="a chapter's number or file (default: 00)")
    parser.add_argument(
        "--check", action="store_true", help="start the server, ask its status, stop, print OK"
    )
    parser.add_argument(
        "--port", type=_port, help="the port on this machine (default: the first free one from 8888)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address instead of opening a browser"
    )
    args = parser.parse_args(argv)
    if importlib.util.find_spec("jupyterlab") is None:
        return usage_error("JupyterLab is not installed here: run `pip install -e . -c constraints.txt` first")
    try:
        notebook = find_notebook(args.notebook)
    except ValueError as error:
        return usage_error(str(error))
    if args.check:
        return _check_server(notebook, args.port)
    _trust()
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
