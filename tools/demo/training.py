"""What all trainings have in common: the optimiser, its pace, averaged weights, and going on after an interruption."""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Callable

import torch
from torch import Tensor, nn

from scenes import SEED

WEIGHT_DECAY = 0.02
WARM_UP = 300
EMA_DECAY, EMA_RAMP = 0.998, 400
CLIP = 10.0
SAVE_EVERY = 250


def begin(description: str, steps: int, from_detector: bool = True) -> argparse.Namespace:
    """The arguments of a trainer, after what every training begins with.

    One that starts from the detector is told of its weights, and of the folder of the scenes that it has drawn.
    """
    parser = argparse.ArgumentParser(description=description)
    if from_detector:
        parser.add_argument("--detector", type=Path, required=True)
        parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def size_at(progress: float, sizes: tuple[tuple[float, int], ...]) -> int:
    """Side of the input in pixels at a share of the training; `sizes` holds (share until which it holds, side)."""
    return next(size for until, size in sizes if progress < until)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to one hundredth."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _average(mean: nn.Module, now: nn.Module, rate: float) -> None:
    """Moves the weights of `mean` towards those of `now`; weights that modules share move once."""
    pairs = list(zip(mean.parameters(), now.parameters())) + list(zip(mean.buffers(), now.buffers()))
    for target, value in pairs:
        target.lerp_(value, rate) if target.dtype.is_floating_point else target.copy_(value)


def train(net: nn.Module, loss_of: Callable[[nn.Module, int], Tensor], steps: int, peak: float, out: Path) -> nn.Module:
    """Trains `net` and returns its averaged weights.

    `loss_of(net, step)` gives the loss of a step; it has to be a function of the step alone, so that a resumed run sees
    what an unbroken one would. Writes `weights.pt` (averaged weights) and `last.pt` (everything, from which an
    interrupted run goes on) into `out` every `SAVE_EVERY` steps and at the end.
    """
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}], lr=peak)
    first, last = 0, out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    net.train()
    start, running = time.time(), 0.0
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = loss_of(net, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        with torch.no_grad():
            _average(ema, net, 1 - EMA_DECAY * (1 - math.exp(-(step + 1) / EMA_RAMP)))
        running += loss.item()
        if (step + 1) % 50 == 0:
            seconds = (time.time() - start) / (step + 1 - first)
            print(f"step {step + 1}/{steps} loss {running / 50:.3f} {seconds:.2f} s a step", flush=True)
            running = 0.0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            torch.save({"net": net.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict(),
                        "step": step + 1}, last)
            torch.save(ema.state_dict(), out / "weights.pt")
    return ema
