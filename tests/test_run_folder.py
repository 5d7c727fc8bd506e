"""The folder of a training: what is refused and stays as it was, what is kept, what is cut off."""

import errno
import json
import math
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from agedphoto.cli import main
from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank
from agedphoto.train import (
    PRESETS,
    FinishedError,
    FolderError,
    RunFolder,
    TrainConfig,
    UNetConfig,
    train,
)
from agedphoto.train.run_folder import FREE_SETTINGS

SMALL = {
    "preset": "nano", "precision": "fp32", "num_pairs": 24, "log_every": 4,
    "checkpoint_minutes": 0, "tensorboard": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nano(monkeypatch):
    """A small preset, and few textures where they are drawn anew."""
    monkeypatch.setitem(PRESETS, "nano", UNetConfig(widths=(8, 12), blocks=1, middle_blocks=1))
    bank = TextureBank.synthesize(3, size_px=64)
    monkeypatch.setattr("agedphoto.training.find_textures", lambda _: bank)


@pytest.fixture
def shards(make_shards) -> Path:
    return make_shards([(40, 48), (56, 44), (48, 48)])


@pytest.fixture
def make_pairs(shards, textures):
    """Return a function that opens small pairs."""
    opened = []

    def make(**options: Any) -> AgedPairs:
        settings = {
            "recipe": "seed", "crop_px": 32, "batch_size": 4, "crops_per_photo": 8,
            "device": "cpu", "textures": textures, "rank": 0, "world_size": 1,
        } | options  # fmt: skip
        opened.append(AgedPairs(shards, **settings))
        return opened[-1]

    yield make
    for pairs in opened:
        pairs.close()


def break_off(monkeypatch, run: Path, pairs: AgedPairs, config: TrainConfig) -> None:
    """Train until the second checkpoint, which fails."""
    with monkeypatch.context() as patch:
        disk_full_at(patch, checkpoint=2)
        with pytest.raises(OSError, match="No space left"):
            train(pairs, run, config)


def disk_full_at(patch, *, checkpoint: int) -> None:
    """Let the disk be full from the n-th checkpoint on."""
    whole, sync, count = RunFolder.save, os.fsync, 0

    def save(self: RunFolder, state: dict[str, Any], *, keep: int) -> None:
        nonlocal count
        count += 1
        whole(self, state, keep=keep)

    def full(file: int) -> None:
        if count >= checkpoint:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    patch.setattr(RunFolder, "save", save)
    patch.setattr("os.fsync", full)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def filled(path: Path, *, seen: tuple[int, ...] = (4, 8), keep: int = 5) -> RunFolder:
    """Return a folder with some checkpoints."""
    folder = RunFolder(path)
    for count in seen:
        folder.save({"seen": count, "weights": torch.full((300,), float(count))}, keep=keep)
    return folder


def test_a_full_disk_keeps_the_checkpoint_before_and_training_goes_on_from_it(
    make_pairs, tmp_path, monkeypatch
):
    config = TrainConfig(**SMALL)
    straight = train(make_pairs(), tmp_path / "straight", config)
    run = tmp_path / "run"
    break_off(monkeypatch, run, make_pairs(), config)
    assert sorted(contents(run)) == ["checkpoints/000000000004.pt", "config.json", "log.jsonl"]
    state = RunFolder(run).load()
    assert state is not None
    assert state["steps"] == 1
    done = train(make_pairs(), run, config)
    for name, weight in straight.net.state_dict().items():
        assert torch.equal(done.net.state_dict()[name], weight)


def test_a_full_disk_is_one_line_and_status_1_and_the_same_command_goes_on(
    shards, tmp_path, monkeypatch, capsys
):
    """A limit on the size of files stands in for the end of the disk: both fail a write."""
    run = tmp_path / "run"
    command = ["train", "--shards", shards, "--out", run, "--preset", "nano", "--device", "cpu"]
    command += ["--crop-px", 32, "--batch-size", 2, "--num-pairs", 6, "--log-every", 2]
    command += ["--checkpoint-minutes", 0]
    words = [str(word) for word in command]
    whole, limits, saved = RunFolder.save, resource.getrlimit(resource.RLIMIT_FSIZE), 0

    def save(self: RunFolder, state: dict[str, Any], *, keep: int) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        whole(self, state, keep=keep)

    monkeypatch.setattr(RunFolder, "save", save)
    try:
        status = main(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"agedphoto: File too large: {run}/checkpoints/000000000004.pt; free ")
    assert line.endswith("checkpoints that were there are kept; the same command goes on")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000000002.pt"]
    assert main(words) == 0
    assert "all pairs seen: 6 pairs" in capsys.readouterr().out


def test_other_settings_are_refused_with_old_and_new_and_the_folder_stays_as_it_is(
    make_pairs, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    break_off(monkeypatch, run, make_pairs(), TrainConfig(**SMALL))
    before = contents(run)
    config = TrainConfig(**SMALL | {"lr": 2e-3, "num_pairs": 48})
    with pytest.raises(FolderError) as refused:
        train(make_pairs(seed=3, crops_per_photo=4), run, config)
    assert (
        f"{run} holds a training with other settings (pairs.crops_per_photo: 8 -> 4; "
        "pairs.seed: 0 -> 3; train.lr: 0.001 -> 0.002; train.num_pairs: 24 -> 48); give the old"
    ) in str(refused.value)
    assert contents(run) == before


def test_the_command_refuses_other_settings_with_status_2_and_touches_nothing(
    shards, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    command = ["train", "--shards", shards, "--out", run, "--preset", "nano", "--device", "cpu"]
    command += ["--crop-px", 32, "--batch-size", 2, "--num-pairs", 4]
    words = [str(word) for word in command]
    with monkeypatch.context() as patch:
        disk_full_at(patch, checkpoint=1)
        assert main([*words, "--checkpoint-minutes", "0"]) == 1
    capsys.readouterr()
    before = contents(run)
    assert main([*words, "--lr", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "(train.lr: 0.001 -> 0.5); give the old ones" in said
    assert contents(run) == before


def test_a_finished_training_is_nothing_to_do_and_stays_as_it_is(
    make_pairs, shards, tmp_path, capsys
):
    run = tmp_path / "run"
    command = ["train", "--shards", shards, "--out", run, "--preset", "nano", "--device", "cpu"]
    command += ["--crop-px", 32, "--batch-size", 2, "--num-pairs", 4]
    words = [str(word) for word in command]
    assert main(words) == 0
    before = contents(run)
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.endswith(
        f"nothing to do: {run} holds the result of this training\n"
    )
    assert main([*words, "--lr", "0.5"]) == 2
    assert contents(run) == before


def test_a_finished_training_is_refused_by_its_own_error(make_pairs, tmp_path):
    train(make_pairs(), tmp_path / "run", TrainConfig(**SMALL))
    with pytest.raises(FinishedError, match="this training has ended"):
        train(make_pairs(), tmp_path / "run", TrainConfig(**SMALL))


def test_a_model_of_somebody_else_is_refused_and_stays(make_pairs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(FolderError, match="holds a model already; choose another folder or move"):
        train(make_pairs(), tmp_path / "run", TrainConfig(**SMALL))
    assert contents(tmp_path / "run") == {"model.safetensors": b"precious"}


FREE = {
    "checkpoint_minutes": 3.0, "compile": "no", "keep_checkpoints": 4, "log_every": 8,
    "tensorboard": True, "max_bad_steps": 7,
}  # fmt: skip


@pytest.mark.parametrize("name", FREE_SETTINGS)
def test_settings_that_change_no_weight_may_change_on_the_way(
    make_pairs, tmp_path, monkeypatch, name
):
    straight = train(make_pairs(), tmp_path / "straight", TrainConfig(**SMALL))
    run = tmp_path / "run"
    break_off(monkeypatch, run, make_pairs(), TrainConfig(**SMALL))
    config = TrainConfig(**SMALL | {name: FREE[name]})
    assert getattr(config, name) != getattr(TrainConfig(**SMALL), name)
    done = train(make_pairs(), run, config)
    for weight, other in zip(
        done.net.state_dict().values(), straight.net.state_dict().values(), strict=True
    ):
        assert torch.equal(weight, other)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FolderError, match=r"config.json cannot be read: .*; choose another folder"):
        RunFolder(tmp_path).check({})


class Foreign:
    """Something that only unpickling would make."""


@pytest.mark.parametrize("fault", ["empty", "truncated", "flipped", "text", "object", "old"])
def test_a_checkpoint_that_is_none_is_refused_by_name_with_a_remedy(tmp_path, fault):
    folder = filled(tmp_path)
    path = folder.checkpoints()[-1]
    data = bytearray(path.read_bytes())
    reason = "it is damaged, or no checkpoint"
    if fault == "empty":
        path.write_bytes(b"")
    elif fault == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif fault == "flipped":
        # In the middle of the numbers: torch alone would take them.
        data[data.index(torch.full((300,), 8.0).numpy().tobytes()) + 600] ^= 1
        path.write_bytes(data)
        assert torch.load(path, weights_only=True)["seen"] == 8
    elif fault == "text":
        path.write_text("not a checkpoint")
    elif fault == "object":
        torch.save({"version": 1, "seen": 8, "foreign": Foreign()}, path)
        reason = "it holds more than tensors and plain data"
    else:
        torch.save({"seen": 8}, path)
        reason = "its version is None, expected 1"
    with pytest.raises(FolderError) as refused:
        folder.load()
    message = f"{path} cannot be read: {reason}; remove it to go on from the one before"
    assert str(refused.value) == message
    path.unlink()
    state = folder.load()
    assert state is not None
    assert state["seen"] == 4


def test_the_only_checkpoint_that_is_damaged_says_that_training_begins_anew(tmp_path):
    folder = filled(tmp_path, seen=(4,))
    folder.checkpoints()[0].write_bytes(b"PK")
    with pytest.raises(FolderError, match="; remove it to train from the start"):
        folder.load()
    folder.checkpoints()[0].unlink()
    assert folder.load() is None


@pytest.mark.parametrize("step", [1, 7, 101])
def test_no_damage_to_a_checkpoint_is_anything_but_refused_or_harmless(tmp_path, step):
    """Each so many bytes one is changed, and the file cut off."""
    folder = filled(tmp_path, seen=(4,))
    path = folder.checkpoints()[0]
    whole = path.read_bytes()
    places = range(step, len(whole), 101 if step == 1 else 61 * step)
    refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        for data in (bytes(damaged), whole[:place]):
            path.write_bytes(data)
            try:
                state = folder.load()
            except FolderError:
                refused += 1
            else:
                assert state is not None
                assert torch.equal(state["weights"], torch.full((300,), 4.0))
    assert refused > len(places)


def test_the_command_names_a_damaged_checkpoint_with_status_2(
    shards, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    command = ["train", "--shards", shards, "--out", run, "--preset", "nano", "--device", "cpu"]
    command += ["--crop-px", 32, "--batch-size", 2, "--num-pairs", 6, "--checkpoint-minutes", 0]
    words = [str(word) for word in command]
    with monkeypatch.context() as patch:
        disk_full_at(patch, checkpoint=2)
        assert main(words) == 1
    (path,) = RunFolder(run).checkpoints()
    path.write_bytes(path.read_bytes()[:3000])
    before = contents(run)
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"agedphoto: {path} cannot be read: it is damaged, or no checkpoint; remove it to train "
        "from the start"
    )
    assert contents(run) == before


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_exactly_the_newest_checkpoints_are_kept(tmp_path, keep):
    folder = filled(tmp_path, seen=(4, 8, 12, 100, 1000), keep=keep)
    assert [int(path.stem) for path in folder.checkpoints()] == [4, 8, 12, 100, 1000][-keep:]
    assert len(contents(tmp_path)) == keep


def test_the_best_weights_do_not_count_as_a_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    folder.best.parent.mkdir()
    folder.best.write_bytes(b"weights")
    filled(tmp_path, keep=1)
    assert sorted(contents(tmp_path)) == [
        "checkpoints/000000000008.pt", "checkpoints/best.safetensors",
    ]  # fmt: skip


def test_what_killed_writers_have_left_is_swept_away_and_nothing_else(tmp_path):
    folder = filled(tmp_path)
    folder.best.write_bytes(b"weights")
    (tmp_path / "notes.part").write_text("mine")
    before = contents(tmp_path)
    (tmp_path / ".model.safetensors.0123abcd.part").write_bytes(b"half")
    (tmp_path / "checkpoints" / ".000000000012.pt.0123abcd.part").write_bytes(b"half")
    folder.sweep(keep=2)
    assert contents(tmp_path) == before


def test_sweeping_a_folder_that_is_not_there_is_no_error(tmp_path):
    RunFolder(tmp_path / "nowhere").sweep(keep=2)


def test_checkpoints_that_a_kill_kept_from_being_removed_are_swept_away(tmp_path):
    folder = filled(tmp_path, seen=(4, 8, 12, 16))
    folder.sweep(keep=2)
    assert [int(path.stem) for path in folder.checkpoints()] == [12, 16]


def test_the_log_is_cut_after_a_checkpoint_and_where_it_was_broken_off(tmp_path):
    folder = RunFolder(tmp_path)
    records = [{"seen": seen, "loss": 1 / seen} for seen in (4, 8, 12, 16)]
    for record in records:
        folder.append(record)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"seen": 20, "lo')
    assert folder.read_log() == records
    assert folder.cut_log(12) == records[:3]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == (
        records[:3]
    )
    folder.append({"seen": 16})
    assert folder.read_log() == [*records[:3], {"seen": 16}]
    assert folder.cut_log(0) == []
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_a_folder_without_a_log_has_no_records(tmp_path):
    assert RunFolder(tmp_path).read_log() == []


def test_infinite_settings_survive_as_nothing_and_are_compared(make_pairs, tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_off(monkeypatch, run, make_pairs(), TrainConfig(**SMALL, max_minutes=math.inf))
    assert json.loads((run / "config.json").read_text())["train"]["max_minutes"] is None
    with pytest.raises(FolderError, match=r"\(train.max_minutes: None -> 5.0\)"):
        train(make_pairs(), run, TrainConfig(**SMALL, max_minutes=5.0))


def test_a_folder_copied_elsewhere_goes_on_there(make_pairs, tmp_path, monkeypatch):
    straight = train(make_pairs(), tmp_path / "straight", TrainConfig(**SMALL))
    break_off(monkeypatch, tmp_path / "run", make_pairs(), TrainConfig(**SMALL))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    done = train(make_pairs(), tmp_path / "copy", TrainConfig(**SMALL))
    assert done.log[-1]["loss"] == straight.log[-1]["loss"]
