"""The contrastive loss by tiles beside open_clip's ClipLoss, which holds the matrix of logits: time and memory, one process.

    python -m tests.benchmarks.loss

Time: forward and backward of 4,096 pairs of 1,024 features in float32, by turns, medians; values and gradients are compared.
Memory: each in a process of its own, the peak of resident bytes during forward and backward over those before, as the kernel
counts them; the gradients of the features, which are as large as the features, are part of it. 32,768 pairs by tiles, in
float32 and in bfloat16; the matrix at 8,192 (it grows with the square). Ends with `loss ratio=X.XX`, speed by tiles over theirs.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.loss import contrastive_loss
from model.tiled import tiled_loss

PAIRS, EMBED = 4_096, 1_024
ROUNDS = 3
MEMORY = (
    ("tiled", 32_768, "float32"),
    ("tiled", 32_768, "bfloat16"),
    ("tiled", 8_192, "float32"),
    ("open_clip", 8_192, "float32"),
)
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def load_peer() -> Loss:
    """open_clip's loss module alone: the package would bring torchvision."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None, "open_clip_torch is missing: `make bench` installs it"
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(str(package.origin)).with_name("loss.py"))
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClipLoss()


def make_features(pairs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows, texts near their images, and a scale; leaves."""
    generator = torch.Generator().manual_seed(0)
    features = []
    for _ in range(2):
        rows = torch.empty(pairs, EMBED, dtype=dtype)
        for block in rows.split(1024):
            block.copy_(F.normalize(torch.randn(block.shape, generator=generator), dim=-1))
        features.append(rows.requires_grad_())
    return features[0], features[1], torch.tensor(100.0, requires_grad=True)


def step(loss: Loss, leaves: tuple[Tensor, Tensor, Tensor]) -> float:
    """Forward and backward.  -> the loss"""
    for leaf in leaves:
        leaf.grad = None
    value = loss(*leaves)
    value.backward()
    return value.item()


def status(name: str) -> int:
    """Bytes of a line of this process's status: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure_memory(name: str, pairs: int, dtype: str) -> None:
    """Print what one step takes, in bytes: in a process of its own."""
    loss = tiled_loss if name == "tiled" else load_peer()
    step(loss, make_features(64, getattr(torch, dtype)))  # what a first call allocates for ever
    leaves = make_features(pairs, getattr(torch, dtype))
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    step(loss, leaves)
    features = sum(leaf.numel() * leaf.element_size() for leaf in leaves[:2])
    print(json.dumps({"extra": status("VmHWM") - before, "features": features}))


def compare_times() -> float:
    """Lines of time.  -> speed by tiles over open_clip's"""
    candidates: dict[str, Loss] = {"tiled": tiled_loss, "softmax": contrastive_loss, "open_clip": load_peer()}
    leaves = make_features(PAIRS, torch.float32)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    results = {}
    for _ in range(ROUNDS):
        for name, loss in candidates.items():
            start = time.process_time()
            value = step(loss, leaves)
            seconds[name].append(time.process_time() - start)
            results[name] = (value, *(leaf.grad.clone() for leaf in leaves if leaf.grad is not None))
    for name in ("softmax", "open_clip"):
        for found, wanted in zip(results["tiled"], results[name], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<10} {median:6.2f} s of CPU  {PAIRS:,} x {EMBED:,} float32, forward and backward", flush=True)
    return medians["open_clip"] / medians["tiled"]


def main() -> None:
    """Print a line for each, then the ratio."""
    torch.set_num_threads(1)
    ratio = compare_times()
    for name, pairs, dtype in MEMORY:
        command = [sys.executable, "-m", "tests.benchmarks.loss", name, str(pairs), dtype]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        share = found["extra"] / found["features"]
        print(f"{name:<10} {found['extra'] / 1e6:8.0f} MB beside {found['features'] / 1e6:.0f} MB of features: {share:.2f} times"
              f"  {pairs:,} x {EMBED:,} {dtype}", flush=True)  # fmt: skip
    print(f"loss ratio={ratio:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_memory(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main()
