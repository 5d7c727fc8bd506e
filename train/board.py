"""TensorBoard: curves, and pictures of held-out pairs as they come to be restored."""

from pathlib import Path
from typing import Any

from torch import Tensor

FOLDER = "tensorboard"
MOST_PICTURES = 4


class Board:
    """Writes events of one training."""

    def __init__(self, run: Path, *, seen: int) -> None:
        """Open the event files in the folder of a training.

        Args:
            run: The folder.
            seen: Pairs seen so far; what was written after them is taken back.
        """
        # Takes a second to import, which nobody else needs.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run / FOLDER, purge_step=seen + 1 if seen else None)

    def scalars(self, record: dict[str, Any]) -> None:
        """Show the numbers of a record of the log."""
        for name, value in record.items():
            if name != "seen" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, record["seen"])

    def pictures(self, clean: Tensor, aged: Tensor, restored: Tensor, *, seen: int) -> None:
        """Show clean, aged and restored pictures side by side, one pair a row.

        Args:
            clean: (B, C, H, W) in [0, 1], one channel or three.
            aged: Likewise.
            restored: Likewise; is clipped.
            seen: Pairs seen so far.
        """
        from torchvision.utils import make_grid

        columns = [
            one[:MOST_PICTURES].float().clamp(0, 1).cpu().expand(-1, 3, -1, -1)
            for one in (clean, aged, restored)
        ]
        rows = [picture for row in zip(*columns, strict=True) for picture in row]
        self._writer.add_image("clean, aged, restored", make_grid(rows, nrow=3, padding=4), seen)

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.close()
