"""Side by side: this course's transformer, a GPT of the usual kind from torch's own layers, and Hugging Face.

    python tests/benchmarks/transformer.py    # prints, and writes data/results/ch05_benchmark.json (five minutes)

One thread; `pip install transformers` for the last comparison, which is left out without it. Times are CPU
seconds. Whatever is compared takes turns, and each has its fastest turn, so that a busy machine slows all
alike. The peer is what nanoGPT (Karpathy, 2022) trains: learned positions, pre-norm, GELU, no biases, one
matrix for the embedding and the output.
"""
from functools import partial
from importlib import metadata, util

import torch
import torch.nn.functional as F
from common import conclude, fastest, one_thread
from torch import nn

from mmcourse.generate import generate
from mmcourse.transformer import KVCache, Transformer, next_token_loss
from mmcourse.vocabulary import OPEN, Segment, Vocabulary

CONTEXT = 256                                   # tokens
BATCH = 16
SIZES = {"1 M": (128, 4, 4), "3 M": (192, 6, 6), "10 M": (320, 8, 8)}           # width, layers, heads
REAL = Vocabulary(1024)                         # as large as that of the reference model
LONG = Vocabulary(1024, image_tokens=250)       # a picture that fills the context
FLOORS = {"training": 1.0, "share of peak": {"1 M": 0.5, "3 M": 0.55, "10 M": 0.65},
          "cache": {1: 3.0, 16: 12.0}, "Hugging Face": 1.4, "picture, s": 1.5, "word, s": 0.5}


class PeerBlock(nn.Module):
    """Attention and GELU, both behind a norm: (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.three, self.mix = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width, bias=False), nn.GELU(),
                                  nn.Linear(4 * width, width, bias=False))

    def forward(self, x):
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for part in self.three(self.before(x)).chunk(3, 2))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)         # (B, heads, T, C / heads)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))
        return x + self.feed(self.between(x))


class Peer(nn.Module):
    """A GPT-2-like model: ids (B, T) -> logits (B, T, vocab)."""

    def __init__(self, vocab: int, width: int, layers: int, heads: int, context: int):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(PeerBlock(width, heads) for _ in range(layers)))
        self.last, self.out = nn.LayerNorm(width, bias=False), nn.Linear(width, vocab, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, ids):
        return self.out(self.last(self.blocks(self.tokens(ids) + self.places(torch.arange(ids.shape[1])))))


def peer_loss(model: Peer, ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def ours(width: int, layers: int, heads: int) -> Transformer:
    torch.manual_seed(0)
    return Transformer(REAL.size, width, layers, heads, CONTEXT, tuple(OPEN.values()))


def sgemm(n: int = 1024):
    """A product of two square matrices: (a call, its floating-point operations)."""
    a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    return lambda: torch.mm(a, b, out=out), 2 * n**3


def work(width: int, layers: int) -> float:
    """Floating-point operations of one training step in matrix products, forward and back; masked scores
    count as not done."""
    tokens = BATCH * CONTEXT
    weights = layers * 12 * width**2 + width * REAL.size
    return 6 * tokens * weights + 6 * tokens * layers * width * CONTEXT        # 12 for all pairs: half are masked


def training() -> dict:
    """Tokens a second of one training step (loss, gradients, clipping, AdamW), and the share of the measured
    sgemm peak."""
    out = {}
    ids = torch.randint(7, REAL.size, (BATCH, CONTEXT + 1))
    for name, shape in SIZES.items():
        models = {"ours": (ours(*shape), next_token_loss), "peer": (Peer(REAL.size, *shape, CONTEXT), peer_loss)}
        jobs = {}
        for who, (model, loss) in models.items():
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

            def step(model=model, loss=loss, optimizer=optimizer):
                loss(model, ids).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            jobs[who] = step
        jobs["sgemm"], operations = sgemm()
        best = fastest(jobs, rounds=10)
        peak = operations / best["sgemm"]
        count = sum(p.numel() for p in models["ours"][0].parameters())
        out[name] = {"parameters": count, "tokens/s, ours": round(BATCH * CONTEXT / best["ours"]),
                     "tokens/s, peer": round(BATCH * CONTEXT / best["peer"]),
                     "ours / peer": round(best["peer"] / best["ours"], 3),
                     "sgemm, GFLOP/s": round(peak / 1e9, 1)}
        for who in models:
            out[name][f"share of peak, {who}"] = round(work(*shape[:2]) / best[who] / peak, 3)
        print(name, out[name], flush=True)
    return out


@torch.no_grad()
def greedy(model: Transformer, batch: int, use_cache: bool, tokens: int = CONTEXT - 1) -> torch.Tensor:
    """The most probable tokens, one after the other, until the context is full: (batch, 1 + tokens)."""
    ids = new = torch.arange(7, 7 + batch)[:, None]
    cache = KVCache(model, batch) if use_cache else None
    for _ in range(tokens):
        token = model(new, cache)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], 1)
        new = token if use_cache else ids
    return ids


def writing() -> dict:
    """Seconds to fill the context with and without the cache; the same tokens?"""
    model, out = ours(*SIZES["3 M"]), {}
    with torch.no_grad():
        for p in model.parameters():                                   # opinions: a fresh model repeats itself
            if p.ndim == 2:
                p.mul_(4)
    for batch, rounds in ((1, 3), (16, 1)):
        found = {}

        def write(name, batch=batch, found=found):
            found[name] = greedy(model, batch, name == "cache")
        write("cache")                                         # to warm up; the naive way takes too long for that
        best = fastest({name: partial(write, name) for name in ("cache", "naive")}, rounds, warm_up=0)
        out[f"batch {batch}"] = {"naive, s": round(best["naive"], 3), "cache, s": round(best["cache"], 3),
                                 "naive / cache": round(best["naive"] / best["cache"], 2),
                                 "identical": torch.equal(found["cache"], found["naive"]),
                                 "different tokens": len(found["cache"][:, 1:].unique())}
        print(f"batch {batch}", out[f"batch {batch}"], flush=True)
    out["identical"] = all(row["identical"] for row in out.values())
    return out


def hugging_face() -> dict | None:
    """Seconds for 250 tokens: the course's `generate`, masks and all, and GPT-2 of the same size with HF's
    `generate`."""
    if not util.find_spec("transformers"):
        return None
    from transformers import GPT2Config, GPT2LMHeadModel
    width, layers, heads = SIZES["3 M"]
    model = ours(width, layers, heads)
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(
        vocab_size=REAL.size, n_positions=CONTEXT + 8, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0,
        embd_pdrop=0, attn_pdrop=0, bos_token_id=1, eos_token_id=None)).eval()
    out = {"transformers": metadata.version("transformers")}
    for batch, rounds in ((1, 20), (16, 6)):
        start = torch.ones(batch, 1, dtype=torch.long)
        options = {"max_new_tokens": 251, "min_new_tokens": 251, "do_sample": False, "use_cache": True,
                   "pad_token_id": 0}

        def peer(start=start, options=options):
            with torch.no_grad():
                assert theirs.generate(start, attention_mask=torch.ones_like(start), **options).shape[1] == 252

        def mine(batch=batch):
            assert len(generate(model, LONG, [[]] * batch, "image", temperature=0)[0].ids) == 250
        best = fastest({"ours": mine, "peer": peer}, rounds)
        out[f"batch {batch}"] = {"ours, s": round(best["ours"], 3), "Hugging Face, s": round(best["peer"], 3),
                                 "Hugging Face / ours": round(best["peer"] / best["ours"], 2)}
        print(f"batch {batch}", out[f"batch {batch}"], flush=True)
    return out


def answers() -> dict:
    """CPU seconds of one core for one picture from text, guided, one try, and for one word, spoken or
    written."""
    model, out = ours(*SIZES["3 M"]), {}
    caption, sound = Segment("text", tuple(range(20))), Segment("audio", tuple(i % 9 for i in range(48)))
    picture = partial(generate, model, REAL, want="image", guidance=1.5, seed=0)
    jobs = {"picture, s": lambda: picture([[caption]]),
            "picture, best of eight tried together, s": lambda: picture([[caption]] * 8),
            "spoken word, s": lambda: generate(model, REAL, [[caption]], "audio", limit=48, seed=0),
            "word, s": lambda: generate(model, REAL, [[sound]], "text", limit=8, seed=0)}
    for name, seconds in fastest(jobs, 4).items():
        out[name] = round(seconds, 3)
    return out


def main() -> None:
    result = {**one_thread(), "batch": BATCH, "context": CONTEXT, "vocabulary": REAL.size}
    result["training"] = training()
    result["writing"] = writing()
    result["Hugging Face"] = hugging_face()
    result["answers"] = answers()
    print(result["answers"])
    conclude("ch05_benchmark", result, verdicts(result))


def verdicts(result: dict) -> dict[str, bool]:
    """Which floors are met."""
    met = {}
    for size, row in result["training"].items():
        met[f"training at {size}: {FLOORS['training']:g}x the peer"] = row["ours / peer"] >= FLOORS["training"]
        met[f"training at {size}: {FLOORS['share of peak'][size]:g} of sgemm"] = \
            row["share of peak, ours"] >= FLOORS["share of peak"][size]
    met["greedy output with the cache is identical"] = result["writing"]["identical"]
    for batch, floor in FLOORS["cache"].items():
        met[f"cache at batch {batch}: {floor:g}x naive"] = result["writing"][f"batch {batch}"]["naive / cache"] >= floor
    floor = FLOORS["Hugging Face"]
    for name, row in (result["Hugging Face"] or {}).items():
        if name.startswith("batch"):
            met[f"generate at {name}: {floor:g}x Hugging Face"] = row["Hugging Face / ours"] >= floor
    met["a picture from text in under 1.5 s"] = result["answers"]["picture, s"] < FLOORS["picture, s"]
    words = max(result["answers"][k] for k in ("word, s", "spoken word, s"))
    return {**met, "a word in under 0.5 s": words < FLOORS["word, s"]}


if __name__ == "__main__":
    main()
