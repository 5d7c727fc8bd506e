"""`agedphoto export`: a model as a file for other programs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """Write a model as ONNX, or as a program of torch.export, for pictures of any size."""

    model: str
    """Name of a model that comes with agedphoto, a .safetensors file, or a folder of a training."""
    onnx: Path | None = None
    """An .onnx file to write; a model of mode lab becomes NAME-luminance.onnx and
    NAME-color.onnx."""
    program: Path | None = None
    """A .pt2 file to write, for torch.export.load; parts as for ONNX."""

    def run(self) -> int:
        """Write the files."""
        wanted = [(self.onnx, "onnx", ".onnx"), (self.program, "program", ".pt2")]
        if not (self.onnx or self.program):
            raise ValueError("nothing to write; give --onnx FILE.onnx, --program FILE.pt2 or both")
        for path, name, suffix in wanted:
            _check_path(path, name, suffix)

        from agedphoto.datasets.files import check_writable
        from agedphoto.restore import find_model
        from agedphoto.restore.export import check_onnx, export_onnx, export_program

        if self.onnx:
            check_onnx()
        net, card = find_model(self.model)
        for path, _, _ in wanted:
            if path:
                check_writable(path.parent)
        done = export_onnx(net, card, self.onnx) if self.onnx else []
        done += export_program(net, card, self.program) if self.program else []
        for one in done:
            print(
                f"{one.part}: {one.path}, {one.path.stat().st_size / 1e6:.1f} MB, differs from "
                f"the network by at most {one.difference:.1g}"
            )
        if card.mode == "lab":
            print("a picture with colours takes more than these networks: see docs/exporting.md")
        return 0


def _check_path(path: Path | None, name: str, suffix: str) -> None:
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise ValueError(f"{name} must end in {suffix}, got {path}")
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {path}; name a file in it")
