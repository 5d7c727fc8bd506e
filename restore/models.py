"""Models by name: those that come with agedphoto lie in this folder, beside their checksums."""

from pathlib import Path

from ..train import ModelCard, Net, load_model

FOLDER = Path(__file__).parent
CHECKSUMS = "SHA256SUMS"
"""Beside the models, a line for each, as `sha256sum` writes it."""


def shipped_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def find_model(model: str | Path) -> tuple[Net, ModelCard]:
    """Load a model by name, from a file of weights, or from a folder of a training.

    Raises:
        ValueError: If there is no such model, the file is not one, or one that came with the
            package is not what it was.
    """
    shipped = shipped_models()
    if isinstance(model, str) and model in shipped:
        return _load_shipped(shipped[model])
    path = Path(model)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors" or path.exists():
        return load_model(path)
    raise ValueError(
        f"unknown model {str(model)!r}; there are: {', '.join(shipped) or 'none by name'}, or "
        "give the path of a .safetensors file that `agedphoto train` wrote"
    )


def _load_shipped(path: Path) -> tuple[Net, ModelCard]:
    sums = path.with_name(CHECKSUMS)
    lines = sums.read_text().splitlines() if sums.exists() else []
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    remedy = "install agedphoto again"
    if path.name not in expected:
        raise ValueError(f"{sums} does not know the model {path.name}; {remedy}")
    net, card = load_model(path)
    if card.sha256 != expected[path.name]:
        raise ValueError(f"{path} is not the model that came with agedphoto; {remedy}")
    return net, card
