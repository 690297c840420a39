"""A script in several processes, started from a notebook and ended with it (chapter 14)."""
import os
import re
import runpy
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from mmcourse.checks import check_whole
from mmcourse.distributed import Place
from mmcourse.paths import PACKAGE

GRACE = 10              # seconds in which torchrun may end its processes before it is killed itself


def launch(script: str, processes: int = 2, timeout: float = 120) -> str:
    """Run a script in several processes of this machine, a thread each, and return what rank 0 printed.

    Args:
        script: Python, as a file would have it; it calls `mmcourse.distributed.join()` to meet the others.
        timeout: seconds for all of it; torchrun, and torch once more in each process, take some five to begin.

    RuntimeError with the traceback of the process that failed first, TimeoutError with what was printed so far. However it
    ends, no process is left.
    """
    check_whole(processes, "processes", 64)
    with tempfile.TemporaryDirectory() as folder:
        file, out, err = (Path(folder, name) for name in ("script.py", "out.txt", "err.txt"))
        file.write_text(script, "utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "-m", "mmcourse.experiments.processes", str(file)]
        path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            child = subprocess.Popen(command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL,
                                     env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
            try:
                code = child.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                stop(child)
        printed = out.read_text("utf-8", "replace")
        if code == 0:
            return printed
        if code is None:
            raise TimeoutError(f"{processes} processes were not ready in {timeout:g} seconds, and were ended: does one wait for "
                               f"a message that another never sends? Rank 0 had printed: {printed or 'nothing'}")
        failures = sorted(Path(folder).glob("rank*.txt"), key=lambda path: path.stat().st_mtime_ns)
        raise RuntimeError(failures[0].read_text("utf-8") if failures else without_traceback(err.read_text("utf-8", "replace")))


def without_traceback(stderr: str) -> str:
    """What is known of processes that ended without one: their exit code, and what they said before torchrun spoke."""
    codes = re.findall(r"exitcode +: (-?\d+)", stderr)
    said = [line for line in stderr.splitlines() if "torch/distributed" not in line][:20]
    said = said[:next((i for i, line in enumerate(said) if line.startswith("Traceback")), len(said))]
    return "\n".join([f"a process ended with exit code {codes[-1] if codes else 'unknown'}", *said])


def stop(child: subprocess.Popen) -> None:
    """End torchrun, which ends its processes; those that it leaves behind end by themselves (`watch`)."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def watch() -> None:
    """End this process when its parent is gone."""
    parent = os.getppid()

    def look():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)
    threading.Thread(target=look, daemon=True).start()


def main(file: str) -> None:
    """What each process does: the script, silently but in rank 0. What fails is written beside it, for `launch`."""
    rank = Place.of().rank
    watch()
    if rank:
        sys.stdout = open(os.devnull, "w")
    try:
        runpy.run_path(file, run_name="__main__")
    except Exception as error:
        trace = error.__traceback__
        while trace.tb_next and trace.tb_frame.f_code.co_filename != file:      # what is above the script tells nothing
            trace = trace.tb_next
        said = "".join(traceback.format_exception(type(error), error, trace)).replace(file, "script")
        Path(file).with_name(f"rank{rank}.txt").write_text(f"rank {rank} failed:\n{said}", "utf-8")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1])
