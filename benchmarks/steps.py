"""A step of training as the trainer does it, in the ways that it can be computed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agedphoto.datasets import Batch
from agedphoto.synth import Mode
from agedphoto.train import make_objective
from agedphoto.train.objectives import Objective
from agedphoto.train.precision import Precision, bf16_is_fast
from agedphoto.train.step import Stepper

LR, DECAY = 1e-4, 0.999


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to compute a network."""

    precision: Precision
    channels_last: bool = True
    compile: Literal["no", "yes", "graphs"] = "no"

    @property
    def name(self) -> str:
        """As it is shown."""
        compiled = {"no": "", "yes": ", compiled", "graphs": ", CUDA graphs"}[self.compile]
        return self.precision + (", channels_last" if self.channels_last else "") + compiled


def ways(device: torch.device) -> list[Way]:
    """Return them from plain to what training does; bf16 only where it is fast."""
    best: Precision = "bf16" if bf16_is_fast(device) else "fp32"
    found = [Way(precision="fp32", channels_last=False)]
    if best == "bf16":
        found.append(Way(precision="bf16", channels_last=False))
    found.append(Way(precision=best))
    if device.type == "cuda":
        found += [Way(precision=best, compile="yes"), Way(precision=best, compile="graphs")]
    return found


def usual_way(device: torch.device) -> Way:
    """Return the way that training takes by itself."""
    wanted = "yes" if device.type == "cuda" else "no"
    return [way for way in ways(device) if way.compile == wanted][-1]


class Contiguous(nn.Module):
    """Gives a network its input channel by channel, which the trainer never does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, aged: Tensor, **options: Any) -> Any:
        """Return what the network returns."""
        # A copy: of one channel either layout passes for contiguous, and convolutions choose.
        return self.module(aged.clone(memory_format=torch.contiguous_format), **options)


def find_objective(
    mode: Mode, preset: str, side_px: int, *, mask_weight: float = 0.01
) -> Objective:
    """Return what training brings down by default."""
    return make_objective(
        mode=mode, preset=preset, loss="charbonnier", mask_weight=mask_weight,
        long_side_px=side_px,
    )  # fmt: skip


def make_stepper(
    objective: Objective,
    way: Way,
    device: torch.device,
    *,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
) -> tuple[nn.Module, Stepper]:
    """Return a network, always with the same weights, and its step; `wrap` may share gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = objective.make_net().to(device)
        torch.default_generator.manual_seed(0)
        average = objective.make_net().to(device).eval().requires_grad_(False)
    model: Any = net
    if way.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        model = Contiguous(net)
    if wrap:
        model = wrap(model)
    if way.compile != "no":
        model = torch.compile(model, mode="reduce-overhead" if way.compile == "graphs" else None)
    optimiser = torch.optim.AdamW(net.parameters(), lr=LR, betas=(0.9, 0.99), fused=True)
    return net, Stepper(
        model, net=net, average=average, optimiser=optimiser, objective=objective, clip_norm=1.0,
        precision=way.precision, device=device, graphs=way.compile == "graphs",
    )  # fmt: skip


def step(stepper: Stepper, batch: Batch) -> None:
    """Train on a batch."""
    stepper([batch], lr=LR, decay=DECAY)


def flops_a_pair(objective: Objective, batch: Batch) -> float:
    """Count multiplications and additions of forward and backward."""
    first = {name: tensor[:1].cpu() for name, tensor in batch.tensors().items()}
    one = replace(batch, **first, photos=batch.photos[:1])
    # Attention in one piece is not counted on every device.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        objective.loss(objective.make_net(), one).sum().backward()
    return counter.get_total_flops()
