"""Trains the demo network: AdamW with warm-up and a cosine, averaged weights, growing pictures.

    python train.py --out /tmp/demo [--steps 6500] [--threads 2]

writes `weights.pt` (averaged weights) every few hundred steps and at the end; an interrupted run goes on from
`last.pt`. The first part of the training sees the scenes at smaller sizes, which cost a fraction of the full size.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import shapes
from dataset import cached
from loss import detection_loss
from network import Network
from scenes import SEED, SIZE

N_SCENES = 10_000
BATCH = 16
PEAK_LR, WEIGHT_DECAY = 4e-3, 0.02
WARM_UP = 300
EMA_DECAY, EMA_RAMP = 0.998, 400
CLIP = 10.0
SAVE_EVERY = 250
# (share of the training, side of the input in pixels)
SIZES = ((0.45, 160), (0.80, 224), (1.0, SIZE))


def size_at(progress: float) -> int:
    """Side of the input at a share of the training."""
    return next(size for until, size in SIZES if progress < until or until == 1.0)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to one hundredth."""
    if step < WARM_UP:
        return PEAK_LR * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return PEAK_LR * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def augment(images: Tensor, labels: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors, turns by quarters, exchanges and rescales colours, and resizes a batch.

    `images` [B, 3, H, H] in 0..1, `labels` [B, M, 5] in pixels of H; both are changed in place where possible.
    """
    side = images.shape[-1]
    for i in range(len(images)):
        x1, y1, x2, y2 = labels[i, :, 1:].unbind(1)
        if rng.random() < 0.5:
            images[i] = images[i].flip(-1)
            x1, x2 = side - x2, side - x1
        if rng.random() < 0.5:
            images[i] = images[i].flip(-2)
            y1, y2 = side - y2, side - y1
        if rng.random() < 0.5:
            images[i] = images[i].transpose(-1, -2).clone()
            x1, y1, x2, y2 = y1, x1, y2, x2
        labels[i, :, 1:] = torch.stack((x1, y1, x2, y2), 1)
        images[i] = images[i][torch.from_numpy(rng.permutation(3))]
        images[i] = (images[i] * float(rng.uniform(0.8, 1.2)) + float(rng.uniform(-0.08, 0.08))).clamp(0, 1)
    if size != side:
        images = F.interpolate(images, size=(size, size), mode="area" if size * 2 <= side else "bilinear",
                               antialias=size * 2 > side)
        labels[..., 1:] *= size / side
    return images, labels


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo network.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    pictures, labels = cached(args.out, "train", N_SCENES, args.threads)

    net = Network(len(shapes.NAMES)).to(memory_format=torch.channels_last)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}], lr=PEAK_LR)
    first = 0
    last = args.out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    net.train()
    start, running = time.time(), 0.0
    for step in range(first, args.steps):
        # Each step draws from a generator of its own, so that a resumed run sees what an unbroken one would.
        rng = np.random.default_rng((SEED, step))
        chosen = np.sort(rng.choice(N_SCENES, BATCH, replace=False))
        images = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float().div_(255)
        images, targets = augment(images, torch.from_numpy(labels[chosen]), size_at(step / args.steps), rng)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps)
        box, cls = net(images.contiguous(memory_format=torch.channels_last))
        loss = detection_loss(box, cls, targets, images.shape[-1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        with torch.no_grad():
            rate = 1 - EMA_DECAY * (1 - math.exp(-(step + 1) / EMA_RAMP))
            for mean, now in zip(ema.state_dict().values(), net.state_dict().values()):
                mean.lerp_(now, rate) if mean.dtype.is_floating_point else mean.copy_(now)
        running += loss.item()
        if (step + 1) % 50 == 0:
            seconds = (time.time() - start) / (step + 1 - first)
            print(f"step {step + 1}/{args.steps} side {images.shape[-1]} loss {running / 50:.3f} "
                  f"{seconds:.2f} s a step", flush=True)
            running = 0.0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == args.steps:
            torch.save({"net": net.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict(),
                        "step": step + 1}, last)
            torch.save(ema.state_dict(), args.out / "weights.pt")


if __name__ == "__main__":
    main()
