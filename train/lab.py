"""What a model of mode `lab` is: one network for colour, and perhaps one for luminance.

The colours come from a network that sees the whole photograph, made small; the luminance is
restored at full resolution by a network of mode `grayscale`, which may be packed into the same
file.
"""

from torch import nn

from .colornet import ColorNet
from .unet import UNet


class LabNet(nn.Module):
    """The networks of mode `lab`; `restore.Restorer` puts their answers together."""

    def __init__(self, color: ColorNet, luminance: UNet | None = None) -> None:
        """Take both networks.

        Args:
            color: Luminance to ab.
            luminance: Of mode grayscale; None leaves the luminance as it is.
        """
        super().__init__()
        self.color = color
        self.luminance = luminance

    @property
    def num_parameters(self) -> int:
        """Weights of both networks."""
        return sum(weight.numel() for weight in self.parameters())
