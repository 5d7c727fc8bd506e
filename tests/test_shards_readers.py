"""Shards are plain: other people's readers open them."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from agedphoto.datasets import decode_photo, find_photos, read_photo, write_shards
from agedphoto.datasets.codecs import CODECS

SIZES = [(20, 30), (24, 16), (16, 16), (18, 40), (30, 30)]
FORMATS = ("htj2k", "png", "webp", "jpeg", "keep")
DALI = """
import json, sys
import numpy as np
from nvidia.dali import fn, pipeline_def, types

paths, indexes, extension = json.loads(sys.argv[1])

@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def pipeline():
    photo, facts = fn.readers.webdataset(
        paths=paths, index_paths=indexes, ext=[extension, "json"],
        missing_component_behavior="error",
    )
    return fn.decoders.image(photo, device="cpu", output_type=types.RGB), facts

built = pipeline()
built.build()
for _ in range(int(sys.argv[2])):
    photo, facts = (np.array(output.at(0)) for output in built.run())
    print(json.dumps({"photo": photo.tolist(), "facts": json.loads(facts.tobytes())}))
"""
HUGGING_FACE = """
import io, json, sys
import numpy as np
from datasets import load_dataset

rows = load_dataset(
    "webdataset", data_files={"train": json.loads(sys.argv[1])}, split="train", streaming=False
)
for row in rows:
    image = next(row[name] for name in ("png", "webp", "jpg") if name in row)
    print(json.dumps({"key": row["__key__"], "photo": np.asarray(image.convert("RGB")).tolist(),
                      "facts": row["json"]}))
"""


@pytest.fixture
def photos(make_photos) -> Path:
    return make_photos(SIZES)


def make(photos: Path, out: Path, format: str) -> list[Path]:
    index = write_shards(find_photos(photos), out, format=format, shard_bytes=2500).index  # type: ignore[arg-type]
    assert len(index.shards) > 1
    return [out / shard.name for shard in index.shards]


def extension(format: str) -> str:
    return "png" if format == "keep" else CODECS[format].extension  # type: ignore[index]


def expected(photos: Path) -> list[np.ndarray]:
    return [read_photo(path) for path in find_photos(photos)]


def check(pixels: np.ndarray, source: np.ndarray, format: str) -> None:
    if format == "jpeg":
        assert pixels.shape == source.shape
        assert np.abs(pixels.astype(int) - source).mean() < 5
    else:
        np.testing.assert_array_equal(pixels, source)


def python(code: str, *arguments: str, **environment: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # WebDataset leaves the tar open.
@pytest.mark.parametrize("format", FORMATS)
def test_webdataset_reads_them(photos: Path, tmp_path: Path, format):
    tars = make(photos, tmp_path / "out", format)
    names = [tar.as_uri() for tar in tars]
    samples = list(WebDataset(names, shardshuffle=False))
    assert len(samples) == len(SIZES)
    for sample, source in zip(samples, expected(photos), strict=True):
        data = sample[extension(format)]
        check(decode_photo(data, extension(format)), source, format)
        check(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), source, format)
        assert json.loads(sample["json"])["height"] == source.shape[0]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_them_by_brace_notation(photos: Path, tmp_path: Path):
    tars = make(photos, tmp_path / "out", "png")
    braces = f"{tmp_path.as_uri()}/out/train-{{000000..{len(tars) - 1:06d}}}.tar"
    assert len(list(WebDataset(braces, shardshuffle=False))) == len(SIZES)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.slow
def test_dali_reads_them_with_the_index_beside_them(photos: Path, tmp_path: Path, format):
    pytest.importorskip("nvidia.dali")
    tars = make(photos, tmp_path / "out", format)
    names = [[str(tar) for tar in tars], [str(tar.with_suffix(".idx")) for tar in tars]]
    read = python(DALI, json.dumps([*names, extension(format)]), str(len(SIZES)))
    assert len(read) == len(SIZES)
    for row, source in zip(read, expected(photos), strict=True):
        check(np.array(row["photo"], np.uint8), source, format)
        assert row["facts"]["width"] == source.shape[1]


@pytest.mark.skipif(shutil.which("tar") is None, reason="wds2idx asks tar")
@pytest.mark.parametrize("format", FORMATS)
def test_the_idx_is_byte_for_byte_that_of_wds2idx(photos: Path, tmp_path: Path, format):
    pytest.importorskip("wds2idx")
    for tar in make(photos, tmp_path / "out", format):
        theirs = tmp_path / "theirs.idx"
        subprocess.run(
            [sys.executable, "-m", "wds2idx", str(tar), str(theirs)],
            check=True,
            capture_output=True,
        )
        assert tar.with_suffix(".idx").read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@pytest.mark.slow
def test_hugging_face_datasets_reads_them(photos: Path, tmp_path: Path, format):
    tars = make(photos, tmp_path / "out", format)
    read = python(
        HUGGING_FACE, json.dumps([str(tar) for tar in tars]),
        HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
    )  # fmt: skip
    assert [row["key"] for row in read] == [f"{n:04d}" for n in range(len(SIZES))]
    for row, source in zip(read, expected(photos), strict=True):
        check(np.array(row["photo"], np.uint8), source, format)
        assert row["facts"]["height"] == source.shape[0]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("format", FORMATS)
def test_tar_unpacks_them(photos: Path, tmp_path: Path, format):
    (tmp_path / "unpacked").mkdir()
    for tar in make(photos, tmp_path / "out", format):
        done = subprocess.run(
            ["tar", "-xf", tar, "-C", tmp_path / "unpacked"], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert done.stderr == ""
    names = sorted(path.name for path in (tmp_path / "unpacked").iterdir())
    assert names == sorted(
        f"{n:04d}.{kind}" for n in range(len(SIZES)) for kind in (extension(format), "json")
    )
    for number, source in enumerate(expected(photos)):
        path = tmp_path / "unpacked" / f"{number:04d}.{extension(format)}"
        check(np.asarray(Image.open(path).convert("RGB")), source, format)
