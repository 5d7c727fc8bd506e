"""Run in a process of its own, with TRITON_INTERPRET=1: Triton's kernels against the reference.

Prints one line of JSON: the largest differences of each case.
"""

import json
import sys

import torch

from agedphoto.synth import (
    MODES,
    Ageing,
    Augment,
    Grain,
    Grayscale,
    Mode,
    Pixels,
    Recipe,
    Texture,
    ToneCurve,
    philox,
    philox_triton,
    sample_crops,
    turn_crops,
)
from agedphoto.textures import TextureBank

KEYS = torch.tensor([3, -4, 2**62])
AUGMENT = Augment(
    p=0.7, rotation_turns=0.05, zoom=0.1, translation=0.03, brightness=0.1, contrast=0.1
)
GRAY = Recipe(
    name="gray",
    defects=(
        ToneCurve(),
        Grain(),
        Grayscale(),
        Grain(sigma=(0.02, 0.3)),
        Texture(),
        Texture(families=("creases",), alpha=(0.5, 1.0)),
    ),
    severity_sigma=0.6,
    augment=AUGMENT,
)
COLOR = Recipe(
    name="color", defects=(ToneCurve(), Grain(), Texture()), severity_sigma=0.6, augment=Augment()
)


def fields() -> dict[str, float]:
    """Philox fields, normal and bits, from negative places on."""
    normals = philox_triton.normal_field(
        KEYS, op=5, plane=2, planes=2, top=-3, height=5, first=-2, quads=3
    )
    expected = philox.normal_field(
        KEYS, op=5, plane=2, planes=2, top=-3, height=5, left=-8, width=12
    )
    window = {"op": 5, "plane": 2, "top": -3, "height": 5, "left": -2, "width": 3}
    bits = philox_triton.cell_bits(KEYS, planes=2, **window).flatten(1, 2)
    seven, op, plane = (torch.tensor(word) for word in (7, 2**32 - 2, 2**32 - 1))
    counter = (torch.arange(4), seven, op, plane)
    key = (KEYS[:, None] & philox.WORD, (KEYS[:, None] >> 32) & philox.WORD)
    words = torch.stack(philox_triton.philox4x32(counter, key))
    return {
        "words": (words - torch.stack(philox.philox4x32(counter, key))).abs().max().item(),
        "normals": (normals - expected).abs().max().item(),
        "bits": (bits - philox.cell_bits(KEYS, count=8, **window)).abs().max().item(),
    }


def batch(recipe: Recipe | str, mode: Mode, bank: TextureBank) -> list[float]:
    """A batch in its place, of a size that no tile divides."""
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (3, 3, 12, 21), generator=generator, dtype=torch.uint8)
    fused, eager = (
        Ageing(recipe, mode=mode, textures=bank, backend=backend)(photos, KEYS)
        for backend in ("fused", "eager")
    )
    return differences(fused, eager)


def crops(recipe: Recipe | str, bank: TextureBank, dtype: torch.dtype) -> list[float]:
    """Crops out of a flat buffer of photos of several sizes, with their margin."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(24, 40), (31, 20), (20, 20)]
    photos = [
        torch.randint(0, 256, (h, w, 3), generator=generator, dtype=torch.uint8) for h, w in sizes
    ]
    flat = torch.cat([torch.zeros(5, dtype=torch.uint8), *(photo.flatten() for photo in photos)])
    counts = torch.tensor([5] + [photo.numel() for photo in photos])
    heights, widths = torch.tensor(sizes).T.contiguous()
    where = Pixels(
        flat=flat,
        offsets=counts.cumsum(0)[:3],
        heights=heights,
        widths=widths,
        row_stride=None,
        column_stride=3,
        channel_stride=1,
    )
    made = Ageing(recipe, mode="color", textures=bank, dtype=dtype, backend="fused")
    aged = made.age_crops(where, KEYS, crop_px=20)
    eager = Ageing(recipe, mode="color", textures=bank, dtype=dtype, backend="eager")
    margin = eager.augment.margin_px(20)
    boxes = sample_crops(KEYS, heights, widths, crop_px=20)
    cut = []
    for photo, top, left in zip(photos, boxes.top.tolist(), boxes.left.tolist(), strict=True):
        planes = photo.permute(2, 0, 1)[None].float()
        wide = torch.nn.functional.pad(planes, (margin,) * 4, mode="reflect")
        side = 20 + 2 * margin
        cut.append(wide[..., top : top + side, left : left + side].to(torch.uint8))
    turned = turn_crops(torch.cat(cut), boxes.turn)
    return differences(aged, eager(turned, KEYS, margin_px=margin))


def differences(one, other) -> list[float]:  # type: ignore[no-untyped-def]
    """Largest difference of aged and clean, and the share of the mask that differs."""
    return [
        (one.aged.float() - other.aged.float()).abs().max().item(),
        (one.clean.float() - other.clean.float()).abs().max().item(),
        (one.mask != other.mask).float().mean().item(),
    ]


def main() -> None:
    """Measure all cases."""
    drawn = TextureBank.synthesize(5, size_px=64)
    bank = TextureBank(drawn.textures, drawn.names, frozenset({"creases"}))
    odd = TextureBank(drawn.textures[:, :60, :60].contiguous(), drawn.names, bank.darkening)
    cases: dict[str, object] = {"fields": fields()}
    for recipe in ("seed", GRAY, COLOR):
        name = recipe if isinstance(recipe, str) else recipe.name
        # Modes differ in what is written, and the interpreter takes its time.
        for mode in MODES if recipe is COLOR else MODES[::2] if recipe is GRAY else MODES[:0]:
            cases[f"batch {name} {mode}"] = batch(recipe, mode, bank)
        cases[f"crops {name}"] = crops(recipe, bank, torch.float32)
    cases["batch seed odd"] = batch("seed", "grayscale", odd)
    cases["crops seed bfloat16"] = crops("seed", bank, torch.bfloat16)
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    main()
