"""For every test: a cache of its own, no network, the same dice each time, no more threads than the machine can bear."""
import contextlib
import ipaddress
import os
import random
import signal
import socket
import threading

import hypothesis
import pytest

from mmcourse.cli.test import own_cache

# Before anything imports torch, which reads some of these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MMCOURSE_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

# Nothing that lies in a user's cache (recordings of people, half a training run) may change what the tests do. Workers of
# pytest-xdist inherit the folder that the first process chose, as does whoever starts pytest with MMCOURSE_TEST_CACHE.
_of_this_process = contextlib.ExitStack()
if "MMCOURSE_TEST_CACHE" not in os.environ:
    os.environ["MMCOURSE_TEST_CACHE"] = str(_of_this_process.enter_context(own_cache()))
os.environ["MMCOURSE_CACHE"] = os.environ["MMCOURSE_TEST_CACHE"]

# The same examples each time, so that no test fails by chance. `mmcourse test --random` draws others.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("random", derandomize=False, print_blob=True, deadline=None)
hypothesis.settings.load_profile("random" if os.environ.get("MMCOURSE_TEST_RANDOM") else "fixed")

# A shell's background job starts with Ctrl-C ignored; the tests of Ctrl-C need it as a person at a keyboard has it.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config):
    """The folder that this process made goes with it."""
    _of_this_process.close()


@pytest.fixture(autouse=True)
def seeded():
    """Every test begins with the same dice, whatever ran before it."""
    import numpy as np
    import torch
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def is_here(address) -> bool:
    """True for loopback and for what is no internet address at all (a Unix socket)."""
    if not isinstance(address, tuple) or address[0] in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(address[0].split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The course works offline: a test that asks for another machine fails, wherever in a library it happens."""
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)

        def guarded(self, address, real=real):
            if not is_here(address):
                raise OSError(f"the tests open no network connection, but something asked for {address}")
            return real(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)


@pytest.fixture(scope="session")
def random_codec():
    """An untrained codec with random codes: shapes and errors do not need a good one."""
    import torch

    from mmcourse.codec import AudioCodec

    torch.manual_seed(0)
    model = AudioCodec(width=16, dim=8, codebook_size=32).eval()
    for book in model.codebooks:
        book.normal_()
    return model


@pytest.fixture(scope="session")
def parts():
    """Tiny untrained tokenizers and transformer that fit together, as the arguments of an `Assistant`."""
    import torch

    from mmcourse.bpe import BPETokenizer
    from mmcourse.codec import AudioCodec
    from mmcourse.paths import CHECKPOINTS
    from mmcourse.transformer import Transformer
    from mmcourse.vocabulary import OPEN, Vocabulary
    from mmcourse.vqvae import VQVAE

    torch.manual_seed(0)
    bpe = BPETokenizer.load(CHECKPOINTS / "bpe.json")
    vocabulary = Vocabulary(bpe.vocab_size, image=32, audio=16, audio_levels=2)
    transformer = Transformer(vocabulary.size, width=16, layers=1, heads=2, context=256, segment_starts=tuple(OPEN.values()))
    codec = AudioCodec(width=16, dim=8, codebook_size=16, levels=2).eval()
    return bpe, VQVAE(codebook_size=32, dim=4, width=16).eval(), codec, transformer.eval(), vocabulary


@pytest.fixture(scope="module")
def tiny(parts):
    from mmcourse.assistant import Assistant

    return Assistant(*parts)


@pytest.fixture(scope="module")
def few_talks(tmp_path_factory):
    """Conversations of the validation split with their pictures and sounds, in a cache of their own."""
    pytest.importorskip("skimage")
    from mmcourse.experiments.conversations import Conversations
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Conversations("validation", 24, 2, progress=False)
