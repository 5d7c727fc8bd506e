"""What a network is trained to do: restore pictures, or colour whole photographs.

The loop asks an objective for a network, for the loss of a batch, and for scores on pairs that are
held out; it knows nothing else of either task.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets import Batch
from ..synth import (
    AGED_CHANNELS,
    CLEAN_CHANNELS,
    LAB_SCALE,
    Mode,
    aged_in_mode,
    check_mode,
    clean_in_mode,
)
from .ab_bins import decode
from .color_loss import color_loss, estimate_prior
from .color_metrics import ab_squared_error, colorfulness, lab_to_srgb
from .colornet import COLOR_PRESETS, ColorNet, keyed_dropout
from .losses import LOSSES, Loss
from .metrics import mask_iou, picture_scores
from .unet import UNet, UNetConfig, find_preset


class Objective(Protocol):
    """A task."""

    mode: Mode

    def make_net(self) -> nn.Module:
        """Return a network with its first weights, drawn from torch's default generator."""
        ...

    def prepare(self, net: nn.Module, batches: Iterable[Batch], *, alone: bool) -> None:
        """Learn from a first look at the pairs what the network must know before it trains."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each pair (B,), float32."""
        ...

    def scores(self, net: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Return sums over the valid pairs of this rank, for `summary`."""
        ...

    def summary(self, sums: dict[str, float]) -> dict[str, float | None]:
        """Return the scores that sums over all pairs of all ranks amount to; None is unknown."""
        ...

    def score(self, summary: dict[str, float | None]) -> float:
        """Return the one figure to bring down, by which the best weights are chosen."""
        ...

    def pictures(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return clean, aged and restored pictures (B, 1 or 3, H, W) to look at, in [0, 1]."""
        ...


def net_config(preset: str, mode: Mode, *, mask_head: bool = False) -> UNetConfig:
    """Return a preset with the channels of a mode."""
    answer = CLEAN_CHANNELS[check_mode(mode)]
    return dataclasses.replace(
        find_preset(preset),
        in_channels=AGED_CHANNELS[mode],
        out_channels=answer,
        # Luma is close to each of red, green and blue.
        residual_channels=answer,
        mask_head=mask_head,
    )


class RestoreObjective:
    """Give back the clean picture, and say where damage hid it."""

    def __init__(self, *, preset: str, mode: Mode, loss: Loss, mask_weight: float) -> None:
        """Choose network and loss.

        Args:
            preset: Shape of the network.
            mode: Its channels: grayscale, rgb or color.
            loss: Of the restored pictures.
            mask_weight: Of the damage mask's cross-entropy beside it; 0 makes no mask.
        """
        self.mode: Mode = mode
        self._preset, self._loss, self._mask_weight = preset, LOSSES[loss], mask_weight

    def make_net(self) -> UNet:
        """Return the network, untrained."""
        return UNet(net_config(self._preset, self.mode, mask_head=self._mask_weight > 0))

    def prepare(self, net: nn.Module, batches: Iterable[Batch], *, alone: bool) -> None:
        """Nothing to learn beforehand."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each pair."""
        aged = batch.aged.float().contiguous(memory_format=torch.channels_last)
        if not self._mask_weight:
            return self._loss(model(aged), batch.clean)
        restored, logits = model(aged, with_mask=True)
        mask_loss = F.binary_cross_entropy_with_logits(
            logits.float(), batch.mask.float(), reduction="none"
        )
        return self._loss(restored, batch.clean) + self._mask_weight * mask_loss.mean((1, 2, 3))

    def scores(self, net: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Measure the restored pictures, the mask, and what becomes of clean pictures."""
        return _summed(self._measure(net, batch) for batch in batches)

    def _measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        aged, clean = batch.aged.float(), batch.clean.float()
        measured: dict[str, Tensor] = {}
        if self._mask_weight:
            restored, logits = net(aged, with_mask=True)
            measured["intersection"], measured["union"] = mask_iou(logits, batch.mask)
        else:
            restored = net(aged)
        quality = picture_scores(restored, clean)
        measured |= {"mse": quality["mse"], "ssim": quality["ssim"]}
        if AGED_CHANNELS[self.mode] == clean.shape[1]:
            identity = net(aged_in_mode(clean, self.mode))
            measured["identity_mse"] = picture_scores(identity, clean)["mse"]
        if clean.shape[1] == 3:
            measured |= _colors(_to_lab(restored.clamp(0, 1)), _to_lab(clean), None)
        return _valid_only(measured, batch.valid)

    def summary(self, sums: dict[str, float]) -> dict[str, float | None]:
        """Return PSNR of the mean squared error, mean SSIM, and what else was measured."""
        count = sums["count"]
        mse = sums["mse"] / count
        ssim = sums["ssim"] / count
        found: dict[str, float | None] = {
            "psnr_db": _psnr(mse),
            "mse": mse,
            "ssim": None if math.isnan(ssim) else ssim,
        }
        if "union" in sums:
            found["mask_iou"] = sums["intersection"] / sums["union"] if sums["union"] else None
        if "identity_mse" in sums:
            found["identity_psnr_db"] = _psnr(sums["identity_mse"] / count)
        return found | _color_summary(sums)

    def score(self, summary: dict[str, float | None]) -> float:
        """Return the mean squared error."""
        mse = summary["mse"]
        assert mse is not None
        return mse

    def pictures(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return them as they are."""
        return batch.clean, batch.aged, net(batch.aged.float())


class ColorObjective:
    """Colour whole photographs: tell the ab bin of every place from its luminance."""

    mode: Mode = "lab"

    def __init__(self, *, preset: str, long_side_px: int | None = None) -> None:
        """Choose the network, and say how large the photographs are that it will see."""
        config = COLOR_PRESETS[preset]
        self._config = dataclasses.replace(config, long_side_px=long_side_px or config.long_side_px)

    def make_net(self) -> ColorNet:
        """Return the network, untrained."""
        return ColorNet(self._config)

    def prepare(self, net: nn.Module, batches: Iterable[Batch], *, alone: bool) -> None:
        """Count how common each colour is in the photographs."""
        assert isinstance(net, ColorNet)
        prior = estimate_prior((batch.clean, batch.inside) for batch in batches)
        if not alone:
            dist.all_reduce(prior)
        net.prior.copy_(prior / prior.sum())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy of each photograph."""
        net = _bare(model)
        dropout = None
        if net.config.dropout:
            dropout = keyed_dropout(batch.keys, net.config.widths[-1], net.config.dropout)
        logits = model(batch.aged.float(), inside=batch.inside, dropout=dropout)
        return color_loss(logits, batch.clean, batch.inside, net.rebalance_weights())

    def scores(self, net: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Measure the cross-entropy, and the colours beside those of the clean photographs."""
        return _summed(self._measure(net, batch) for batch in batches)

    def _measure(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(net, ColorNet)
        logits, ab = self._answer(net, batch)
        lab, weights = _in_units(batch.clean), net.rebalance_weights()
        measured = {"cross_entropy": color_loss(logits, batch.clean, batch.inside, weights)}
        measured |= _colors(torch.cat([lab[:, :1], ab], dim=1), lab, batch.inside)
        return _valid_only(measured, batch.valid)

    def summary(self, sums: dict[str, float]) -> dict[str, float | None]:
        """Return the mean cross-entropy in nats, ab-PSNR and colourfulness."""
        return {"cross_entropy": sums["cross_entropy"] / sums["count"]} | _color_summary(sums)

    def score(self, summary: dict[str, float | None]) -> float:
        """Return the cross-entropy: PSNR rewards gray."""
        entropy = summary["cross_entropy"]
        assert entropy is not None
        return entropy

    def pictures(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the colours found on the clean luminance."""
        lab = _in_units(batch.clean)
        colored = torch.cat([lab[:, :1], self._answer(net, batch)[1]], dim=1)
        return lab_to_srgb(lab), batch.aged, lab_to_srgb(colored)

    def _answer(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits, and the colours that they amount to, as large as the photographs."""
        assert isinstance(net, ColorNet)
        logits = net(batch.aged.float(), inside=batch.inside)
        ab = decode(logits, net.rebalance_weights())
        return logits, F.interpolate(ab, size=batch.clean.shape[2:], mode="bilinear")


def _in_units(clean: Tensor) -> Tensor:
    """Return CIELAB as it is measured, from what a network answers."""
    return clean.float() * clean.new_tensor(LAB_SCALE, dtype=torch.float32)[:, None, None]


def _bare(model: nn.Module) -> ColorNet:
    """Return the network within what compiles it or reduces over ranks."""
    for name in ("module", "_orig_mod"):
        model = getattr(model, name, model)
    assert isinstance(model, ColorNet)
    return model


def _to_lab(rgb: Tensor) -> Tensor:
    return _in_units(clean_in_mode(rgb, "lab"))


def _colors(restored: Tensor, clean: Tensor, inside: Tensor | None) -> dict[str, Tensor]:
    """Compare CIELAB pictures (B, 3, H, W), in their units, by their colours."""
    return {
        "ab_psnr_db": _ab_psnr(ab_squared_error(restored[:, 1:], clean[:, 1:], inside)),
        "gray_ab_psnr_db": _ab_psnr(
            ab_squared_error(torch.zeros_like(clean[:, 1:]), clean[:, 1:], inside)
        ),
        "colorfulness": _colorfulness(restored, inside),
        "clean_colorfulness": _colorfulness(clean, inside),
    }


def _ab_psnr(error: Tensor) -> Tensor:
    return 10 * (255.0**2 / error.double().clamp(min=1e-12)).log10()


def _colorfulness(lab: Tensor, inside: Tensor | None) -> Tensor:
    """Of each picture without what lies around it."""
    rgb = 255 * lab_to_srgb(lab)
    if inside is None:
        return colorfulness(rgb)
    each = []
    for picture, where in zip(rgb, inside[:, 0], strict=True):
        H, W = int(where.any(1).sum()), int(where.any(0).sum())
        each.append(colorfulness(picture[None, :, :H, :W]) if H and W else rgb.new_zeros(1))
    return torch.cat(each)


def _color_summary(sums: dict[str, float]) -> dict[str, float | None]:
    names = ("ab_psnr_db", "gray_ab_psnr_db", "colorfulness", "clean_colorfulness")
    return {name: sums[name] / sums["count"] for name in names if name in sums}


def _valid_only(measured: dict[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
    """Sum over the pairs that are valid; what the others measure, NaN perhaps, is left out."""
    zero = torch.zeros((), device=valid.device)
    sums = {name: torch.where(valid, each.float(), zero).sum() for name, each in measured.items()}
    return sums | {"count": valid.float().sum()}


def _summed(parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for part in parts:
        total = {name: total.get(name, 0) + value.double().cpu() for name, value in part.items()}
    return total


def _psnr(mse: float) -> float:
    return -10 * math.log10(max(mse, 1e-12))


def make_objective(
    *, mode: Mode, preset: str, loss: Loss, mask_weight: float, long_side_px: int | None = None
) -> Objective:
    """Return the objective of a mode.

    `long_side_px` is of the photographs that mode lab will see; None is the preset's own.
    """
    if mode == "lab":
        return ColorObjective(preset=preset, long_side_px=long_side_px)
    return RestoreObjective(preset=preset, mode=mode, loss=loss, mask_weight=mask_weight)
