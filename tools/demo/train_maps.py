"""Trains class maps and distances together, from the weights of the detector, which stay as they are.

    python train_maps.py --detector /tmp/demo/weights.pt --scenes /tmp/demo --out /tmp/demo/maps [--steps 1200]

Writes `semantic.pt` and `depth.pt`; an interrupted run goes on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from augment import Batch, augment, load
from dataset import cached
from maps import SEMANTIC_NAMES, class_maps, log_distances
from network import Maps
from scenes import SEED, SIZE
from training import begin, size_at, train

N_SCENES = 3000
BATCH = 16
PEAK_LR = 4e-3
# (share of the training, side of the input in pixels)
SIZES = ((0.75, 192), (1.0, SIZE))
DEPTH_GAIN = 2.0


def semantic_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of class logits [B, nc, H / s, W / s] and what share of each cell shows each class."""
    classes = F.one_hot(class_maps(batch.labels, batch.owners), len(SEMANTIC_NAMES)).permute(0, 3, 1, 2).float()
    return F.cross_entropy(logits, F.avg_pool2d(classes, classes.shape[-1] // logits.shape[-1]))


def depth_loss(logs: Tensor, batch: Batch) -> Tensor:
    """Mean difference of logarithms of distances [B, 1, h, w], whose outermost values are those of outermost pixels."""
    side = batch.owners.shape[-1]
    at = torch.linspace(0, side - 1, logs.shape[-1]).round().long()
    return (logs[:, 0] - log_distances(batch.labels, batch.owners)[:, at[:, None], at]).abs().mean()


def main() -> None:
    args = begin("Train class maps and distances.", steps=1200)
    scenes = cached(args.scenes, "train", N_SCENES, args.threads)

    maps = Maps(len(SEMANTIC_NAMES))
    own = maps.depth.state_dict()
    known = torch.load(args.detector, weights_only=True)
    trunk = {name: value for name, value in known.items() if int(name.split(".")[1]) < len(maps.trunk)}
    maps.depth.load_state_dict(own | trunk)
    nn.init.constant_(maps.depth.head.head[-1].bias, 2.0)
    maps.to(memory_format=torch.channels_last)

    def loss_of(net: nn.Module, step: int) -> Tensor:
        rng = np.random.default_rng((SEED, 3, step))
        size = size_at(step / args.steps, SIZES)
        batch = augment(load(scenes, np.sort(rng.choice(N_SCENES, BATCH, replace=False))), size, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits, raw = net(batch.images.contiguous(memory_format=torch.channels_last))
        semantic = semantic_loss(logits.float(), batch)
        return semantic + DEPTH_GAIN * depth_loss(net.depth.head.log_distances(raw.float()), batch)

    trained = train(maps, loss_of, args.steps, PEAK_LR, args.out)
    for name in ("semantic", "depth"):
        torch.save(getattr(trained, name).state_dict(), args.out / f"{name}.pt")


if __name__ == "__main__":
    main()
