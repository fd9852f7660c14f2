"""Writes what PyTorch computes with an exported demo network, for the engine to agree with.

    python golden.py --weights /tmp/demo/weights.pt --out ../../tests/goldens/demo.safetensors
    python golden.py --task pose --weights /tmp/demo/tasks/pose.pt --size 64,96 --out demo-pose.safetensors

and so on for demo-segment, demo-obb, demo-classify, demo-semantic and demo-depth, as README.md has it.

The kernels are rounded to half precision first, as in the model file; everything else is f32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from export import load
from network import TASKS, predict
from scenes import draw_scene


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo network's golden.")
    parser.add_argument("--task", choices=TASKS, default="detect")
    parser.add_argument("--size", default="128,160", help="height and width of the picture in pixels")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    net = load(args.weights, args.task)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.weight.data = module.weight.half().float()
    height, width = map(int, args.size.split(","))
    scene = draw_scene("golden", 0)
    picture = torch.from_numpy(scene.image[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
    tensors = {"images": picture} | predict(net, picture)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.out)


if __name__ == "__main__":
    main()
