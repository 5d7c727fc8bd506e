"""The command line: exit status, one clear line for a mistake, nothing half-written."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agedphoto import __version__
from agedphoto.cli import main
from agedphoto.datasets import open_index

VERBS = (
    "demo",
    "shard",
    "index",
    "verify",
    "textures",
    "age",
    "pairs",
    "train",
    "evaluate",
    "restore",
    "app",
    "export",
    "bench",
    "doctor",
)


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "agedphoto", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run in this process; expect status 2 and one line on stderr, and return it."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("agedphoto: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_lists_the_verbs_that_there_are():
    helped = run("--help")
    assert helped.returncode == 0
    listed = [line.split()[2] for line in helped.stdout.splitlines() if line.startswith("│   • ")]
    assert tuple(listed) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_its_options(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: agedphoto {verb}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"agedphoto {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["frame"], ["shard"], ["shard", "--colour", "red"]])
def test_a_bad_command_line_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err


def test_the_installed_command_is_the_same():
    command = Path(sys.executable).with_name("agedphoto")
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"agedphoto {__version__}\n"


def test_doctor_finds_this_machine_fit(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "XX" not in out
    for subject in ("agedphoto", "torch", "cpu", "decode htj2k", "auto device", "auto precision"):
        assert subject in out


def test_a_folder_without_photos_is_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no photo")
    line = mistake(capsys, "shard", tmp_path / "empty", tmp_path / "out")
    assert "no photographs in" in line
    assert str(tmp_path / "empty") in line
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_named(tmp_path, capsys):
    for command in (
        ["shard", tmp_path / "gone", tmp_path / "out"],
        ["restore", tmp_path / "gone", "--out", tmp_path / "out"],
        ["demo", "--photos", tmp_path / "gone", "--out", tmp_path / "out"],
        ["train", "--shards", tmp_path / "gone", "--out", tmp_path / "out"],
    ):
        assert str(tmp_path / "gone") in mistake(capsys, *command)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_list_what_there_is(make_shards, tmp_path, capsys):
    shards = make_shards([(64, 64)])
    train = ["train", "--shards", shards, "--out", tmp_path / "run", "--crop-px", 32]
    assert "there are: awgn, creased_print, faded_print, " in mistake(
        capsys, *train, "--recipe", "daguerreotype"
    )
    assert "there are: tiny, base, large" in mistake(capsys, *train, "--preset", "huge")
    assert "use auto, cpu, cuda" in mistake(capsys, *train, "--device", "abacus")
    assert "there are: awgn, creased_print, faded_print, " in mistake(
        capsys, "demo", "--recipe", "daguerreotype", "--out", tmp_path / "demo"
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    restore = ["restore", tmp_path / "photo.png", "--out", tmp_path / "out", "--model", "rembrandt"]
    assert "unknown model 'rembrandt'; there are:" in mistake(capsys, *restore)
    for folder in ("run", "demo", "out"):
        assert not (tmp_path / folder).exists()


def test_an_unreadable_photo_is_named_and_the_rest_done(make_photos, tmp_path, capsys):
    photos = make_photos([(40, 50)] * 3)
    (photos / "0001.png").write_bytes((photos / "0001.png").read_bytes()[:500])
    (photos / "letter.jpg").write_text("Dear grandmother")
    assert main(["shard", str(photos), str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    warnings = [line for line in captured.err.splitlines() if line.startswith("agedphoto: ")]
    assert len(warnings) == 2
    assert "0001.png" in warnings[0]
    assert "letter.jpg" in warnings[1]
    assert captured.out.startswith("2 photos in 1 shards")
    assert len(json.loads((tmp_path / "out" / "index.json").read_text())["samples"]["key"]) == 2


def test_a_crop_larger_than_every_photo_is_refused(make_shards, tmp_path, capsys):
    shards = make_shards([(40, 90), (50, 60)])
    train = ["train", "--shards", shards, "--out", tmp_path / "run", "--crop-px", 64]
    line = mistake(capsys, *train)
    assert "64" in line
    assert "50 px" in line
    assert not (tmp_path / "run").exists()


def test_photos_smaller_than_the_crop_are_named_and_left_out(make_shards, tmp_path, capsys):
    shards = make_shards([(40, 90), (80, 80), (70, 90)])
    command = ["train", "--shards", shards, "--out", tmp_path / "run", "--crop-px", 64]
    command += ["--batch-size", 2, "--dry-run"]
    assert main([str(word) for word in command]) == 0
    captured = capsys.readouterr()
    assert "0000 is smaller than the crop of 64 px" in captured.err
    assert json.loads(captured.out)["implied"]["photos"] == 2
    assert not (tmp_path / "run").exists()


def test_training_goes_on_past_a_damaged_photo_if_asked_to_and_names_it(
    make_shards, tmp_path, capsys
):
    shards = make_shards([(64, 80)] * 4)
    index = open_index(shards)
    tar = shards / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[int(index.offset[2]) + 40] ^= 1
    tar.write_bytes(data)
    train = ["train", "--shards", shards, "--preset", "tiny", "--crop-px", 32, "--batch-size", 4]
    train += ["--num-pairs", 128, "--warmup-pairs", 0, "--log-every", 64]
    assert main([str(word) for word in [*train, "--out", tmp_path / "stopped"]]) == 1
    assert "photograph '0002' of" in capsys.readouterr().err
    past = [*train, "--out", tmp_path / "past", "--on-error", "skip", "--pool", "host"]
    assert main([str(word) for word in past]) == 0
    captured = capsys.readouterr()
    assert "agedphoto: not read: 0002: photograph '0002' of" in captured.err
    assert "decoder cpu" in captured.out
    last = json.loads((tmp_path / "past" / "log.jsonl").read_text().splitlines()[-1])
    assert last["bad_photos"] == 1


def test_shard_train_restore_is_one_way(make_photos, tmp_path, capsys):
    photos, shards, run_folder = make_photos([(64, 80)] * 4), tmp_path / "shards", tmp_path / "run"
    assert main(["shard", str(photos), str(shards)]) == 0
    assert main(["shard", str(photos), str(shards), "--split", "valid"]) == 0
    train = ["train", "--shards", shards, "--out", run_folder, "--preset", "tiny"]
    train += ["--crop-px", 32, "--batch-size", 4, "--num-pairs", 32, "--log-every", 8]
    train += ["--warmup-pairs", 0]
    assert main([str(word) for word in train]) == 0
    assert "all pairs seen: 32 pairs" in capsys.readouterr().out
    assert {path.name for path in run_folder.iterdir()} == {
        "checkpoints", "config.json", "curve.svg", "log.jsonl", "model.safetensors", "tensorboard",
    }  # fmt: skip
    assert main([str(word) for word in train]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([str(word) for word in [*train, "--lr", 0.5]]) == 2
    assert "settings (train.lr: 0.001 -> 0.5)" in capsys.readouterr().err

    restore = ["restore", photos, "--out", tmp_path / "restored", "--model", run_folder]
    assert main([str(word) for word in restore]) == 0
    assert "4 of 4 photos restored" in capsys.readouterr().out
    original = np.asarray(Image.open(photos / "0000.png"))
    restored = np.asarray(Image.open(tmp_path / "restored" / "0000_restored.png"))
    assert restored.shape == original.shape
    assert 0 < np.abs(restored.astype(int) - original).mean() < 20


def test_restore_names_what_it_could_not_read_and_does_the_rest(make_photos, demo_like, tmp_path):
    photos = make_photos([(40, 50)] * 2)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not quite")
    done = run("restore", photos, "--out", tmp_path / "out", "--model", demo_like)
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 of 3 photos restored" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0000_restored.png", "0001_restored.png",
    ]  # fmt: skip


@pytest.fixture
def demo_like(make_shards, tmp_path) -> Path:
    """A folder of a training that took two steps."""
    shards = make_shards([(48, 48)] * 2)
    command = ["train", "--shards", shards, "--out", tmp_path / "model", "--preset", "tiny"]
    command += ["--crop-px", 32, "--batch-size", 2, "--num-pairs", 4, "--log-every", 2]
    assert main([str(word) for word in command]) == 0
    return tmp_path / "model"


def test_a_full_disk_is_one_line_and_leaves_nothing(make_photos, tmp_path):
    """The limit on the size of files stands in for the end of the disk: both fail a write."""
    photos = make_photos([(200, 300)] * 3)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = run("shard", photos, tmp_path / "out", preexec_fn=fill)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("agedphoto: File too large")
    assert not (tmp_path / "out").exists()


def test_a_photo_damaged_on_the_way_ends_training_with_status_1(make_shards, tmp_path, capsys):
    shards = make_shards([(48, 48)] * 3)
    tar = shards / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 0xFF
    tar.write_bytes(data)
    command = ["train", "--shards", shards, "--out", tmp_path / "run", "--preset", "tiny"]
    command += ["--crop-px", 32, "--batch-size", 3, "--num-pairs", 30]
    assert main([str(word) for word in command]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("agedphoto: training ended early: photograph '0000'")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_name_with_a_line_break_is_still_one_line(tmp_path, capsys):
    assert "two\\nlines" in mistake(capsys, "shard", tmp_path / "two\nlines", tmp_path / "out")


@pytest.mark.parametrize("size", ["0", "-1", "inf", "nan"])
def test_a_shard_size_out_of_range_is_named(size, make_photos, tmp_path, capsys):
    line = mistake(capsys, "shard", make_photos([(8, 8)]), tmp_path / "out", "--shard-mb", size)
    assert "shard_mb must be" in line


def test_an_empty_argument_is_not_the_current_folder(tmp_path, capsys):
    assert "empty" in mistake(capsys, "shard", "", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_place_of_a_mistake_is_shown_on_request(tmp_path):
    wrong = ["shard", tmp_path / "gone", tmp_path / "out"]
    assert "Traceback" not in run(*wrong).stderr
    shown = run(*wrong, env={"AGEDPHOTO_TRACEBACK": "1"})
    assert "Traceback" in shown.stderr
