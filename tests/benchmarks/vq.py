"""Side by side: this course's vector quantizer and FSQ, and those of `vector-quantize-pytorch` (test extra).

    python tests/benchmarks/vq.py    # prints, and writes data/results/ch03_benchmark.json (six minutes)

One thread. Times are CPU seconds of the quantizer alone (4,096 vectors of 64 numbers, forwards and backwards,
training), each the fastest of some runs; the two take turns. Quality: the chapter's small tokenizer, in which
only the quantizer differs.
"""
from functools import partial
from importlib import metadata

import torch
from common import conclude, fastest, one_thread
from torch import nn

from mmcourse.judges.metrics import pooled_psnr
from mmcourse.optim import Optim
from mmcourse.quantize import FSQ, VectorQuantizer, nearest_code
from mmcourse.studies import ch03_sweep as sweep
from mmcourse.studies._ch03 import batch_of, held_out, letter_loss
from mmcourse.training import Run, train

STEPS = 600
BATCH, LR = sweep.Plan().batch, sweep.Plan().lr
PICTURES = 512                                  # held out
FLOORS = {"step at 512 codes": 3.0, "step at 8192 codes": 5.0}
DEAD = 0.03                                     # of a fair share of a step's tokens: the course's rule for both


class Peer(nn.Module):
    """The library's quantizer with the face of ours: (N, d) -> quantized, indices, loss."""

    def __init__(self, codes: int, dim: int, **options):
        from vector_quantize_pytorch import VectorQuantize
        super().__init__()
        self.codebook_size = codes
        self.inner = VectorQuantize(dim, codes, commitment_weight=0.25, **options)

    def forward(self, x):
        quantized, indices, loss = self.inner(x[None])
        return quantized[0], indices[0], loss.sum()


def matched(codes: int, dim: int, tokens: int) -> Peer:
    """With the options that make it the same algorithm: EMA at 0.98, restart by the same rule, plain copy."""
    return Peer(codes, dim, decay=0.98, threshold_ema_dead_code=DEAD * tokens / codes, kmeans_init=True,
                kmeans_iters=1, rotation_trick=False)


def seconds(quantizers: dict, x: torch.Tensor, rounds: int = 12) -> dict:
    """CPU seconds of one training step of each quantizer on (N, d): the fastest of some, taken in turns."""
    def step(quantizer):
        x.grad = None
        out, _, loss = quantizer(x)
        (out.square().mean() + loss).backward()
    return fastest({name: partial(step, quantizer) for name, quantizer in quantizers.items()}, rounds,
                   warm_up=3)                                          # the first steps fill the codebook


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
    torch.manual_seed(0)                                       # the quantizers draw different amounts of noise
    fresh = sweep.Tokenizer(VectorQuantizer(512, 16), 16)
    model.encoder.load_state_dict(fresh.encoder.state_dict())
    model.decoder.load_state_dict(fresh.decoder.state_dict())
    history = train(model, batch_of(BATCH), letter_loss, steps=STEPS, optim=Optim(lr=LR), run=Run(progress=False))
    _, truth = held_out(PICTURES)
    with torch.no_grad():
        parts = [model(x) for x in truth.split(32)]
    pictures, ids = (torch.cat([p[i] for p in parts]) for i in (0, 1))
    found = {"psnr_db": round(pooled_psnr(pictures.clamp(0, 1), truth), 2),
             "codes_used": len(ids.unique()), "cpu_minutes": round(history.cpu_minutes, 2)}
    print(f"{name}: {found}", flush=True)
    return found


def main() -> None:
    result = {**one_thread(), "steps": STEPS, "batch": BATCH,
              "peer": "vector-quantize-pytorch " + metadata.version("vector-quantize-pytorch")}
    result["equal indices"] = same_indices()
    result["speed"] = speed()
    print(result["equal indices"], result["speed"], sep="\n", flush=True)
    tokens = 64 * BATCH
    makers = {"ours": lambda: VectorQuantizer(512, 16), "peer, same rule": lambda: matched(512, 16, tokens),
              "peer, k-means, threshold 2 as its manual says":
                  lambda: Peer(512, 16, kmeans_init=True, threshold_ema_dead_code=2)}
    q = result["quality"] = {name: quality(name, make) for name, make in makers.items()}
    peers = [v for name, v in q.items() if name != "ours"]
    best = {key: max(peer[key] for peer in peers) for key in ("psnr_db", "codes_used")}
    met = {f"{name}: {floor:g}x as fast": result["speed"][name]["peer / ours"] >= floor
           for name, floor in FLOORS.items()}
    met["PSNR within 0.2 dB of the better peer, or better"] = q["ours"]["psnr_db"] >= best["psnr_db"] - 0.2
    met["as many codes used as the better peer"] = q["ours"]["codes_used"] >= best["codes_used"]
    met["equal indices"] = min(result["equal indices"].values()) == 1.0
    conclude("ch03_benchmark", result, met)


if __name__ == "__main__":
    main()
