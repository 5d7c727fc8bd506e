"""What storing the weights as 16-bit floats costs, measured on the stored models alone.

    python weights/rounding.py --photos kodak

Each weight was somewhere between the middles to its two neighbours before it was rounded. It is put
at a random place there, all weights at once, some times over; how far the figures move is the size
of what rounding can have done to them.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from agedphoto.evaluate_cases import Case, Clean, Noise
from agedphoto.evaluate_photos import Subject, find_subjects
from agedphoto.evaluate_run import evaluate
from agedphoto.restore import find_model, shipped_models
from agedphoto.synth import find_device
from agedphoto.train import LabNet

SIGMA = 25.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure on."""

    photos: Path
    """Folder of photos; best of those that no model was trained on."""
    draws: int = 5
    """How often the weights are put elsewhere."""
    crop_px: int | None = None
    """At most so many pixels a side; whole if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def main(options: Options) -> int:
    """Measure all shipped models and print a table; return the exit status."""
    if options.draws < 1:
        raise ValueError(f"draws must be at least 1, got {options.draws}")
    device, subjects = find_device(options.device), find_subjects([str(options.photos)])
    print(
        "| model | what | as stored, dB | moved by, at most | on average |\n|---|---|---|---|---|"
    )
    for name in shipped_models():
        what, stored = _measure(name, None, subjects, device, options)
        generator = torch.Generator().manual_seed(0)
        moved = [
            _measure(name, generator, subjects, device, options)[1] - stored
            for _ in range(options.draws)
        ]
        sizes = [abs(one) for one in moved]
        most, mean = max(sizes), statistics.mean(sizes)
        print(f"| `{name}` | {what} | {stored:.3f} | {most:.4f} | {mean:.4f} |", flush=True)
    return 0


def _measure(
    name: str,
    generator: torch.Generator | None,
    subjects: list[Subject],
    device: torch.device,
    options: Options,
) -> tuple[str, float]:
    """Return what is measured and the mean over the photos, in dB."""
    net, card = find_model(name)
    net.to(device)
    if generator is not None:
        with torch.no_grad():
            for weight in net.parameters():
                weight.copy_(unrounded(weight.cpu(), generator))
    colors = isinstance(net, LabNet)
    case: Case = Clean(mode=card.mode) if colors else Noise(sigma=SIGMA, mode=card.mode)
    record = evaluate(net, card, subjects, [case], device=device, crop_px=options.crop_px)
    mean = record["measured"][0]["mean"]
    if colors:
        return "ab-PSNR of clean gray", mean["ab_psnr_db"]
    return f"PSNR at sigma {SIGMA:g}", mean["psnr_db"]


def unrounded(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return random numbers that a 16-bit float rounds to these."""
    # Ten bits after the first; below 2**-14 the steps grow no smaller.
    exponent = torch.frexp(weight.abs().clamp(min=2.0**-14))[1] - 1
    step = torch.ldexp(torch.ones_like(weight), exponent - 10)
    # A little less than half: at the middle, the even neighbour would be taken.
    aside = (torch.rand(weight.shape, generator=generator) - 0.5) * 0.999
    moved = weight + aside * step
    # Just below a power of two the steps are half as long.
    back = moved.half().float()
    return torch.where(back == weight, moved, weight + 0.5 * aside * step)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
