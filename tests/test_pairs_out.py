"""`agedphoto pairs`: the pairs of AgedPairs as files; killed and begun again, the same bytes."""

import errno
import gc
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from webdataset.compat import WebDataset

from agedphoto import pairs_out
from agedphoto.datasets import open_index, read_photo
from agedphoto.datasets.files import write_bytes
from agedphoto.datasets.locks import locking
from agedphoto.pairs_out import BATCH, Pairs, write_pairs
from agedphoto.synth import Ageing, EndlessTextures, Grain, Grayscale, Recipe, Texture
from agedphoto.training import UnfinishedError

PLAIN = Recipe(name="plain", defects=(Grain(sigma=(0.02, 0.1)), Texture(alpha=(0.3, 0.9))))
NUM_PHOTOS = 14
EPOCH = NUM_PHOTOS * 3
"""Pairs of an epoch; the last batch of 32 is not full."""


@pytest.fixture
def write(shards, textures):
    """Return a function that writes pairs of these shards."""

    def writes(out: Path, **options):
        settings = {
            "recipe": PLAIN, "crop_px": 16, "crops_per_photo": 3, "seed": 5, "device": "cpu",
            "textures": textures, "num_threads": 2, "shard_pairs": 20,
        }  # fmt: skip
        return write_pairs(shards, out, **(settings | options))

    return writes


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "params.jsonl").read_text().splitlines()]


def png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def levels(x: torch.Tensor) -> np.ndarray:
    """8-bit pictures (B, H, W) or (B, H, W, 3)."""
    shown = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return shown[..., 0] if shown.shape[-1] == 1 else shown


# ---------------------------------------------------------------- content


@pytest.mark.parametrize("mode", ["color", "grayscale", "rgb"])
def test_the_files_are_the_pairs_of_aged_pairs(write, open_pairs, tmp_path, mode):
    write(tmp_path / "out", mode=mode)
    made = contents(tmp_path / "out")
    pairs = open_pairs(
        recipe=PLAIN, mode=mode, crops_per_photo=3, batch_size=BATCH, last_batch="pad"
    )
    number = 0
    for batch in pairs:
        aged, clean = levels(batch.aged), levels(batch.clean)
        for i in np.flatnonzero(batch.valid.numpy()):
            name = f"{number:08d}.png"
            assert np.array_equal(png(made[f"aged/{name}"]), aged[i])
            assert np.array_equal(png(made[f"clean/{name}"]), clean[i])
            mask = png(made[f"mask/{name}"])
            assert mask.dtype == np.uint8
            assert np.array_equal(mask, batch.mask[i, 0].numpy() * np.uint8(255))
            assert lines(tmp_path / "out")[number]["key"] == int(batch.keys[i])
            number += 1
    assert number == EPOCH
    assert len(made) == 3 * EPOCH + 2


def test_a_line_tells_how_its_pair_is_made_again(write, shards, textures, tmp_path):
    """From the photo alone, by NumPy: crop, turn, age as was drawn."""
    write(tmp_path / "out", count=9)
    index = open_index(shards)
    ageing = Ageing(PLAIN, textures=textures, augment=False)
    for line in lines(tmp_path / "out"):
        number = index.keys.tolist().index(line["photo"])
        photo = read_photo(Path(f"{shards}-photos") / f"{index.keys[number]}.png")
        crop = line["crop"]
        x = photo[crop["top"] :, crop["left"] :][: crop["side"], : crop["side"]]
        for bit, turned in enumerate(
            (lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.swapaxes(0, 1))
        ):
            x = turned(x) if crop["turn"] >> bit & 1 else x
        made = {
            folder: np.asarray(
                png((tmp_path / "out" / folder / f"{line['name']}.png").read_bytes())
            )
            for folder in ("clean", "aged")
        }
        assert np.array_equal(made["clean"], x)
        keys = torch.tensor([line["key"]])
        params = [
            {name: torch.tensor([value]) for name, value in one.items()} for one in line["params"]
        ]
        aged = ageing.apply(torch.from_numpy(x.copy()).permute(2, 0, 1)[None], params, keys=keys)
        assert np.array_equal(made["aged"], levels(aged.aged)[0])
        assert (line["recipe"], line["augment"]) == ("plain", {})


def test_what_was_varied_in_the_clean_photo_is_told(write, tmp_path):
    write(tmp_path / "out", recipe="seed", count=5)
    for line in lines(tmp_path / "out"):
        assert set(line["augment"]) == {
            "moved", "along", "across", "down", "right", "lift", "gain",
        }  # fmt: skip


@pytest.mark.parametrize("format", ["folders", "shards"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(write, tmp_path, format):
    for name, seed, num_threads in (("a", 5, 1), ("b", 5, 3), ("c", 6, 2)):
        write(tmp_path / name, seed=seed, num_threads=num_threads, format=format)
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert set(first) == set(other)
    same = {name for name in first if first[name] == other[name]}
    assert not same - {name for name in first if name.startswith("mask/")}


# The library leaves closing its files to the collector.
@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning",
    "ignore:.*FileIO name=.*tar:pytest.PytestUnraisableExceptionWarning",
)
def test_shards_hold_what_folders_do(write, tmp_path):
    write(tmp_path / "folders")
    write(tmp_path / "tars", format="shards")
    made, told = contents(tmp_path / "folders"), lines(tmp_path / "folders")
    tars = sorted((tmp_path / "tars").glob("*.tar"))
    assert [path.name for path in tars] == [f"pairs-00000{n}.tar" for n in range(3)]
    samples = list(WebDataset([path.as_uri() for path in tars], shardshuffle=False))
    gc.collect()
    assert [sample["__key__"] for sample in samples] == [line["name"] for line in told]
    for sample, line in zip(samples, told, strict=True):
        assert json.loads(sample["json"]) == line
        for folder in ("clean", "aged", "mask"):
            assert sample[f"{folder}.png"] == made[f"{folder}/{line['name']}.png"]
    with tarfile.open(tars[2]) as tar:
        assert len(tar.getnames()) == 4 * (EPOCH - 40)
        assert {(member.mtime, member.uid, member.mode) for member in tar} == {(0, 0, 0o644)}


def test_more_than_an_epoch_goes_on_with_new_crops(write, tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "more", count=2 * EPOCH + 1)
    one, more = contents(tmp_path / "one"), contents(tmp_path / "more")
    assert all(more[name] == data for name, data in one.items() if name.endswith(".png"))
    told = lines(tmp_path / "more")
    assert [line["name"] for line in told] == [f"{n:08d}" for n in range(2 * EPOCH + 1)]
    assert len({line["key"] for line in told}) == 2 * EPOCH + 1
    for first in (0, EPOCH):
        photos = [line["photo"] for line in told[first : first + EPOCH]]
        assert sorted(photos) == sorted(3 * [f"{number:04d}" for number in range(NUM_PHOTOS)])


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("format", ["folders", "shards"])
@pytest.mark.parametrize("dies_at", [0, 1, 17, 40, 55])
def test_a_run_that_ended_early_goes_on_to_the_same_bytes(
    write, tmp_path, monkeypatch, format, dies_at
):
    count = EPOCH + 20
    write(tmp_path / "goal", count=count, format=format)
    encodes, done = pairs_out._Pair.encode, 0

    def encode(pair):
        nonlocal done
        done += 1
        if done > dies_at:
            raise KeyboardInterrupt
        return encodes(pair)

    monkeypatch.setattr(pairs_out._Pair, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", count=count, format=format)
    assert not (tmp_path / "out" / "pairs.json").exists()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".part")]
    monkeypatch.setattr(pairs_out._Pair, "encode", encodes)
    again = write(tmp_path / "out", count=count, format=format)
    assert again.count == count
    assert again.resumed <= dies_at
    # Batches are finished as wholes, the last of an epoch is not full; so are shards.
    assert again.resumed in ((0, BATCH, EPOCH) if format == "folders" else (0, 20, 40))
    assert contents(tmp_path / "out") == contents(tmp_path / "goal")


@pytest.mark.parametrize("torn", [b"", b'{"name":"0000', b"\n"])
def test_a_torn_line_is_written_again(write, tmp_path, torn):
    write(tmp_path / "goal")
    out = tmp_path / "out"
    write(out)
    (out / "pairs.json").rename(out / ".plan.json")
    told = (out / "params.jsonl").read_bytes().splitlines(keepends=True)
    (out / ".params.jsonl").write_bytes(b"".join(told[:7]) + torn.strip(b"\n"))
    (out / "params.jsonl").unlink()
    (out / "aged" / ".00000007.png.0123abcd.part").write_bytes(b"half")
    assert write(out).resumed == 7
    assert contents(out) == contents(tmp_path / "goal")


@pytest.mark.parametrize("format", ["folders", "shards"])
def test_a_run_killed_just_before_its_end_only_says_so(write, tmp_path, format):
    out = tmp_path / "out"
    write(out, format=format)
    goal = contents(out)
    (out / "pairs.json").rename(out / ".plan.json")
    assert write(out, format=format).resumed == EPOCH
    assert contents(out) == goal


@pytest.mark.parametrize("format", ["folders", "shards"])
def test_what_is_finished_is_said_to_be(write, tmp_path, format):
    assert write(tmp_path / "out", format=format).resumed == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert write(tmp_path / "out", format=format).resumed == EPOCH
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 6}, "seed was 5, is 6"), ({"count": 7}, "count was 42, is 7"),
        ({"crop_px": 12}, "crop_px was 16, is 12"), ({"mode": "rgb"}, "mode was color, is rgb"),
        ({"format": "shards"}, "format was folders, is shards"), ({"recipe": "seed"}, "recipe was"),
        ({"crops_per_photo": 2}, "crops_per_photo was 3, is 2"),
    ],
)  # fmt: skip
def test_a_folder_of_other_pairs_is_refused_and_stays(write, tmp_path, change, named):
    write(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=f"holds other pairs: .*{named}"):
        write(tmp_path / "out", **change)
    (tmp_path / "out" / "pairs.json").rename(tmp_path / "out" / ".plan.json")
    with pytest.raises(ValueError, match=f"holds other pairs: .*{named}"):
        write(tmp_path / "out", **change)
    (tmp_path / "out" / ".plan.json").rename(tmp_path / "out" / "pairs.json")
    assert contents(tmp_path / "out") == before


def test_a_folder_of_something_else_is_refused_and_stays(write, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match="is not empty and holds no pairs"):
        write(tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.tex": b"important"}
    with pytest.raises(ValueError, match="it is a file"):
        write(tmp_path / "out" / "thesis.tex")


def test_two_runs_at_once_are_refused(write, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locking(tmp_path / "out" / ".lock", wait_s=0),
        pytest.raises(ValueError, match="another run is writing these pairs"),
    ):
        write(tmp_path / "out")
    assert write(tmp_path / "out").count == EPOCH


# ---------------------------------------------------------------- faults


def test_a_full_disk_leaves_nothing_half_written(write, tmp_path, monkeypatch):
    written = 0

    def fills(path, data):
        nonlocal written
        written += 1
        if written > 50:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_bytes(path, data)

    monkeypatch.setattr(pairs_out, "write_bytes", fills)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "out")
    left = contents(tmp_path / "out")
    assert set(left) > {".plan.json", ".params.jsonl"}
    for name, data in left.items():
        if name.endswith(".png"):
            png(data)
    monkeypatch.setattr(pairs_out, "write_bytes", write_bytes)
    write(tmp_path / "out")
    write(tmp_path / "goal")
    assert contents(tmp_path / "out") == contents(tmp_path / "goal")


def test_a_damaged_photo_ends_the_run_and_is_named(write, shards, tmp_path):
    (tar,) = shards.glob("*.tar")
    sound = tar.read_bytes()
    with tarfile.open(tar) as members:
        at = members.getmember("0009.j2c").offset_data
    tar.write_bytes(sound[: at + 40] + bytes([sound[at + 40] ^ 255]) + sound[at + 41 :])
    with pytest.raises(UnfinishedError, match=r"stopped at pair \d+ of 42: .*0009"):
        write(tmp_path / "out")
    assert not (tmp_path / "out" / "pairs.json").exists()
    tar.write_bytes(sound)
    write(tmp_path / "out")
    write(tmp_path / "goal")
    assert contents(tmp_path / "out") == contents(tmp_path / "goal")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"count": 0}, "count must be"), ({"shard_pairs": 0}, "shard_pairs must be"),
        ({"mode": "lab"}, "PNG holds no lab"), ({"format": "lmdb"}, "format must be"),
        ({"crop_px": 999}, "crop_px 999 is larger"), ({"recipe": "none"}, "unknown recipe"),
        ({"split": "none"}, "none"), ({"seed": -1}, "seed must be"),
        ({"device": "abacus"}, "unknown device"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_done(write, tmp_path, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        write(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_textures_that_the_recipe_lacks_are_told_before_anything_is_done(write, tmp_path, textures):
    hairs = Recipe(name="hairs", defects=(Texture(families=("hairs",)),))
    dust = textures.subset([textures.families.index("dust")])
    with pytest.raises(ValueError, match="no textures 'hairs' in this bank of dust"):
        write(tmp_path / "out", recipe=hairs, textures=dust)
    assert not (tmp_path / "out").exists()


def test_endless_textures_are_others_in_every_epoch(write, tmp_path):
    endless = EndlessTextures(count=9, size_px=64)
    wear = Recipe(name="wear", defects=(Texture(alpha=(1.0, 1.0)),))
    for name in ("a", "b"):
        write(tmp_path / name, recipe=wear, textures=endless, count=EPOCH + 5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert any(png(data).any() for name, data in contents(tmp_path / "a").items() if "mask" in name)


# ---------------------------------------------------------------- the verb


def test_the_verb_writes_pairs_and_names_photos_that_are_too_small(
    make_shards, tmp_path, capsys, monkeypatch, textures
):
    monkeypatch.setattr(Ageing, "textures_on", lambda self, device: textures.to(device))
    shards = make_shards([(40, 40), (40, 16), (50, 44)])
    (tmp_path / "mine.json").write_text(
        Recipe(name="mine", defects=(Grayscale(), Grain())).to_json()
    )
    arguments = [
        str(shards), str(tmp_path / "out"), "--crop-px", "32", "--crops-per-photo", "2",
        "--recipe", str(tmp_path / "mine.json"), "--device", "cpu", "--mode", "grayscale",
    ]  # fmt: skip
    assert tyro.cli(Pairs, args=arguments).run() == 0
    said = capsys.readouterr()
    assert "agedphoto: left out: 0001 is smaller than the crop of 32 px" in said.err
    assert said.out == f"4 pairs: {tmp_path / 'out'}\n"
    assert {line["recipe"] for line in lines(tmp_path / "out")} == {"mine"}
    assert tyro.cli(Pairs, args=arguments).run() == 0
    assert capsys.readouterr().out == f"4 pairs: {tmp_path / 'out'} (finished already)\n"


# ---------------------------------------------------------------- killed

# One process that has imported everything forks the runs, so that a kill costs milliseconds. A run
# kills itself at a moment that is drawn: before it encodes, flushes or renames something.
DRIVER = """
import json, os, random, signal, sys
from pathlib import Path
import torch
from agedphoto import pairs_out
from agedphoto.synth import Grain, Recipe
from agedphoto.textures import TextureBank

torch.set_num_threads(1)
shards, undisturbed, out = map(Path, sys.argv[1:4])
format, rng = sys.argv[4], random.Random(int(sys.argv[5]))
bank = TextureBank.synthesize(2, size_px=64)

def begin(folder, steps):
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    def counted(step):
        def counts(*arguments):
            nonlocal steps
            steps -= 1
            if not steps:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments)
        return counts
    pairs_out._Pair.encode = counted(pairs_out._Pair.encode)
    os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)
    try:
        pairs_out.write_pairs(
            shards, folder, recipe=Recipe(name="r", defects=(Grain(),)), crop_px=16, count=90,
            crops_per_photo=4, device="cpu", textures=bank, num_threads=2, format=format,
            shard_pairs=13,
        )
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)

def contents(folder):
    found = folder.rglob("*") if folder.exists() else []
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if p.is_file()}

assert begin(undisturbed, 0) == 0
goal = contents(undisturbed)
kills, states, wrong = 0, set(), []
for attempt in range(200):
    status = begin(out, rng.randint(1, 400 if format == "folders" else 60))
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    kills += 1
    there = {n: d for n, d in contents(out).items() if not Path(n).name.startswith(".")}
    states.add(len(there))
    wrong += [name for name, data in there.items() if data != goal.get(name)]
print(json.dumps({
    "kills": kills, "states": len(states), "wrong": wrong, "same": contents(out) == goal,
    "odd": [name for name in contents(out).keys() ^ goal.keys()],
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")
@pytest.mark.parametrize("format", ["folders", "shards"])
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_and_begun_again_it_ends_with_the_same_bytes(
    shards, tmp_path, format, seed
):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(shards),
         str(tmp_path / "undisturbed"), str(tmp_path / "out"), format, str(seed)],
        capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == told["odd"] == []
    assert told["same"]
    assert told["kills"] >= 3
    assert told["states"] > 1
