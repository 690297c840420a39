"""Side by side in one run: this course's vector quantizer and FSQ, and those of `vector-quantize-pytorch` (test extra).

    python tests/benchmarks/vq.py         # prints, and writes data/results/ch03_benchmark.json (six minutes of one core)

One thread. Times are CPU seconds of the quantizer alone (4,096 vectors of 64 numbers, forwards and backwards, training),
each the fastest of some runs; the two take turns. Quality: the chapter's small tokenizer, in which only the quantizer differs.
"""
import json
import platform
import time
from importlib import metadata

import torch
from torch import nn

from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.quantize import FSQ, VectorQuantizer, nearest_code
from mmcourse.studies import ch03_sweep as sweep
from mmcourse.training import Run, train

STEPS = 600
FLOORS = {"step at 512 codes": 3.0, "step at 8192 codes": 5.0}
DEAD = 0.03                                     # of a fair share of a step's tokens: the course's rule for both


class Peer(nn.Module):
    """The library's quantizer with the face of ours: (N, d) -> quantized, indices, loss."""

    def __init__(self, codes: int, dim: int, **options):
        from vector_quantize_pytorch import VectorQuantize
        super().__init__()
        self.codes = codes
        self.inner = VectorQuantize(dim, codes, commitment_weight=0.25, **options)

    def forward(self, x):
        quantized, indices, loss = self.inner(x[None])
        return quantized[0], indices[0], loss.sum()


def matched(codes: int, dim: int, tokens: int) -> Peer:
    """With the options that make it the same algorithm: moving averages at 0.98, restart by the same rule, plain copy."""
    return Peer(codes, dim, decay=0.98, threshold_ema_dead_code=DEAD * tokens / codes, kmeans_init=True,
                kmeans_iters=1, rotation_trick=False)


def seconds(quantizers: dict, x: torch.Tensor, rounds: int = 12) -> dict:
    """CPU seconds of one training step of each quantizer on (N, d): the fastest of some, taken in turns."""
    best = dict.fromkeys(quantizers, float("inf"))
    for turn in range(rounds + 3):
        for name, quantizer in quantizers.items():
            x.grad = None
            start = time.process_time()
            out, _, loss = quantizer(x)
            (out.square().mean() + loss).backward()
            spent = time.process_time() - start
            if turn >= 3:                                              # the first steps fill the codebook
                best[name] = min(best[name], spent)
    return best


def speed() -> dict:
    """Milliseconds a step, ours and theirs, and the ratio."""
    from vector_quantize_pytorch import FSQ as PeerFSQ
    out = {}
    for codes in (512, 8192):
        torch.manual_seed(0)
        x = torch.randn(4096, 64, requires_grad=True)
        times = seconds({"ours": VectorQuantizer(codes, 64).train(), "peer": matched(codes, 64, 4096).train(),
                         "peer, its own defaults": Peer(codes, 64).train()}, x)
        out[f"step at {codes} codes"] = ratios(times)
    torch.manual_seed(0)
    x, theirs = torch.randn(4096, 3, requires_grad=True), PeerFSQ((8, 8, 8), preserve_symmetry=True)

    def peer(x):
        q, i = theirs(x[None])
        return q[0], i[0], x.new_zeros(())
    out["step of FSQ 8, 8, 8"] = ratios(seconds({"ours": FSQ((8, 8, 8)), "peer": peer}, x, rounds=40))
    return out


def ratios(times: dict) -> dict:
    """Milliseconds, and how many times longer the peers take."""
    found = {f"{name}, ms": round(1000 * s, 2) for name, s in times.items()}
    return found | {f"{name} / ours": round(s / times["ours"], 2) for name, s in times.items() if name != "ours"}


@torch.no_grad()
def same_indices() -> dict:
    """The share of equal indices when both hold the same codebook."""
    from vector_quantize_pytorch import FSQ as PeerFSQ
    out = {}
    for codes in (512, 8192):
        torch.manual_seed(codes)
        peer, x = Peer(codes, 16).eval(), torch.randn(20000, 16)
        book = torch.randn(codes, 16)
        peer.inner._codebook.embed.data.copy_(book[None])
        out[f"VQ {codes}"] = (peer(x)[1] == nearest_code(x, book)).float().mean().item()
    for levels in sweep.LEVELS.values():
        x = 2 * torch.randn(20000, len(levels))
        theirs = PeerFSQ(levels, preserve_symmetry=True)(x[None])[1][0]
        out[f"FSQ {levels}"] = (theirs == FSQ(levels)(x)[1]).float().mean().item()
    return out


def quality(name: str, make) -> dict:
    """PSNR and usage on held-out pictures after the same steps, pictures and first weights of the network."""
    torch.manual_seed(0)
    model = sweep.Tokenizer(make(), 16)
    torch.manual_seed(0)                                               # the quantizers draw different amounts of noise
    fresh = sweep.Tokenizer(VectorQuantizer(512, 16), 16)
    model.encoder.load_state_dict(fresh.encoder.state_dict())
    model.decoder.load_state_dict(fresh.decoder.state_dict())
    history = train(model, sweep.batch, sweep.letter_loss, steps=STEPS, optim=Optim(lr=sweep.LR),
                    run=Run(seed=0, progress=False))
    _, truth = sweep.held_out()
    with torch.no_grad():
        parts = [model(x) for x in truth[:512].split(32)]
    pictures, ids = (torch.cat([p[i] for p in parts]) for i in (0, 1))
    found = {"psnr_db": round(-10 * (pictures.clamp(0, 1) - truth[:512]).square().mean().log10().item(), 2),
             "codes_used": len(ids.unique()), "cpu_minutes": round(history.cpu_minutes, 2)}
    print(f"{name}: {found}", flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    result = {"python": platform.python_version(), "torch": torch.__version__, "threads": 1, "steps": STEPS,
              "batch": sweep.BATCH, "peer": "vector-quantize-pytorch " + metadata.version("vector-quantize-pytorch")}
    result["equal indices"] = same_indices()
    result["speed"] = speed()
    print(json.dumps({k: result[k] for k in ("equal indices", "speed")}, indent=1), flush=True)
    tokens = 64 * sweep.BATCH
    makers = {"ours": lambda: VectorQuantizer(512, 16), "peer, same rule": lambda: matched(512, 16, tokens),
              "peer, k-means, threshold 2 as its manual says":
                  lambda: Peer(512, 16, kmeans_init=True, threshold_ema_dead_code=2)}
    q = result["quality"] = {name: quality(name, make) for name, make in makers.items()}
    peers = [v for name, v in q.items() if name != "ours"]
    met = {f"{name}: {floor:g}x as fast": result["speed"][name]["peer / ours"] >= floor for name, floor in FLOORS.items()}
    met["PSNR within 0.2 dB of the better peer, or better"] = q["ours"]["psnr_db"] >= max(p["psnr_db"] for p in peers) - 0.2
    met["as many codes used as the better peer"] = q["ours"]["codes_used"] >= max(p["codes_used"] for p in peers)
    met["equal indices"] = min(result["equal indices"].values()) == 1.0
    result["met"] = met
    for name, value in met.items():
        print(f"{'met   ' if value else 'MISSED'} {name}")
    sweep.save(result, RESULTS / "ch03_benchmark.json")


if __name__ == "__main__":
    main()
