"""One step of training: forwards, backwards, the optimiser, the average. It waits for nothing.

What it learns on the way, losses and steps that were skipped, stays on the device until somebody
asks.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..datasets import Batch
from .objectives import Objective
from .precision import Precision, autocast


class Tally(TypedDict):
    """What happened since the last tally, and in all."""

    loss: float
    """Mean over the steps that were taken on this rank; NaN if none was."""
    taken: int
    """Steps since the last tally."""
    skipped: int
    """Steps left out in all, for a gradient that was not finite."""
    longest_row: int
    """Most steps left out in a row since the last tally."""


class Stepper:
    """Takes steps; its state is small tensors on the device."""

    def __init__(
        self,
        model: nn.Module,
        *,
        net: nn.Module,
        average: nn.Module,
        optimiser: torch.optim.Optimizer,
        objective: Objective,
        clip_norm: float,
        precision: Precision,
        device: torch.device,
        graphs: bool = False,
    ) -> None:
        """Take what one step needs.

        Args:
            model: What is run: the network, or a wrapper that compiles or reduces over ranks.
            net: The network itself.
            average: Its moving average.
            optimiser: Of the network's weights; fused, for it to skip a step by itself.
            objective: Makes a loss of a batch.
            clip_norm: Gradients of a larger norm are scaled down to it.
            precision: Arithmetic of the network.
            device: Where all of it is.
            graphs: The model replays CUDA graphs, and must be told where a step begins.
        """
        self._model, self._objective, self._optimiser = model, objective, optimiser
        self._clip_norm, self._device = clip_norm, device
        self._precision: Precision = precision
        self._graphs = graphs
        self._weights: list[Tensor] = list(net.parameters())
        self._averages: list[Tensor] = list(average.parameters())
        self._buffers, self._average_buffers = list(net.buffers()), list(average.buffers())
        self._loss = torch.zeros((), device=device)
        # Taken, skipped in all, skipped in a row, longest row.
        self._counts = torch.zeros(4, dtype=torch.int64, device=device)

    def __call__(self, batches: Sequence[Batch], *, lr: float, decay: float) -> None:
        """Take a step on the mean gradient of some batches.

        Args:
            batches: One, or several whose gradients are added up.
            lr: Learning rate.
            decay: What the average keeps of itself.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self._optimiser.zero_grad(set_to_none=True)
        # Statistics of normalisation move as soon as the network runs.
        buffers = [buffer.clone() for buffer in self._buffers]
        loss = torch.zeros((), device=self._device)
        for number, batch in enumerate(batches, start=1):
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()
            # Ranks need to meet only once a step.
            apart = isinstance(self._model, DistributedDataParallel) and number < len(batches)
            with self._model.no_sync() if apart else nullcontext():  # type: ignore[operator]
                with autocast(self._device, self._precision):
                    losses = self._objective.loss(self._model, batch)
                # Over all places, valid or not: so the sum over ranks is that of one large batch.
                part = (losses * batch.valid).mean() / len(batches)
                part.backward()
            loss += part.detach()
        norm = nn.utils.clip_grad_norm_(self._weights, self._clip_norm)
        taken = norm.isfinite()
        # The fused optimiser leaves weights and moments as they are where this is 1, as it does for
        # a gradient scaler: nobody has to look.
        self._optimiser.found_inf = (~taken).float()  # type: ignore[attr-defined]
        self._optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
            for average, buffer, before in zip(
                self._average_buffers, self._buffers, buffers, strict=True
            ):
                buffer.copy_(torch.where(taken, buffer, before))
                # Normalisation fits the averaged weights only if it is averaged like them.
                if buffer.is_floating_point():
                    average.lerp_(buffer, 1 - decay)
                else:
                    average.copy_(buffer)
            self._count(taken, loss)

    def _count(self, taken: Tensor, loss: Tensor) -> None:
        self._loss += torch.where(taken, loss, 0.0)
        num_taken, skipped, row, longest = self._counts.unbind()
        num_taken += taken
        skipped += ~taken
        row.copy_(torch.where(taken, 0, row + 1))
        longest.copy_(torch.maximum(longest, row))

    def tally(self) -> Tally:
        """Wait for the device and say what happened; counting starts anew."""
        taken, skipped, row, longest = self._counts.tolist()
        loss = self._loss.item() / taken if taken else float("nan")
        self._loss.zero_()
        self._counts.copy_(torch.tensor([0, skipped, row, row]))
        return Tally(loss=loss, taken=taken, skipped=skipped, longest_row=longest)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been counted since the last tally."""
        return {"loss": self._loss.cpu().clone(), "counts": self._counts.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._loss.copy_(state["loss"])
        self._counts.copy_(state["counts"])
