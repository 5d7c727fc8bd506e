"""A trained network as a file for other programs: ONNX, or a program of torch.export.

    picture of any size -> continued to the network's stride -> network -> cut to size -> [0, 1]

A file holds what the network does to one tile or one small picture; tiles, colours kept from the
photo and strength are the caller's. A model of mode `lab` is two networks, so it becomes two files:
one for luminance, if it has one, and one that maps a thumbnail of luma to its colours.
"""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from ..datasets.files import replacing
from ..train import LabNet, ModelCard, Net, UNet
from ..train.ab_bins import ab_bins_on, decode
from ..train.colornet import ColorNet
from .colorize import TEMPERATURE, UNDO
from .tiles import overlap_px_for

Part = Literal["picture", "luminance", "color"]
Answers = list[np.ndarray]

TOLERANCE = 1e-3
"""How far a written file may be from the network, as a share of the range of its answers."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

_AB_RANGE = 100.0
"""Of a and b, in CIELAB units, about what sRGB has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written, and how well it answers."""

    path: Path
    part: Part
    difference: float
    """Largest difference to the network at all sizes that were tried, as `TOLERANCE` counts."""


@torch.no_grad()
def export_onnx(net: Net, card: ModelCard, path: Path) -> list[Exported]:
    """Write a network as ONNX, with batch, height and width left open, in one file a part.

    Mode, sha256, stride, overlap and part are in the `metadata_props`, as `agedphoto.mode` and so
    on.

    Args:
        net: On the CPU.
        card: Of the file it was loaded from.
        path: Of the ONNX file; the parts of mode lab have `-luminance` and `-color` before the
            suffix.

    Raises:
        ValueError: If the packages for ONNX are not installed, or a file would not answer as the
            network does; nothing is written then.
    """
    check_onnx()
    return _write(net, card, path, _onnx_bytes, _run_onnx)


@torch.no_grad()
def export_program(net: Net, card: ModelCard, path: Path) -> list[Exported]:
    """Write a network as a program of torch.export (.pt2), for the CPU; otherwise as `export_onnx`.

    Mode, sha256, stride, overlap and part are in the extra file `agedphoto.json`.

    Raises:
        ValueError: If a file would not answer as the network does; nothing is written then.
    """
    return _write(net, card, path, _program_bytes, _run_program)


def part_paths(net: Net, path: Path) -> dict[Part, Path]:
    """Return which files are written for `path`."""
    if isinstance(net, UNet):
        return {"picture": path}
    parts: list[Part] = ["luminance", "color"] if net.luminance else ["color"]
    return {part: path.with_name(f"{path.stem}-{part}{path.suffix}") for part in parts}


def check_onnx() -> None:
    """Raise ValueError if a package that ONNX needs is not installed."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"export to ONNX needs {', '.join(missing)}; install with: "
            'pip install "agedphoto[export]"'
        )


class AnySize(nn.Module):
    """A network as a graph without branches, for pictures of any size.

    `pad_to_multiple` chooses by size how to pad, which would fix the sizes of a traced graph; here
    the places to read from are computed. The answers are equal.
    """

    def __init__(self, net: UNet | ColorNet) -> None:
        super().__init__()
        self.net = net
        self.stride = net.config.stride
        if isinstance(net, ColorNet):
            # Kept from here on; made while tracing, they would be steps of the graph.
            ab_bins_on(torch.device("cpu"))

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return restored pictures, and the damage where a network tells it; or a and b."""
        H, W = picture.shape[-2:]
        padded = _pad(picture, self.stride)
        if isinstance(self.net, ColorNet):
            weights = self.net.rebalance_weights()
            ab = decode(self.net(padded), weights, TEMPERATURE, UNDO)
            return (_cut(ab, (H + 3) // 4, (W + 3) // 4),)
        if not self.net.config.mask_head:
            return (_cut(self.net(padded), H, W).clamp(0, 1),)
        restored, logits = self.net(padded, with_mask=True)
        return _cut(restored, H, W).clamp(0, 1), _cut(logits, H, W).sigmoid()


def _pad(x: Tensor, stride: int) -> Tensor:
    """Continue as `pad_to_multiple` does, by arithmetic on places alone."""
    H, W = x.shape[-2:]
    padded_h, padded_w = (H + stride - 1) // stride * stride, (W + stride - 1) // stride * stride
    # As tensors: compared as numbers, they would become conditions on the size.
    mirrored = (torch.full((1,), 2 * H - padded_h) > 0) & (torch.full((1,), 2 * W - padded_w) > 0)

    def places(length: int, padded: int) -> Tensor:
        place = torch.arange(padded)
        outside = mirrored & (place >= length)
        return torch.where(outside, 2 * (length - 1) - place, place.clamp(max=length - 1))

    return x.index_select(2, places(H, padded_h)).index_select(3, places(W, padded_w))


def _cut(x: Tensor, height: int, width: int) -> Tensor:
    # Not a slice, which asks whether there is anything to cut off.
    return x.index_select(2, torch.arange(height)).index_select(3, torch.arange(width))


def _write(
    net: Net,
    card: ModelCard,
    path: Path,
    encode: Callable[[ExportedProgram, dict[str, str]], bytes],
    run: Callable[[Path, Sequence[Tensor]], list[Answers]],
) -> list[Exported]:
    done = []
    # All parts get their names at the end, or none.
    with ExitStack() as stack:
        for part, place in part_paths(net, path).items():
            inner = _part(net, part)
            data = encode(_trace(inner), _metadata(inner, card, part))
            file = stack.enter_context(replacing(place))
            file.write(data)
            file.flush()
            difference = _difference(inner, Path(file.name), place, run)
            done.append(Exported(path=place, part=part, difference=difference))
    return done


def _part(net: Net, part: Part) -> UNet | ColorNet:
    if isinstance(net, LabNet):
        inner = net.color if part == "color" else net.luminance
        assert inner is not None
        return inner
    return net


def _metadata(net: UNet | ColorNet, card: ModelCard, part: Part) -> dict[str, str]:
    # Colours come from a thumbnail, which is no work for tiles.
    tiles = (
        {"agedphoto.overlap_px": str(overlap_px_for(net.config))} if isinstance(net, UNet) else {}
    )
    return tiles | {
        "agedphoto.mode": card.mode,
        "agedphoto.part": part,
        "agedphoto.stride": str(net.config.stride),
        "agedphoto.sha256": card.sha256,
        "agedphoto.net": json.dumps(card.net),
    }


def _trace(net: UNet | ColorNet) -> ExportedProgram:
    open_sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    side = 3 * net.config.stride + 1
    example = torch.zeros(2, _channels(net), side, side + net.config.stride)
    with _quiet():
        program = torch.export.export(
            AnySize(net).eval(),
            (example,),
            dynamic_shapes={"picture": open_sizes},
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    # Tracing supposes that no side is as short as one cell, where memory layouts coincide; such
    # pictures are answered alike, and `_difference` tries some.
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for size, limits in program.range_constraints.items():
        program.range_constraints[size] = ValueRanges(1, limits.upper)
    return program


def _channels(net: UNet | ColorNet) -> int:
    return net.config.in_channels if isinstance(net, UNet) else 1


def _program_bytes(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    memory = io.BytesIO()
    plain = {name.partition(".")[2]: value for name, value in metadata.items()}
    torch.export.save(program, memory, extra_files={"agedphoto.json": json.dumps(plain)})
    return memory.getvalue()


def _onnx_bytes(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    with _quiet():
        done = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
    assert done is not None
    model = done.model_proto
    outputs = ["ab"] if metadata["agedphoto.part"] == "color" else ["restored", "damage"]
    _rename(model.graph, ["picture", *outputs])
    _name_sizes(model.graph)
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    return model.SerializeToString()


def _rename(graph: Any, wanted: Sequence[str]) -> None:
    """Give inputs and outputs the names that users ask for."""
    ends = [*graph.input, *graph.output]
    names = dict(zip((end.name for end in ends), wanted, strict=False))
    for node in graph.node:
        for used in (node.input, node.output):
            used[:] = [names.get(name, name) for name in used]
    for end in ends:
        end.name = names[end.name]


def _name_sizes(graph: Any) -> None:
    """Call open sizes what they are, not s77."""
    (picture,) = graph.input
    sizes = picture.type.tensor_type.shape.dim
    names = {
        size.dim_param: name
        for size, name in zip(sizes, ("batch", "", "height", "width"), strict=True)
        if name
    }
    for end in (*graph.input, *graph.output):
        for place, size in enumerate(end.type.tensor_type.shape.dim):
            if size.dim_param:
                quarter = ("", "", "quarter_height", "quarter_width")[place]
                size.dim_param = names.get(size.dim_param, quarter)
    # Sizes of values in between still have the old names.
    del graph.value_info[:]


def _difference(
    net: UNet | ColorNet,
    temporary: Path,
    path: Path,
    run: Callable[[Path, Sequence[Tensor]], list[Answers]],
) -> float:
    pictures = list(_pictures(net))
    worst = 0.0
    span = _AB_RANGE if isinstance(net, ColorNet) else 1.0
    for picture, answers in zip(pictures, run(temporary, pictures), strict=True):
        wanted = [answer.numpy() for answer in _reference(net, picture)]
        for answer, expected in zip(answers, wanted, strict=True):
            apart = np.inf
            if answer.shape == expected.shape:
                apart = float(np.abs(answer - expected).max()) / span
            # Also so for NaN.
            if not apart <= TOLERANCE:
                B, _, H, W = picture.shape
                raise ValueError(
                    f"{path} is not written: for {B} pictures of {W} x {H} px it would differ from "
                    f"the network by {apart:.2g} of the range, more than {TOLERANCE:g}; "
                    "constraints.txt has versions of torch and onnxruntime that agree"
                )
            worst = max(worst, apart)
    return worst


def _reference(net: UNet | ColorNet, picture: Tensor) -> tuple[Tensor, ...]:
    """Return what the network answers by itself, padding as it does."""
    if isinstance(net, ColorNet):
        return (decode(net(picture), net.rebalance_weights(), TEMPERATURE, UNDO),)
    if not net.config.mask_head:
        return (net(picture).clamp(0, 1),)
    restored, logits = net(picture, with_mask=True)
    return restored.clamp(0, 1), logits.sigmoid()


def _pictures(net: UNet | ColorNet) -> Iterator[Tensor]:
    """Make noise on a ramp, of sizes on the stride and off it, down to a single pixel."""
    s = net.config.stride
    sizes = [(1, 1, 1), (1, 3, 2 * s + 1), (2, s, 3 * s), (3, 2 * s + 1, 3 * s - 1), (1, 6 * s, s)]
    generator = torch.Generator().manual_seed(0)
    for count, height, width in sizes:
        noise = torch.rand(count, _channels(net), height, width, generator=generator)
        yield (noise + torch.linspace(0, 1, width)) / 2


def _run_onnx(path: Path, pictures: Sequence[Tensor]) -> list[Answers]:
    import onnxruntime  # type: ignore[import-untyped]

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(None, {"picture": picture.numpy()}) for picture in pictures]


def _run_program(path: Path, pictures: Sequence[Tensor]) -> list[Answers]:
    with _quiet(), path.open("rb") as file:
        module = torch.export.load(file).module()
    return [[answer.numpy() for answer in module(picture)] for picture in pictures]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters say of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
