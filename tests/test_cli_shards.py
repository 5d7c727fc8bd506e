"""The verbs shard, index and verify."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from agedphoto.cli import main
from agedphoto.datasets import div2k, open_index
from tests.conftest import photo_like


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Expect status 2 and one line on stderr, and return it."""
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("agedphoto: ")
    assert captured.err.count("\n") == 1
    return captured.err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_folder_becomes_shards_that_are_verified(make_photos, tmp_path, capsys):
    photos = make_photos([(20, 30)] * 5)
    out = tmp_path / "out"
    assert run("shard", photos, out, "--format", "png", "--shard-mb", 0.002) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"5 photos in \d shards, [\d.]+ MB: {out}", first)
    assert re.fullmatch(r"5 photos in [\d.]+ s: [\d.]+ photos/s", last)
    assert run("verify", out) == 0
    shown = capsys.readouterr()
    assert re.fullmatch(
        r"all right: 5 photos, [\d.]+ MB in [\d.]+ s: [\d.]+ photos/s, [\d.]+ MB/s\n", shown.out
    )


def test_verify_names_what_is_wrong_and_goes_on(make_photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("shard", make_photos([(20, 30)] * 4), out, "--shard-mb", 0.001) == 0
    for name in ("train-000000.tar", "train-000002.tar"):
        data = bytearray((out / name).read_bytes())
        data[600] ^= 1
        (out / name).write_bytes(data)
    capsys.readouterr()
    assert run("verify", out) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("agedphoto: ")]
    named = f"agedphoto: photograph '0002' of {out / 'train-000002.tar'}: its checksum"
    assert any(line.startswith(named) for line in lines)
    assert any(str(out / "train-000000.tar") in line for line in lines)
    assert re.match(r"\d+ faults in 4 photos", shown.out)


def test_verify_of_nothing_is_status_2(tmp_path, capsys):
    assert str(tmp_path) in mistake(capsys, "verify", tmp_path)
    assert "num_threads must be at least 1" in mistake(
        capsys, "verify", tmp_path, "--num-threads", 0
    )


def test_a_zip_becomes_shards(make_photos, tmp_path, capsys):
    photos = make_photos([(20, 30)] * 3)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, path.name)
    assert run("shard", tmp_path / "a.zip", tmp_path / "a") == 0
    assert run("shard", photos, tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    (tmp_path / "b.zip").write_bytes(b"none")
    capsys.readouterr()
    assert "is not a whole zip" in mistake(capsys, "shard", tmp_path / "b.zip", tmp_path / "c")


def test_rejected_photos_are_named_listed_and_status_1(make_photos, tmp_path, capsys):
    photos = make_photos([(20, 30)] * 3)
    (photos / "0001.png").write_bytes(b"none")
    assert run("shard", photos, tmp_path / "out") == 1
    assert f"agedphoto: left out: {photos / '0001.png'}: not a picture" in capsys.readouterr().err
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "0001.png"
    for path in photos.iterdir():
        path.write_bytes(b"none")
    assert run("shard", photos, tmp_path / "none") == 2
    assert "none of 3 photographs could be read" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_parts_are_joined(make_photos, tmp_path, capsys):
    photos, out = make_photos([(20, 30)] * 5), tmp_path / "out"
    for number in (2, 1):
        assert run("shard", photos, out, "--part", f"{number}/3") == 0
    capsys.readouterr()
    assert "these are missing: 3; make them with: agedphoto shard --part I/3" in mistake(
        capsys, "index", out
    )
    assert run("shard", photos, out, "--part", "3/3") == 0
    capsys.readouterr()
    for first in (True, False):
        assert run("index", out) == 0
        assert f"5 photos in 3 shards, train: {out}" in capsys.readouterr().out, first
    assert run("verify", out) == 0
    assert len(open_index(out)) == 5


@pytest.mark.parametrize("part", ["3", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "1/100000"])
def test_a_part_that_is_none_is_refused(part, make_photos, tmp_path, capsys):
    line = mistake(capsys, "shard", make_photos([(8, 8)]), tmp_path / "out", f"--part={part}")
    assert "part must be I/N" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quality", 90], "quality is for format jpeg, got format htj2k"),
        (["--format", "jpeg", "--quality", 0], "quality must be 1 to 100, got 0"),
        (["--base-url", "http://x"], "base_url does not go with this source"),
        (["--test-from-train", 3], "test_from_train does not go with this source"),
        (["--test-photos", "x"], "test_photos does not go with this source"),
        (["--download-dir", "x"], "download_dir does not go with this source"),
        (["--num-threads", 0], "num_threads must be at least 1, got 0"),
        (["--split", "A"], "split must be lower-case letters"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, make_photos, tmp_path, capsys):
    assert message in mistake(capsys, "shard", make_photos([(8, 8)]), tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "train"], "split does not go with this source: div2k makes its own splits"),
        (["--part", "1/2"], "part does not go with this source"),
        (["--test-from-train", 3, "--test-photos", "x"], "two ways to make the split test"),
        (["--test-from-train", 0], "count must be 1 to 799, got 0"),
        (["--test-photos", "gone"], "no such file or folder: gone"),
    ],
)
def test_options_that_do_not_fit_div2k_are_refused(options, message, tmp_path, capsys):
    assert message in mistake(capsys, "shard", "div2k", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def archives(make_photos, tmp_path, server) -> str:
    """Archives as DIV2K's on a server; returns where they lie."""
    for split, first, count in (("train", 1, 9), ("valid", 801, 2)):
        path = tmp_path / f"{split}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            photos = make_photos([(12, 16)] * count, folder=split, seed=first)
            for number, photo in enumerate(sorted(photos.iterdir())):
                archive.write(photo, f"DIV2K_{split}_HR/{first + number:04d}.png")
        server.files[f"/DIV2K_{split}_HR.zip"] = path
    return server.url


def test_div2k_is_fetched_and_made_into_its_splits(archives, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(div2k, "test_names", lambda count: frozenset({"0004", "0008"}))
    out = tmp_path / "out"
    command = ["shard", "div2k", out, "--base-url", archives, "--test-from-train", 2]
    assert run(*command, "--download-dir", tmp_path / "zips") == 0
    index = open_index(out)
    assert {split: index.of_split(split).keys.tolist() for split in index.splits} == {
        "train": ["0001", "0002", "0003", "0005", "0006", "0007", "0009"],
        "valid": ["0801", "0802"],
        "test": ["0004", "0008"],
    }
    assert (tmp_path / "zips" / "DIV2K_train_HR.zip").exists()
    assert "2 photos in 1 shards" in capsys.readouterr().out
    assert run("verify", out) == 0


def test_div2k_with_test_photos_of_ones_own(archives, make_photos, tmp_path):
    mine = make_photos([(9, 9)] * 3, folder="mine")
    out = tmp_path / "out"
    assert run("shard", "div2k", out, "--base-url", archives, "--test-photos", mine) == 0
    index = open_index(out)
    counts = {split: len(index.of_split(split)) for split in index.splits}
    assert counts == {"train": 9, "valid": 2, "test": 3}
    assert (out / "downloads" / "DIV2K_valid_HR.zip").exists()


def test_photos_to_hold_out_that_are_not_there_are_an_error(archives, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("shard", "div2k", out, "--base-url", archives, "--test-from-train", 100) == 2
    assert "only 1 of the 100 photos to hold out are in" in capsys.readouterr().err
    assert not list(out.glob("*.tar"))


def test_a_folder_called_div2k_is_named_with_its_path(make_photos, tmp_path, monkeypatch):
    make_photos([(8, 8)] * 2, folder="div2k")
    monkeypatch.chdir(tmp_path)
    assert run("shard", "./div2k", "out") == 0
    assert open_index(tmp_path / "out").splits == ("train",)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_after_ctrl_c_the_same_command_goes_on(tmp_path):
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.fromarray(photo_like(1200, 1600, seed=number)).save(
            photos / f"{number}.png", compress_level=1
        )
    command = [sys.executable, "-m", "agedphoto", "shard", photos, tmp_path / "out"]
    command += ["--shard-mb", "1", "--num-threads", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    while not (tmp_path / "out" / "train-000000.idx").exists():
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing is left half-written; " in told.splitlines()[-1]
    assert "the same command goes on after them" in told.splitlines()[-1]
    assert "Traceback" not in told
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "of them were there already" in done.stdout
    assert run("shard", photos, tmp_path / "undisturbed", "--shard-mb", 1) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
