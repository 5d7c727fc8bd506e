"""Every benchmark runs, at tiny size; what it measures is not tested."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agedphoto.benchmarks import crops, decode, loader, synth_peers
from agedphoto.benchmarks.clock import reached
from agedphoto.benchmarks.decoders import decoders, open_decoder
from agedphoto.benchmarks.ladder import Place, rungs
from agedphoto.benchmarks.made_up import enough_photos, make_photo, make_photos, make_shards
from agedphoto.benchmarks.record import Record, read_records
from agedphoto.benchmarks.settings import Settings
from agedphoto.benchmarks.suite import BENCHMARKS
from agedphoto.benchmarks.synth import _even_bank
from agedphoto.benchmarks.synth_peers import Work, check, contenders
from agedphoto.datasets import open_index
from agedphoto.synth import DEFECTS, RECIPES

CPU = torch.device("cpu")


def run(folder: Path, what: str, *arguments: object) -> tuple[Record, str]:
    """Run a benchmark as a person does; return its record and what was on the screen."""
    command = [sys.executable, "-m", "agedphoto", "bench", what, "--quick", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--out", str(folder), "--json", str(folder / "it.json"), *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = read_records(folder / "it.json")
    [written] = folder.glob(f"{BENCHMARKS[what]}_*.json")
    assert read_records(written) == [record]
    assert record.quick
    assert not record.failed
    for row in record.rows:
        assert row.lower <= row.median <= row.upper
        assert row.name in done.stdout
        if row.unit.endswith("/s"):
            assert row.lower > 0
    for one in record.not_measured:
        assert f"not measured: {one.table}: {one.name}: {one.why}" in done.stdout
    for suffix in (".svg", ".png"):
        assert written.with_suffix(suffix).stat().st_size > 1000
    return record, done.stdout


def names(record: Record, table: str) -> set[str]:
    """Return the names of the rows of a table."""
    return {row.name for row in record.rows if row.table == table}


def missing(record: Record, table: str) -> dict[str, str]:
    """Return what a table lacks, and why."""
    return {one.name: one.why for one in record.not_measured if one.table == table}


@pytest.mark.slow
def test_synth_measures_all_defects_and_recipes_and_the_same_work_by_others(tmp_path):
    record, shown = run(tmp_path, "synth")
    assert names(record, "defects") == set(DEFECTS)
    assert names(record, "recipes") == set(RECIPES)
    same, absent = names(record, "same work"), missing(record, "same work")
    assert {"copy floor", "agedphoto, eager", "plain torch, eager", "torchvision v2"} <= same
    assert "Kornia, as people write it" in same
    assert absent["agedphoto, fused kernel"] == "it needs a CUDA device"
    assert same | set(absent) == {one.name for one in contenders(CPU)} | {"copy floor"}
    assert "the fused kernel: it needs a CUDA device" in shown
    for row in record.rows:
        assert row.more["gb_per_s"] > 0
        # Photo, aged and clean in float32: one channel or three; textures are read too.
        assert row.more["bytes_a_pixel"] in (12, 27, 28)


@pytest.mark.slow
def test_decode_measures_every_format_by_every_decoder_there_is(tmp_path):
    record, _ = run(tmp_path, "decode")
    found = {(row.name, row.by["format"]) for row in record.rows}
    for format in decode.FORMATS:
        assert {("Pillow", format), ("imagecodecs", format)} <= found
    absent = missing(record, "decoding")
    assert absent["DALI, mixed"] == absent["nvImageCodec"] == "it needs a CUDA device"
    for row in record.rows:
        assert row.more["crops_per_s"] == pytest.approx(row.median * float(row.by["K"]))
        assert row.more["cpu_s_per_1000"] > 0
    assert {row.by["K"] for row in record.rows} == {1, 4, 16}


@pytest.mark.slow
def test_loader_climbs_the_ladder_and_scales(tmp_path):
    record, _ = run(tmp_path, "loader")
    ours = {"agedphoto, CPU threads", "agedphoto, all in the pool"}
    assert ours | {"webdataset + Pillow + Kornia"} <= names(record, "ladder")
    for row in record.rows:
        if row.table == "ladder":
            assert row.more["first_batch_s"] > 0
            assert row.more["rss_mib"] > 1
    assert {"LitData, png, K 16", "MosaicML Streaming, png, K 16"} <= set(
        missing(record, "ladder")
    ) | {row.title.replace("format ", "") for row in record.rows}
    assert {row.name for row in record.rows if row.table == "crops on one core"} == {
        "read only", "agedphoto", "webdataset + Pillow"
    }  # fmt: skip
    scaling = [row for row in record.rows if row.table == "scaling"]
    assert not scaling or scaling[0].more["efficiency"] == 1
    assert {"sharding", "verifying"} == names(record, "shards")
    assert "growth of memory" in names(record, "start and growth")


@pytest.mark.slow
def test_train_measures_ways_waiting_the_curve_over_k_and_ranks(tmp_path):
    record, _ = run(tmp_path, "train")
    presets = [row for row in record.rows if row.table == "presets"]
    assert {row.by["mode"] for row in presets} == {"grayscale", "lab"}
    usual = [row for row in presets if "utilisation" in row.more]
    assert [row.by["mode"] for row in usual] == ["grayscale", "lab"]
    for row in usual:
        assert 0 <= row.more["wait_share"] < 1
    for row in record.rows:
        if row.table in ("waiting", "utilisation over K"):
            assert row.more["wait_p50_ms"] <= row.more["wait_p99_ms"]
            assert row.median > 0
    curve = [row for row in record.rows if row.table == "utilisation over K"]
    assert {row.by["K"] for row in curve} == {1, 16}
    assert "it needs a CUDA device" in missing(record, "utilisation over K").values()
    ranks = {row.by["ranks"]: row for row in record.rows if row.table == "ranks"}
    assert ranks[1].more["efficiency"] == 1


@pytest.mark.slow
def test_quality_is_a_clock(tmp_path):
    record, _ = run(tmp_path, "quality")
    rows = [row for row in record.rows if row.table == "clock"]
    assert {row.name for row in rows} == {"sigma 15", "sigma 25", "sigma 50"}
    for row in rows:
        assert row.more["seconds"] >= row.by["budget_s"]
        # What noise of that sigma does to a picture, but for what is clipped.
        noise = -20 * math.log10(float(row.name.split()[1]) / 255)
        assert noise - 0.5 < row.median - row.more["to_noisy_db"] < noise + 2


def test_quality_without_photos_says_what_it_needs(tmp_path, capsys):
    from agedphoto.cli import main

    assert main(["bench", "quality", "--device", "cpu"]) == 0
    assert "bench quality --shards SHARDS --held-out FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "seconds"), [(20.0, 10.0), (25.0, 10.0), (26.0, math.sqrt(1000)), (27.0, 100.0)]
)
def test_a_level_is_reached_between_trainings_along_the_logarithm_of_time(level, seconds):
    assert reached([(10.0, 25.0), (100.0, 27.0)], level) == pytest.approx(seconds)
    assert reached([(10.0, 25.0), (100.0, 27.0)], 27.1) is None
    assert reached([], level) is None


def make_work(**changes: float) -> Work:
    generator = torch.Generator().manual_seed(3)
    photos = torch.randint(0, 256, (16, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return Work(photos=photos, bank=_even_bank(CPU), **changes)


@pytest.fixture
def plain():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield synth_peers.plain_torch


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sigma": 1.5}, "spread|variance"),
        ({"alpha": 2.0}, "mean|spread"),
        ({"alpha": 0.0}, "mean|coverage"),
    ],
)
def test_other_work_is_found_out_before_anything_is_timed(plain, change, what):
    def make(name: str, sigma: float, alpha: float):
        if name == "other":
            sigma, alpha = sigma * change.get("sigma", 1), alpha * change.get("alpha", 1)
        return plain(make_work(sigma=sigma, alpha=alpha))

    works = {name: make(name, synth_peers.SIGMA, synth_peers.ALPHA) for name in ("one", "other")}
    with pytest.raises(RuntimeError, match=f"not the same work: .*({what})"):
        check(works, make, 0.01)
    check({"one": works["one"]}, make, 0.01)


def test_a_loader_that_ages_otherwise_is_found_out():
    first = {"mean": 0.01, "spread": 0.1}
    loader.check_same(first, first)
    with pytest.raises(RuntimeError, match="not the same work: spread"):
        loader.check_same(first | {"spread": 0.2}, first)


def test_a_crop_that_is_no_part_of_its_photo_is_found_out(make_photos, tmp_path):
    photos = make_photos([(40, 40)])
    options = crops.Options(
        photos=photos, shards=tmp_path, crop_px=16, batch_size=1, runs=1, epochs=1
    )
    from agedphoto.datasets import find_photos, read_photo
    from agedphoto.datasets.photos import name_photos

    [path] = find_photos(photos)
    [key] = name_photos([path], photos)
    right = (key, 3, 4, read_photo(path)[3:19, 4:20])
    crops._check([[right]], 1, options)
    with pytest.raises(RuntimeError, match="not a part"):
        crops._check([[(key, 4, 4, right[3])]], 1, options)
    with pytest.raises(RuntimeError, match="not all crops are there"):
        crops._check([[right]], 2, options)


def test_pixels_that_are_not_those_that_were_encoded_are_found_out(tmp_path):
    decode._encode(Settings(device=CPU, quick=True), 1, tmp_path)
    [pillow] = [one for one in decoders(CPU) if one.name == "Pillow"]
    data = [(tmp_path / "0000.png").read_bytes()]
    with open_decoder(pillow, CPU, 1) as decoded:
        assert decode._check(decoded, data, [tmp_path / "0000.png"], "png") == 256 * 384
        np.save(tmp_path / "0000.npy", make_photo(1, (256, 384)))
        with pytest.raises(RuntimeError, match="not what was encoded"):
            decode._check(decoded, data, [tmp_path / "0000.png"], "png")


def test_every_rung_is_there_or_says_why_not():
    place = Place(shards={}, device="cuda", batch_size=1, crop_px=1, threads=1)
    for device in (CPU, torch.device("cuda")):
        found = rungs(Settings(device=device), place)
        assert {rung.kind for rung in found} == {
            "kornia", "torchvision", "dali reader", "litdata", "streaming", "ours"
        }  # fmt: skip
        assert len({(rung.name, rung.format, rung.K) for rung in found}) == len(found)
    on_cpu = {rung.name: rung.why_not for rung in rungs(Settings(device=CPU), place)}
    assert "the host's" in str(on_cpu["agedphoto, pool on the host"])


def test_made_up_photos_are_the_same_every_time_and_shards_as_many_as_workers(tmp_path):
    assert np.array_equal(make_photo(3, (40, 60)), make_photo(3, (40, 60)))
    assert not np.array_equal(make_photo(3, (40, 60)), make_photo(4, (40, 60)))
    photos = make_photos(tmp_path / "photos", 8, (40, 60))
    shards = make_shards(photos, tmp_path / "shards", "png", least_shards=4)
    assert len(open_index(shards).shards) >= 4
    assert enough_photos(photos, tmp_path / "same", 8) == photos
    more = enough_photos(photos, tmp_path / "more", 20)
    assert len(list(more.iterdir())) == 20
    with pytest.raises(ValueError, match="no photographs"):
        enough_photos(tmp_path / "shards", tmp_path / "none", 1)
