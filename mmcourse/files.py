"""Files written whole or not at all, by one at a time; and the results that scripts of this repository have measured."""
import contextlib
import errno
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from mmcourse.paths import RESULTS, cache_home

DAY = 24 * 3600                                         # seconds
NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
DISK = (*NO_ROOM, errno.EROFS, errno.EIO, errno.EFBIG)  # what a disk says, whichever file was meant


@contextlib.contextmanager
def atomic_write(path) -> Iterator[Path]:
    """A path to write to in place of `path`, which gets the new content only when the block ends without an error.

    A crash, a full disk or Ctrl-C leaves the old file whole. The draft lies beside it under a name of its own (two
    processes may write at once), and is gone in the end; what a killed process left is cleared away a day later.

    >>> with atomic_write("table.json") as draft:                                # doctest: +SKIP
    ...     draft.write_text("{}")
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    with named_error(path, draft, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f".{path.name}.*.part{path.suffix}"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > DAY:
                    old.unlink()
        try:
            draft.touch()                               # so that it has the mode that the user's files have
            yield draft
            os.replace(draft, path)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


@contextlib.contextmanager
def named_error(path: Path, *meant: Path) -> Iterator[None]:
    """A disk's refusal as one sentence that names `path`; so that of the files `meant`. Other errors pass as they are."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error             # a zip that cannot be closed hides the full disk behind it
        while cause and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None or cause.errno not in DISK and cause.filename not in map(str, meant):
            raise
        hint = "; make room on that disk" if cause.errno in NO_ROOM else ""
        with contextlib.suppress(OSError):
            if cache_home() in path.absolute().parents:
                hint += "; MMCOURSE_CACHE names another folder for what is made"
        raise OSError(cause.errno, f"{path} could not be written ({cause.strerror}){hint}") from None


@contextlib.contextmanager
def locked(path, wait: bool = True) -> Iterator[None]:
    """While the block lasts, nobody else who asks has `path`. The lock dies with its process.

    BlockingIOError if `wait` is false and somebody has it. (It is a file beside it, removed in the end. On a disk that
    knows no locks the block runs without one.)
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    with named_error(path, lock, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(lock, "ab")
            taken = _take(file)
            with contextlib.suppress(FileNotFoundError):            # who had it may have removed it meanwhile
                if taken and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                    break
            file.close()
            if not taken and not wait:
                raise BlockingIOError(errno.EAGAIN, f"{path} is in use by another process")
            time.sleep(0.01)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        file.close()


def _take(file) -> bool:
    """Lock an open file if nobody has; true too where the disk knows no locks."""
    try:
        if os.name == "nt":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def write_bytes(path, content: bytes) -> None:
    """A file of bytes, atomically."""
    with atomic_write(path) as draft:
        draft.write_bytes(content)


def write_text(path, text: str) -> None:
    """A text file in UTF-8 with line feeds, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path, content, indent: int | None = 1) -> None:
    """A JSON file, atomically. ValueError for NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path):
    """The content of a JSON file; ValueError that names the file if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON any more ({error}): restore it with git") from None


def results(name: str):
    """What a script of this repository has measured: data/results/NAME.json. FileNotFoundError says how to make it."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"nothing was measured under {name!r} yet ({path}): run `mmcourse study {name}`, "
                                "or restore data/results with git")
    return read_json(path)
