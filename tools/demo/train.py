"""Trains the detector from nothing: growing pictures, then everything as in `training.py`.

    python train.py --out /tmp/demo [--steps 6500] [--threads 2]

writes `weights.pt`; an interrupted run goes on from `last.pt`. The first part of the training sees the scenes at
smaller sizes, which cost a fraction of the full size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import shapes
from augment import augment, load
from dataset import cached
from loss import detection_loss
from network import Network
from scenes import SEED, SIZE
from training import begin, size_at, train

N_SCENES = 10_000
BATCH = 16
PEAK_LR = 4e-3
# (share of the training, side of the input in pixels)
SIZES = ((0.45, 160), (0.80, 224), (1.0, SIZE))


def main() -> None:
    args = begin("Train the demo network.", steps=6500, from_detector=False)
    scenes = cached(args.out, "train", N_SCENES, args.threads)

    net = Network(len(shapes.NAMES)).to(memory_format=torch.channels_last)

    def loss_of(net: nn.Module, step: int) -> Tensor:
        rng = np.random.default_rng((SEED, step))
        size = size_at(step / args.steps, SIZES)
        batch = augment(load(scenes, np.sort(rng.choice(N_SCENES, BATCH, replace=False))), size, rng)
        box, cls = net(batch.images.contiguous(memory_format=torch.channels_last))
        return detection_loss(box, cls, batch.labels, size)[0]

    train(net, loss_of, args.steps, PEAK_LR, args.out)


if __name__ == "__main__":
    main()
