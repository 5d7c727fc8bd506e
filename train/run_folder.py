"""The folder of a training: what it is, how far it has come, and what it has made.

    config.json             all that the training depends on, and what it implies
    log.jsonl               one record a line
    checkpoints/<seen>.pt   everything that going on needs; the newest few
    checkpoints/best.safetensors   the averaged weights that scored best, a model like any other
    curve.svg               the curves of the log, drawn when training stops
    model.safetensors       the result, once the training has ended

Every file appears under its name when it is whole; log.jsonl grows by lines.
"""

import json
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from ..datasets.files import replacing, write_bytes, write_json

MODEL_NAME = "model.safetensors"
BEST_NAME = "best.safetensors"
LOG_NAME = "log.jsonl"
CONFIG_NAME = "config.json"
CURVE_NAME = "curve.svg"
CHECKPOINTS = "checkpoints"
VERSION = 1
MOST_SHOWN = 40
"""Characters of a setting that differs."""

FREE_SETTINGS = (
    "checkpoint_minutes",
    "compile",
    "keep_checkpoints",
    "log_every",
    "tensorboard",
    "max_bad_steps",
)
"""Of the training: they change nothing about the weights, and may change when it goes on."""


class FolderError(ValueError):
    """What is in a folder does not go with the training that was asked for; nothing was touched."""


class RunFolder:
    """Reads and writes a folder of a training."""

    def __init__(self, path: Path) -> None:
        """Choose the folder; nothing is made yet."""
        self.path = path

    @property
    def model(self) -> Path:
        """Where the result is, or will be."""
        return self.path / MODEL_NAME

    @property
    def best(self) -> Path:
        """Where the best weights so far are, or will be."""
        return self.path / CHECKPOINTS / BEST_NAME

    @property
    def curve(self) -> Path:
        """Where the curves are drawn."""
        return self.path / CURVE_NAME

    @property
    def started(self) -> bool:
        """Whether a training has begun here."""
        return (self.path / CONFIG_NAME).exists()

    @property
    def finished(self) -> bool:
        """Whether the training has come to its end."""
        return self.model.exists()

    def check(self, described: dict[str, Any]) -> None:
        """Refuse a folder that holds another training.

        Raises:
            FolderError: Names every setting that differs.
        """
        self.check_foreign()
        path = self.path / CONFIG_NAME
        if not path.exists():
            return
        try:
            before = json.loads(path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise FolderError(
                f"{path} cannot be read: {error}; choose another folder, or move it away"
            ) from error
        old, new = _settings(before), _settings(json.loads(json.dumps(described)))
        changed = [
            f"{name}: {_short(old, name)} -> {_short(new, name)}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if changed:
            raise FolderError(
                f"{self.path} holds a training with other settings ({'; '.join(changed)}); give "
                "the old ones to go on with it, choose another folder, or start from its weights "
                f"with --init {self.path}"
            )

    def check_foreign(self) -> None:
        """Raise FolderError if there is a model that no training here has made."""
        if self.finished and not self.started:
            raise FolderError(
                f"{self.path} holds a model already; choose another folder or move it away"
            )

    def begin(self, described: dict[str, Any]) -> None:
        """Write config.json."""
        write_json(self.path / CONFIG_NAME, described)

    def load(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, on the CPU; None if there is none. Nothing is unpickled
        but tensors and plain data.

        Raises:
            FolderError: If it cannot be read.
        """
        paths = self.checkpoints()
        if not paths:
            return None
        newest = paths[-1]
        try:
            return _read_checkpoint(newest)
        except (OSError, ValueError) as error:
            remedy = (
                "remove it to go on from the one before"
                if paths[:-1]
                else "remove it to train from the start"
            )
            reason = getattr(error, "strerror", None) or error
            raise FolderError(f"{newest} cannot be read: {reason}; {remedy}") from error

    def save(self, state: dict[str, Any], *, keep: int) -> None:
        """Write a checkpoint, then remove all but the newest few.

        Raises:
            OSError: If it cannot be written; those that were there are there still.
        """
        path = self.path / CHECKPOINTS / f"{state['seen']:012d}.pt"
        with replacing(path) as file:
            writer = _Writer(file)
            try:
                torch.save(state | {"version": VERSION}, writer)  # type: ignore[arg-type]
            except RuntimeError:
                # torch reports a full disk as a position that it did not expect.
                if writer.error is None:
                    raise
                raise writer.error from None
        self._trim(keep)

    def sweep(self, *, keep: int) -> None:
        """Remove what those who were killed while writing have left; nobody may be writing.

        That is files that are half-written, and all checkpoints but the newest few.
        """
        for folder in (self.path, self.path / CHECKPOINTS):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)
        self._trim(keep)

    def _trim(self, keep: int) -> None:
        for old in self.checkpoints()[:-keep]:
            old.unlink(missing_ok=True)

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted((self.path / CHECKPOINTS).glob("[0-9]*.pt"))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the records; a line that was broken off is no record."""
        path = self.path / LOG_NAME
        if not path.exists():
            return []
        records = []
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def cut_log(self, seen: int) -> list[dict[str, Any]]:
        """Remove what was logged after a checkpoint, and return the records before it."""
        records = [record for record in self.read_log() if record["seen"] <= seen]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_bytes(self.path / LOG_NAME, lines.encode())
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Add a record to the log."""
        with (self.path / LOG_NAME).open("a") as file:
            file.write(json.dumps(record) + "\n")


class _Writer:
    """Remembers why a write has failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raise ValueError or OSError with the reason if it is none."""
    try:
        # torch writes checksums, but does not look at them.
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():
                raise zipfile.BadZipFile(damaged)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Its own message recommends to read the file without regard to what it may do.
        raise ValueError("it holds more than tensors and plain data") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, LookupError, TypeError,
            ValueError) as error:  # fmt: skip
        raise ValueError("it is damaged, or no checkpoint") from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise ValueError(f"its version is {version}, expected {VERSION}")
    return state


def _short(settings: dict[str, Any], name: str) -> str:
    """Return a setting to show in one line; a recipe's defects would fill a page."""
    value = str(settings.get(name, "not set"))
    return value if len(value) <= MOST_SHOWN else f"{value[: MOST_SHOWN - 3]}..."


def _settings(described: dict[str, Any]) -> dict[str, Any]:
    """Flatten what must agree: `train.lr`, `pairs.mode` and so on."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = value

    walk("", {name: part for name, part in described.items() if name not in ("implied",)})
    return {
        name: value
        for name, value in flat.items()
        if name not in [f"train.{free}" for free in FREE_SETTINGS]
    }
