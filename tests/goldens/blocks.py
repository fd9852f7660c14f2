"""Modules of model files: the published blocks as trees, to build narrow networks of."""

from __future__ import annotations

from typing import Any

Module = dict[str, Any]


def module(kind: str, attrs: dict[str, Any] | None = None, **children: Module) -> Module:
    # Python's names can't be numbers: "_0" stands for the child "0".
    named = [[name.removeprefix("_"), child] for name, child in children.items()]
    return {"class": kind, "attrs": attrs or {}, "children": named}


def listed(kind: str, children: list[Module]) -> Module:
    return module(kind, None, **{f"_{idx}": child for idx, child in enumerate(children)})


def chain(*children: Module) -> Module:
    return listed("Sequential", list(children))


def plain(c_in: int, c_out: int, k: int = 1, stride: int = 1, groups: int = 1) -> Module:
    pad = k // 2
    return module("Conv2d", {
        "in_channels": c_in, "out_channels": c_out, "kernel_size": [k, k], "stride": [stride, stride],
        "padding": [pad, pad], "dilation": [1, 1], "groups": groups, "padding_mode": "zeros",
    })


def conv(c_in: int, c_out: int, k: int = 1, stride: int = 1, act: str = "SiLU", kind: str = "Conv") -> Module:
    groups = c_in if kind == "DWConv" else 1
    return module(kind, conv=plain(c_in, c_out, k, stride, groups), act=module(act))


def bottleneck(c: int, hidden: int, add: bool = True) -> Module:
    return module("Bottleneck", {"add": add}, cv1=conv(c, hidden, 3), cv2=conv(hidden, c, 3))


def c2f(c_in: int, c_out: int, stages: list[Module], kind: str = "C2f") -> Module:
    half = c_out // 2
    children = {"cv1": conv(c_in, 2 * half), "cv2": conv((2 + len(stages)) * half, c_out)}
    return module(kind, {"c": half}, **children, m=listed("ModuleList", stages))


def c3k(c: int) -> Module:
    half = c // 2
    stages = chain(bottleneck(half, half), bottleneck(half, half))
    return module("C3k", None, cv1=conv(c, half), cv2=conv(c, half), cv3=conv(2 * half, c), m=stages)


def psa_block(c: int, heads: int, key_dim: int) -> Module:
    head_dim = c // heads
    attention = module(
        "Attention", {"num_heads": heads, "head_dim": head_dim, "key_dim": key_dim, "scale": key_dim**-0.5},
        qkv=conv(c, heads * (2 * key_dim + head_dim), act="Identity"),
        proj=conv(c, c, act="Identity"),
        pe={**conv(c, c, 3, act="Identity", kind="DWConv"), "class": "Conv"},
    )
    return module("PSABlock", {"add": True}, attn=attention, ffn=chain(conv(c, 2 * c), conv(2 * c, c, act="Identity")))


def c2psa(c: int, heads: int, key_dim: int) -> Module:
    half = c // 2
    children = {"cv1": conv(c, 2 * half), "cv2": conv(2 * half, c), "m": chain(psa_block(half, heads, key_dim))}
    return module("C2PSA", {"c": half}, **children)


def sppf(c: int, attrs: dict[str, Any], act: str) -> Module:
    hidden = c // 2
    pool = {"kernel_size": 5, "stride": 1, "padding": 2, "dilation": 1, "ceil_mode": False}
    children = {"cv1": conv(c, hidden, act=act), "cv2": conv(4 * hidden, c), "m": module("MaxPool2d", pool)}
    return module("SPPF", attrs, **children)


UPSAMPLE = module("Upsample", {"size": None, "scale_factor": 2.0, "mode": "nearest"})
CONCAT = module("Concat", {"d": 1})


def box_branch(c: int, hidden: int, reg_max: int) -> Module:
    return chain(conv(c, hidden, 3), conv(hidden, hidden, 3), plain(hidden, 4 * reg_max))
