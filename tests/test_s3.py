"""Shards on S3, served by moto on loopback."""

import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from agedphoto.datasets import encode_photo, open_index
from agedphoto.datasets.ranges import RangeReader


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch) -> Iterator[Any]:
    """An empty bucket `photos`, and the environment that leads to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "fake", "AWS_SECRET_ACCESS_KEY": "fake",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    store: Any = boto3.resource("s3")
    store.create_bucket(Bucket="photos")
    try:
        yield store.Bucket("photos")
    finally:
        boto3.client("s3").close()
        server.stop()


def upload(bucket, folder: Path, prefix: str) -> None:
    for path in folder.iterdir():
        bucket.upload_file(str(path), f"{prefix}/{path.name}")


def test_our_set_is_read_by_ranges(bucket, make_shards, tmp_path: Path):
    shards = make_shards([(16 + n, 20) for n in range(5)], shard_bytes=2000)
    upload(bucket, shards, "set")
    local = open_index(shards)
    reader = RangeReader(cache_dir=tmp_path / "cache")
    index = open_index("s3://photos/set", reader=reader)
    assert index.fingerprint == local.fingerprint
    before = reader.counts.bytes_read
    for number in range(5):
        np.testing.assert_array_equal(index.read(number, reader), local.read(number))
    assert reader.counts.bytes_read - before == local.size.sum()
    # From the cache: the bucket is empty by now.
    bucket.objects.all().delete()
    np.testing.assert_array_equal(index.read(2, reader), local.read(2))
    assert reader.counts.cache_hits == 1
    with pytest.raises(OSError, match=r"'0002' of s3://photos/set/train-.*\.tar: cannot be read"):
        index.read(2, RangeReader())


def test_named_tars_and_braces(bucket, make_shards):
    shards = make_shards([(16 + n, 20) for n in range(5)], shard_bytes=1)
    upload(bucket, shards, "a/set")
    index = open_index("s3://photos/a/set/train-{000003..000001}.tar")
    assert index.height.tolist() == [19, 18, 17]
    assert index.fingerprint == open_index(f"{shards}/train-{{000003..000001}}.tar").fingerprint


def test_foreign_tars_are_listed_and_looked_through_in_part(bucket, tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "f").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / "f" / f"x-{number}.tar", "w") as tar:
            for photo in range(4):
                pixels = rng.integers(0, 256, (200 + number, 300, 3), dtype=np.uint8)
                (tmp_path / "p.png").write_bytes(encode_photo(pixels, "png"))
                tar.add(tmp_path / "p.png", f"{photo}.png")
    upload(bucket, tmp_path / "f", "f")
    reader = RangeReader()
    index = open_index("s3://photos/f", reader=reader)
    assert index.height.tolist() == [200] * 4 + [201] * 4 + [202] * 4
    assert reader.counts.bytes_read < sum(s.bytes for s in index.shards) * 0.4
    np.testing.assert_array_equal(index.read(7), open_index(tmp_path / "f").read(7))
    # Listings are not remembered, indexes are.
    bucket.upload_file(str(tmp_path / "f" / "x-0.tar"), "f/x-3.tar")
    again = RangeReader()
    assert len(open_index("s3://photos/f", reader=again)) == 16
    assert again.counts.bytes_read < reader.counts.bytes_read
    bucket.upload_file(str(tmp_path / "f" / "x-2.tar"), "f/x-0.tar")
    assert open_index("s3://photos/f", reader=reader).height[0] == 202


def test_what_is_not_there_fails_at_once_and_is_named(bucket):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"no index.json in s3://photos/nothing"):
        open_index("s3://photos/nothing")
    with pytest.raises(ValueError, match=r"no such shard: s3://photos/a.tar"):
        open_index("s3://photos/a.tar")
    reader = RangeReader()
    with pytest.raises(FileNotFoundError, match=r"photos/a.tar: bytes 0 to 9 not read in 1 att"):
        reader.read("s3://photos/a.tar", 0, 10)
    bucket.put_object(Key="a.tar", Body=b"0123456789")
    assert reader.read("s3://photos/a.tar", 3, 4) == b"3456"
    with pytest.raises(ValueError, match="3 of 5 bytes are there; the shard is cut short"):
        reader.read("s3://photos/a.tar", 7, 5)
    with pytest.raises(ValueError, match="0 of 5 bytes are there"):
        reader.read("s3://photos/a.tar", 70, 5)
    assert reader.counts.retries == 0
    assert time.monotonic() - begun < 15


def test_missing_credentials_are_told_with_the_remedy(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(OSError, match=r"not read in 1 attempt: .*credentials.*FSSPEC_S3_ANON"):
        RangeReader().read("s3://photos/a.tar", 0, 10)


def test_a_store_that_is_gone_ends_with_the_deadline(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"s3://photos/a.tar: bytes 0 to 9 not read"):
        RangeReader(deadline_s=2).read("s3://photos/a.tar", 0, 10)
    assert time.monotonic() - begun < 4
