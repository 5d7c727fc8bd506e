"""The examples of docs/age_and_pairs.md do what they say, on tiny photographs."""

import re
import shlex
from pathlib import Path

import pytest

from agedphoto.cli import main

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "age_and_pairs.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# webdataset leaves closing its files to the collector.
@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning",
    "ignore:.*FileIO name=.*tar:pytest.PytestUnraisableExceptionWarning",
)
def test_every_example_does_what_it_says(make_photos, make_shards, tmp_path, monkeypatch):
    photos = make_photos([(70, 90)])
    (photos / "0000.png").rename(photos / "one.png")
    make_photos([(64, 80)], folder="photos/1950")
    make_shards([(80, 90), (70, 70)], name="data/mine")
    monkeypatch.chdir(tmp_path)
    (photos / "one.png").rename(photos / "one.jpg")
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    assert names(tmp_path / "aged") == {
        "contact_sheet.jpg", "one_aged.jpg", "one_aged_mask.png", "one_aged.json",
        "1950/0000_aged.png", "1950/0000_aged_mask.png", "1950/0000_aged.json",
    }  # fmt: skip
    again = tmp_path / "again" / "one_aged.jpg"
    assert again.read_bytes() == (tmp_path / "aged" / "one_aged.jpg").read_bytes()
    assert names(tmp_path / "defects") == {"one_defects.jpg"}
    assert names(tmp_path / "pairs") == {
        "params.jsonl", "pairs.json",
        *(f"{folder}/{n:08d}.png" for folder in ("clean", "aged", "mask") for n in range(8)),
    }  # fmt: skip
    for folder in re.findall(r"dataroot_\w+: (\S+)", TEXT):
        assert len(names(tmp_path / folder)) == 8
    (code,) = blocks("python")
    exec(code, {})
