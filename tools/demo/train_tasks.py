"""Trains masks, keypoints and turned boxes together, from the weights of the detector.

    python train_tasks.py --detector /tmp/demo/weights.pt --scenes /tmp/demo --out /tmp/demo/tasks [--steps 5200]

One network learns all of it (`network.Family`): the cells that the detector assigns to an object learn its mask, its
keypoints and its turned box as well. Writes `segment.pt`, `pose.pt` and `obb.pt`; an interrupted run goes on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import shapes
from augment import augment, load
from dataset import cached
from loss import detection_loss
from network import Family
from scenes import SEED, SIZE
from task_losses import keypoint_loss, mask_loss, turned_box_loss
from train import N_SCENES
from training import begin, size_at, train

BATCH = 16
PEAK_LR = 2.5e-3
# (share of the training, side of the input in pixels)
SIZES = ((0.3, 160), (0.75, 192), (1.0, SIZE))


def main() -> None:
    args = begin("Train masks, keypoints and turned boxes.", steps=5200)
    scenes = cached(args.scenes, "train", N_SCENES, args.threads)

    family = Family(len(shapes.NAMES))
    family.detect.load_state_dict(torch.load(args.detector, weights_only=True))
    family.obb.head.cv2.load_state_dict(family.detect.head.cv2.state_dict())
    family.to(memory_format=torch.channels_last)

    def loss_of(net: nn.Module, step: int) -> Tensor:
        rng = np.random.default_rng((SEED, 1, step))
        torch.manual_seed(step)
        size = size_at(step / args.steps, SIZES)
        batch = augment(load(scenes, np.sort(rng.choice(N_SCENES, BATCH, replace=False))), size, rng)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(batch.images.contiguous(memory_format=torch.channels_last))
        found = {name: value.float() for name, value in found.items()}
        detection, at = detection_loss(found["box"], found["cls"], batch.labels, size)
        return (
            detection
            + mask_loss(found["masks"], found["proto"], batch.owners, at)
            + keypoint_loss(found["keypoints"], batch.labels, size, at)
            + turned_box_loss(found["turned_box"], found["angle"], batch.labels, at)
        )

    trained = train(family, loss_of, args.steps, PEAK_LR, args.out)
    for name in ("segment", "pose", "obb"):
        torch.save(getattr(trained, name).state_dict(), args.out / f"{name}.pt")


if __name__ == "__main__":
    main()
