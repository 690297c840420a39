"""Processes that a notebook starts: what they print comes back, what fails is said, and none is left."""
import os
import subprocess
import sys
import time

import pytest

from mmcourse.experiments.processes import launch, stop, without_traceback

MEET = "import os, time, torch\nfrom mmcourse.distributed import join, leave, rank, summed\njoin()\n"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def gone(pids, seconds: float = 8) -> bool:
    """Whether they end soon."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(alive, pids))


def test_what_rank_0_prints_comes_back():
    script = MEET + "print(rank(), summed(torch.ones(2) + rank()).tolist(), os.environ['OMP_NUM_THREADS'])\nleave()"
    assert launch(script) == "0 [3.0, 3.0] 1\n"


def test_the_process_that_failed_is_named_with_its_line():
    with pytest.raises(RuntimeError) as raised:
        launch(MEET + "if rank() == 1:\n    raise ValueError('one is too many')\nsummed(torch.ones(1))")
    said = str(raised.value)
    assert said.startswith("rank 1 failed:\nTraceback") and said.rstrip().endswith("ValueError: one is too many")
    assert 'File "script", line 5' in said and "runpy" not in said and "/tmp" not in said


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks /proc who lives")
def test_who_waits_for_ever_is_ended(tmp_path):
    script = MEET + f"open({str(tmp_path)!r} + f'/{{rank()}}', 'w').write(str(os.getpid()))\nprint('so far', flush=True)\n" \
        "if rank() == 0:\n    summed(torch.ones(1))\ntime.sleep(300)"
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="2 processes were not ready in 30 seconds.*Rank 0 had printed: so far"):
        launch(script, timeout=30)
    pids = [int((tmp_path / name).read_text()) for name in "01"]
    assert gone(pids) and time.monotonic() - began < 50


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks /proc who lives")
def test_a_process_ends_with_its_parent(tmp_path):
    """Where torchrun itself is killed."""
    (tmp_path / "script.py").write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)")
    starter = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-m', 'mmcourse.experiments.processes', {str(tmp_path / 'script.py')!r}]); time.sleep(300)"
    parent = subprocess.Popen([sys.executable, "-c", starter])
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    assert gone([int((tmp_path / "pid").read_text())])


def test_torchrun_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr("mmcourse.experiments.processes.GRACE", 0.2)
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); "
                              "time.sleep(300)"], stdout=subprocess.PIPE)
    child.stdout.readline()
    stop(child)
    assert child.poll() not in (None, 0)
    child.stdout.close()


def test_a_process_that_says_nothing():
    said = without_traceback("out of memory\nW1 torch/distributed/run.py hello\nTraceback (most recent call last):\n  exitcode  : -9 (pid: 3)")
    assert said == "a process ended with exit code -9\nout of memory"


@pytest.mark.parametrize("processes", [0, 1.5, "2", 65])
def test_a_number_of_processes_that_is_none(processes):
    with pytest.raises(ValueError, match="processes is"):
        launch("", processes)
