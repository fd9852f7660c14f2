"""Writes what PyTorch computes with the exported demo network, for the engine to agree with.

    python golden.py --weights /tmp/demo/weights.pt --out ../../tests/goldens/demo.safetensors

The kernels are rounded to half precision first, as in the model file; everything else is f32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from export import load
from network import predict
from scenes import draw_scene

HEIGHT, WIDTH = 128, 160


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo network's golden.")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    net = load(args.weights)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.half().float()
    scene = draw_scene("golden", 0)
    picture = torch.from_numpy(scene.image[:HEIGHT, :WIDTH].copy()).permute(2, 0, 1)[None].float() / 255
    save_file({"images": picture.contiguous(), "output0": predict(net, picture).contiguous()}, args.out)


if __name__ == "__main__":
    main()
