"""For every test: no network beyond this machine, and no more threads than the machine can bear."""

import ipaddress
import os
import signal
import socket
import threading

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MMCOURSE_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

# A shell's background job starts with Ctrl-C ignored; the tests of Ctrl-C need it as a person at a keyboard has it.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
