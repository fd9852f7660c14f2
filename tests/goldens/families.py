"""Narrow networks that hold the blocks and heads of all families, each in an order that no family has."""

from __future__ import annotations

from typing import Any

from blocks import (
    CONCAT, UPSAMPLE, Module, bottleneck, box_branch, c2f, c3k, chain, conv, listed, module, plain, psa_block,
)

IDENTITY = module("Identity")

Layers = list[tuple[list[int], Module]]


def max_pool(k: int, stride: int, pad: int) -> Module:
    attrs = {"kernel_size": k, "stride": stride, "padding": pad, "dilation": 1, "ceil_mode": False}
    return module("MaxPool2d", attrs)


def transposed(c_in: int, c_out: int) -> Module:
    return module("ConvTranspose2d", {
        "in_channels": c_in, "out_channels": c_out, "kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0],
        "output_padding": [0, 0], "dilation": [1, 1], "groups": 1,
    })


def grouped(c: int, k: int, stride: int = 1, act: str = "SiLU", kind: str = "Conv") -> Module:
    """A depthwise convolution."""
    return module(kind, conv=plain(c, c, k, stride, c), act=module(act))


def rep_conv(c_in: int, c_out: int) -> Module:
    return {**conv(c_in, c_out, 3), "class": "RepConv"}


def c3(c_in: int, c_out: int, stages: list[Module], kind: str = "C3") -> Module:
    half = c_out // 2
    return module(
        kind, cv1=conv(c_in, half), cv2=conv(c_in, half), cv3=conv(2 * half, c_out), m=chain(*stages)
    )


def rep_csp(c_in: int, c_out: int) -> Module:
    half = c_out // 2
    stage = module("RepBottleneck", {"add": True}, cv1=rep_conv(half, half), cv2=conv(half, half, 3))
    return c3(c_in, c_out, [stage], "RepCSP")


def rep_elan(c_in: int, c_out: int, inner: int) -> Module:
    half = inner // 2
    children = {"cv1": conv(c_in, inner), "cv4": conv(2 * inner, c_out)}
    stages = {name: chain(rep_csp(half, half), conv(half, half, 3)) for name in ("cv2", "cv3")}
    return module("RepNCSPELAN4", {"c": half}, **children, **stages)


def elan1(c_in: int, c_out: int, inner: int) -> Module:
    half = inner // 2
    stages = {name: conv(half, half, 3) for name in ("cv2", "cv3")}
    return module("ELAN1", {"c": half}, cv1=conv(c_in, inner), **stages, cv4=conv(2 * inner, c_out))


def spp_elan(c_in: int, c_out: int, inner: int) -> Module:
    pools = {name: max_pool(5, 1, 2) for name in ("cv2", "cv3", "cv4")}
    return module("SPPELAN", {"c": inner}, cv1=conv(c_in, inner), **pools, cv5=conv(4 * inner, c_out))


def a_down(c_in: int, c_out: int) -> Module:
    half = c_out // 2
    return module("ADown", {"c": half}, cv1=conv(c_in // 2, half, 3, 2), cv2=conv(c_in // 2, half))


def cb_linear(c_in: int, widths: list[int]) -> Module:
    return module("CBLinear", {"c2s": widths}, conv=plain(c_in, sum(widths)))


def sc_down(c_in: int, c_out: int) -> Module:
    return module("SCDown", cv1=conv(c_in, c_out), cv2=grouped(c_out, 3, 2, "Identity"))


def cib(c: int, large: bool) -> Module:
    middle = grouped(2 * c, 7, kind="RepVGGDW") if large else grouped(2 * c, 3)
    stages = chain(grouped(c, 3), conv(c, 2 * c), middle, conv(2 * c, c), grouped(c, 3))
    return module("CIB", {"add": True}, cv1=stages)


def psa(c: int, heads: int) -> Module:
    half = c // 2
    block = dict(psa_block(half, heads, half // heads // 2)["children"])
    return module("PSA", {"c": half}, cv1=conv(c, c), cv2=conv(c, c), attn=block["attn"], ffn=block["ffn"])


def ghost_conv(c_in: int, c_out: int, k: int = 1, stride: int = 1, act: str = "SiLU") -> Module:
    half = c_out // 2
    return module("GhostConv", cv1=conv(c_in, half, k, stride, act), cv2=grouped(half, 5, 1, act))


def ghost_bottleneck(c_in: int, c_out: int, stride: int = 1) -> Module:
    half = c_out // 2
    between = grouped(half, 3, 2, "Identity", "DWConv") if stride == 2 else IDENTITY
    around = IDENTITY
    if stride == 2:
        around = chain(grouped(c_in, 3, 2, "Identity", "DWConv"), conv(c_in, c_out, act="Identity"))
    through = chain(ghost_conv(c_in, half), between, ghost_conv(half, c_out, act="Identity"))
    return module("GhostBottleneck", None, conv=through, shortcut=around)


def area_block(c: int, heads: int, area: int) -> Module:
    attention = module(
        "AAttn", {"area": area, "num_heads": heads, "head_dim": c // heads, "all_head_dim": c},
        qkv=conv(c, 3 * c, act="Identity"), proj=conv(c, c, act="Identity"), pe=grouped(c, 7, 1, "Identity"),
    )
    return module("ABlock", None, attn=attention, mlp=chain(conv(c, 2 * c), conv(2 * c, c, act="Identity")))


def a2c2f(c_in: int, c_out: int, stages: list[Module], gamma: bool = False) -> Module:
    half = c_out // 2
    made = {"cv1": conv(c_in, half), "cv2": conv((1 + len(stages)) * half, c_out), "m": listed("ModuleList", stages)}
    # An attribute without value says that there is no factor. The recipe takes its own mark out again.
    return module("A2C2f", {"has_gamma": True} if gamma else {"gamma": None}, **made)


def proto(c: int, hidden: int, n: int, coarser: list[int] | None = None) -> Module:
    parts = {"cv1": conv(c, hidden, 3), "upsample": transposed(hidden, hidden)}
    parts |= {"cv2": conv(hidden, hidden, 3), "cv3": conv(hidden, n)}
    if coarser is None:
        return module("Proto", None, **parts)
    refine = listed("ModuleList", [conv(width, c) for width in coarser])
    return module("Proto26", None, **parts, feat_refine=refine, feat_fuse=conv(c, c, 3))


def class_branch(c: int, hidden: int, n: int) -> Module:
    return chain(conv(c, hidden, 3), conv(hidden, hidden, 3), plain(hidden, n))


def detect(
    kind: str, widths: list[int], n_classes: int, reg_max: int, n_extra: int = 0, one2one: bool = False, **parts: Module
) -> Module:
    """A head of boxes; with `n_extra` values for each, behind separate features in the manner of Pose26."""
    children = dict(parts)
    for prefix in ("", "one2one_") if one2one else ("",):
        children[f"{prefix}cv2"] = listed("ModuleList", [box_branch(c, 8, reg_max) for c in widths])
        children[f"{prefix}cv3"] = listed("ModuleList", [class_branch(c, 8, n_classes) for c in widths])
        if kind == "Pose26":
            children[f"{prefix}cv4"] = listed("ModuleList", [conv(c, 9, 3) for c in widths])
            children[f"{prefix}cv4_kpts"] = listed("ModuleList", [plain(9, n_extra) for _ in widths])
        elif n_extra:
            branches = [chain(conv(c, 8, 3), plain(8, n_extra)) for c in widths]
            children[f"{prefix}cv4"] = listed("ModuleList", branches)
    attrs = {"nc": n_classes, "nl": len(widths), "reg_max": reg_max}
    return module(kind, {**attrs, "max_det": 40} if one2one else attrs, **children)


def short_backbone(c: tuple[int, int, int, int, int]) -> Layers:
    """Five halvings; layers 2, 3 and 4 have strides 8, 16 and 32."""
    return [([idx - 1], conv(a, b, 3, 2)) for idx, (a, b) in enumerate(zip((3, *c), c))]


def detect10() -> tuple[Layers, dict[str, Any]]:
    """Blocks of YOLOv5, v8-p6 and v10: C3, C2, SCDown, C2fCIB with both kinds of CIB, PSA; two heads."""
    c = (8, 12, 16, 24, 32)
    stem = conv(3, c[0], 6, 2)
    stem["children"][0][1]["attrs"]["padding"] = [2, 2]
    body = [
        ([-1], stem),
        ([0], conv(c[0], c[1], 3, 2)),
        ([1], c3(c[1], c[1], [bottleneck(c[1] // 2, c[1] // 2)])),
        ([2], conv(c[1], c[2], 3, 2)),
        ([3], {**c2f(c[2], c[2], [cib(c[2] // 2, False)]), "class": "C2fCIB"}),
        ([4], sc_down(c[2], c[3])),
        ([5], {**c2f(c[3], c[3], [cib(c[3] // 2, True), cib(c[3] // 2, False)]), "class": "C2fCIB"}),
        ([6], sc_down(c[3], c[4])),
        ([7], c2(c[4], [bottleneck(c[4] // 2, c[4] // 2)])),
        ([8], psa(c[4], 2)),
        ([9], UPSAMPLE),
        ([10, 6], CONCAT),
        ([11], conv(c[4] + c[3], c[3])),
    ]
    head = detect("v10Detect", [c[2], c[3], c[4]], 4, 16, one2one=True)
    return [*body, ([4, 12, 9], head)], {"names": 4}


def c2(c: int, stages: list[Module]) -> Module:
    return module("C2", {"c": c // 2}, cv1=conv(c, c), cv2=conv(c, c), m=chain(*stages))


def segment9() -> tuple[Layers, dict[str, Any]]:
    """Blocks of YOLOv9: a second backbone that the first one feeds, ELAN, both kinds of halving; masks."""
    c = (8, 12, 16, 24, 32)
    body = [
        ([-1], IDENTITY),
        ([0], conv(3, c[0], 3, 2)),
        ([1], conv(c[0], c[1], 3, 2)),
        ([2], elan1(c[1], c[1], 12)),
        ([3], module("AConv", None, cv1=conv(c[1], c[2], 3, 2))),
        ([4], rep_elan(c[2], c[2], 16)),
        ([5], a_down(c[2], c[3])),
        ([6], rep_elan(c[3], c[3], 16)),
        ([7], module("AConv", None, cv1=conv(c[3], c[4], 3, 2))),
        ([8], spp_elan(c[4], c[4], 10)),
        ([9], cb_linear(c[4], [c[2], c[3]])),
        ([7], cb_linear(c[3], [c[2]])),
        ([10, 11, 5], module("CBFuse", {"idx": [0, 0]})),
        ([12], rep_elan(c[2], c[2], 12)),
        ([10, 7], module("CBFuse", {"idx": [1]})),
        ([14], UPSAMPLE),
        ([15, 13], CONCAT),
        ([16], conv(c[3] + c[2], c[2])),
    ]
    widths = [c[2], c[3], c[4]]
    head = detect("Segment", widths, 3, 16, 6, proto=proto(c[2], 12, 6))
    return [*body, ([17, 14, 9], head)], {"task": "segment", "names": 3}


def segment26() -> tuple[Layers, dict[str, Any]]:
    """Ghost blocks and separate pools; the masks of YOLO26, whose prototypes take all levels, and two heads."""
    c = (8, 16, 16, 24, 32)
    pools = module(
        "SPP", None, cv1=conv(c[4], 12), cv2=conv(48, c[4]),
        m=listed("ModuleList", [max_pool(k, 1, k // 2) for k in (5, 9, 13)]),
    )
    body = [
        ([-1], conv(3, c[0], 3, 2)),
        ([0], ghost_conv(c[0], c[1], 3, 2)),
        ([1], c3(c[1], c[1], [ghost_bottleneck(c[1] // 2, c[1] // 2)], "C3Ghost")),
        ([2], ghost_bottleneck(c[1], c[2], 2)),
        ([3], c3(c[2], c[2], [ghost_bottleneck(c[2] // 2, c[2] // 2)] * 2, "C3Ghost")),
        ([4], ghost_conv(c[2], c[3], 3, 2)),
        ([5], ghost_bottleneck(c[3], c[4], 2)),
        ([6], pools),
    ]
    widths = [c[2], c[3], c[4]]
    made = proto(c[2], 12, 5, [c[3], c[4]])
    head = detect("Segment26", widths, 3, 1, 5, one2one=True, proto=made)
    return [*body, ([4, 5, 7], head)], {"task": "segment", "names": 3}


def pose8() -> tuple[Layers, dict[str, Any]]:
    """Blocks of YOLOv3 and v6: bottlenecks in the sequence, padding and pooling, ReLU, transposed convolutions."""
    c = (8, 12, 16, 24, 32)
    body = [
        ([-1], conv(3, c[0], 3, 2, "ReLU")),
        ([0], max_pool(2, 2, 0)),
        ([1], conv(c[0], c[1], 3)),
        ([2], bottleneck(c[1], c[0])),
        ([3], conv(c[1], c[2], 3, 2, "ReLU")),
        ([4], conv(c[2], c[3], 3, 2)),
        ([5], chain(bottleneck(c[3], c[2]), bottleneck(c[3], c[2], False))),
        ([6], conv(c[3], c[4], 3, 2, "ReLU")),
        ([7], module("ZeroPad2d", {"padding": [0, 1, 0, 1], "value": 0.0})),
        ([8], max_pool(2, 1, 0)),
        ([9], transposed(c[4], c[3])),
        ([10, 6], CONCAT),
        ([11], conv(2 * c[3], c[3])),
        ([12], transposed(c[3], c[2])),
        ([13, 4], CONCAT),
        ([14], conv(2 * c[2], c[2], 1, 1, "ReLU")),
    ]
    head = detect("Pose", [c[2], c[3], c[4]], 1, 16, 9)
    return [*body, ([15, 12, 9], head)], {"task": "pose", "names": 1, "kpt_shape": [3, 3]}


def pose26() -> tuple[Layers, dict[str, Any]]:
    """Keypoints of two values, from features of their own, and two heads."""
    c = (8, 12, 16, 20, 24)
    head = detect("Pose26", list(c[2:]), 2, 1, 8, one2one=True)
    return [*short_backbone(c), ([2, 3, 4], head)], {"task": "pose", "names": 2, "kpt_shape": [4, 2]}


def obb12() -> tuple[Layers, dict[str, Any]]:
    """Area attention, with and without a factor, and C3k in its place; turned boxes."""
    c = (8, 12, 16, 32, 32)
    areas = [chain(area_block(c[3] // 2, 2, 4), area_block(c[3] // 2, 2, 4))] * 2
    whole = [chain(area_block(c[4] // 2, 1, 1), area_block(c[4] // 2, 1, 1))]
    body = [
        *short_backbone(c)[:4],
        ([3], a2c2f(c[3], c[3], areas, gamma=True)),
        ([4], conv(c[3], c[4], 3, 2)),
        ([5], a2c2f(c[4], c[4], whole)),
        ([6], UPSAMPLE),
        ([7, 4], CONCAT),
        ([8], a2c2f(c[4] + c[3], c[3], [c3k(c[3] // 2)])),
    ]
    head = detect("OBB", [c[2], c[3], c[4]], 3, 16, 1)
    return [*body, ([2, 9, 6], head)], {"task": "obb", "names": 3}


def obb26() -> tuple[Layers, dict[str, Any]]:
    """Turned boxes with plain distances and angles, and two heads."""
    c = (8, 12, 16, 20, 24)
    head = detect("OBB26", list(c[2:]), 3, 1, 1, one2one=True)
    return [*short_backbone(c), ([2, 3, 4], head)], {"task": "obb", "names": 3}


def classify() -> tuple[Layers, dict[str, Any]]:
    """The mean of a map and a linear layer. Takes pictures of any size."""
    c = (8, 12, 16, 24, 32)
    head = module(
        "Classify", None, conv=conv(c[4], 40), pool=module("AdaptiveAvgPool2d", {"output_size": 1}),
        drop=module("Dropout", {"p": 0.0}),
        linear=module("Linear", {"in_features": 40, "out_features": 7}),
    )
    return [*short_backbone(c), ([4], head)], {"task": "classify", "names": 7, "stride": [1]}


def semantic26() -> tuple[Layers, dict[str, Any]]:
    """A class for each cell; the coarser level is there for training only."""
    c = (8, 12, 16, 24, 32)
    classifier = chain(conv(c[2], 12, 3), plain(12, 5))
    body = [*short_backbone(c), ([4], UPSAMPLE), ([5, 3], CONCAT), ([6], conv(c[4] + c[3], c[3]))]
    body += [([7], UPSAMPLE), ([8, 2], CONCAT), ([9], conv(c[3] + c[2], c[2]))]
    head = module("SemanticSegment", {"nc": 5, "nl": 2}, classifier=classifier)
    return [*body, ([10, 7], head)], {"task": "semantic", "names": 5, "stride": [32]}


def depth26() -> tuple[Layers, dict[str, Any]]:
    """A distance for each cell."""
    c, width = (8, 12, 16, 24, 32), 14
    head = module(
        "Depth", {"nl": 3},
        proj=listed("ModuleList", [conv(a, width) for a in c[2:]]),
        refine=listed("ModuleList", [chain(conv(width, width, 3), conv(width, width, 3)) for _ in range(2)]),
        head=chain(conv(width, 10, 3), transposed(10, 10), conv(10, 8, 3), plain(8, 1)),
    )
    return [*short_backbone(c), ([2, 3, 4], head)], {"task": "depth", "names": 1, "stride": [32]}
