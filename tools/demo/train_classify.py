"""Trains the network that classifies on objects cut out of the scenes, from the backbone of the detector.

    python train_classify.py --detector /tmp/demo/weights.pt --scenes /tmp/demo --out /tmp/demo/classify [--steps 1200]
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapes
from crops import crop_window
from dataset import Scenes, cached
from network import Network
from scenes import SEED
from train import N_SCENES
from training import begin, train

SIDE = 128
BATCH = 32
PEAK_LR = 2e-3


def draw_batch(scenes: Scenes, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [BATCH, 3, SIDE, SIDE] in 0..1, mirrored, turned by quarters and recoloured at random, and classes."""
    pictures, classes = [], []
    while len(pictures) < BATCH:
        index = int(rng.integers(len(scenes.labels)))
        k = int(rng.integers((scenes.labels[index, :, 0] >= 0).sum()))
        window = crop_window(scenes.labels[index, k, 1:5], scenes.owners[index], k, rng)
        if window is None:
            continue
        crop = torch.from_numpy(scenes.pictures[index][window].copy()).permute(2, 0, 1)[None].float() / 255
        crop = F.interpolate(crop, size=(SIDE, SIDE), mode="bilinear", antialias=True)[0]
        crop = crop.rot90(int(rng.integers(4)), (-2, -1))
        crop = crop.flip(-1) if rng.random() < 0.5 else crop
        crop = crop[torch.from_numpy(rng.permutation(3))]
        pictures.append((crop * float(rng.uniform(0.8, 1.2)) + float(rng.uniform(-0.08, 0.08))).clamp(0, 1))
        classes.append(int(scenes.labels[index, k, 0]))
    return torch.stack(pictures), torch.tensor(classes)


def main() -> None:
    args = begin("Train the network that classifies.", steps=1200)
    scenes = cached(args.scenes, "train", N_SCENES, args.threads)

    net = Network(len(shapes.NAMES), "classify")
    own = net.state_dict()
    known = torch.load(args.detector, weights_only=True)
    net.load_state_dict(own | {name: value for name, value in known.items() if name in own})
    net.to(memory_format=torch.channels_last)

    def loss_of(net: nn.Module, step: int) -> Tensor:
        pictures, classes = draw_batch(scenes, np.random.default_rng((SEED, 2, step)))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(pictures.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), classes, label_smoothing=0.05)

    train(net, loss_of, args.steps, PEAK_LR, args.out)


if __name__ == "__main__":
    main()
