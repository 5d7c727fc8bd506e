"""The cache of ranges on the local disk."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from faulty_server import FaultyServer

from agedphoto.datasets import range_cache
from agedphoto.datasets.range_cache import RangeCache
from agedphoto.datasets.ranges import RangeReader

DATA = np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8).tobytes()


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_was_put_comes_back_and_nothing_else(tmp_path: Path):
    cache = RangeCache(tmp_path, 10**6)
    cache.put("http://h/a.tar", "tag", 5, DATA)
    assert cache.get("http://h/a.tar", "tag", 5, len(DATA)) == DATA
    for other in (
        ("http://h/b.tar", "tag", 5, len(DATA)),
        ("http://h/a.tar", "other", 5, len(DATA)),
        ("http://h/a.tar", "tag", 6, len(DATA)),
        ("http://h/a.tar", "tag", 5, len(DATA) - 1),
    ):
        assert cache.get(*other) is None
    assert RangeCache(tmp_path, 10**6).get("http://h/a.tar", "tag", 5, len(DATA)) == DATA
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b"", lambda b: b + b"x", lambda b: bytes([b[0] ^ 1]) + b[1:],
     lambda b: b[:-1] + bytes([b[-1] ^ 1])],
)  # fmt: skip
def test_a_damaged_copy_is_not_taken_and_is_replaced(tmp_path: Path, damage):
    cache = RangeCache(tmp_path, 10**6)
    cache.put("u", "", 0, DATA)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("u", "", 0, len(DATA)) is None
    cache.put("u", "", 0, DATA)
    assert cache.get("u", "", 0, len(DATA)) == DATA


def test_the_limit_holds_and_the_longest_unused_go_first(tmp_path: Path):
    limit = 5 * 1100
    cache = RangeCache(tmp_path, limit)
    for number in range(30):
        cache.put("u", "", number, DATA[:1000])
        assert stored(tmp_path) <= limit
        for age, path in enumerate(sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime)):
            # Times of files are coarse: lay them apart.
            os.utime(path, (10.0 * number + age, 10.0 * number + age))
        # Number 0 is used over and over.
        assert cache.get("u", "", 0, 1000) == DATA[:1000]
    kept = [n for n in range(30) if cache.get("u", "", n, 1000)]
    assert 0 in kept
    assert 29 in kept
    assert 1 not in kept


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path):
    cache = RangeCache(tmp_path, 1500)
    cache.put("u", "", 0, DATA[:1000])
    cache.put("u", "", 1, DATA)
    assert cache.get("u", "", 1, len(DATA)) is None
    assert cache.get("u", "", 0, 1000) == DATA[:1000]
    assert cache.failures == 0


def test_an_old_cache_is_cut_to_a_new_limit_and_strangers_stay(tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(DATA)
    (tmp_path / "folder").mkdir()
    cache = RangeCache(tmp_path, 10**6)
    for number in range(20):
        cache.put("u", "", number, DATA[:1000])
    abandoned, fresh = (tmp_path / f".{'0' * 64}.range.{n * 8}.part" for n in "ab")
    for path in (abandoned, fresh):
        path.write_bytes(b"half")
    long_ago = time.time() - 7200
    os.utime(abandoned, (long_ago, long_ago))
    RangeCache(tmp_path, 5000)
    assert (tmp_path / "photo.jpg").read_bytes() == DATA
    assert (tmp_path / "folder").is_dir()
    assert not abandoned.exists()
    assert sum(p.stat().st_size for p in tmp_path.glob("*.range")) <= 5000


def test_several_processes_keep_near_one_limit(tmp_path: Path):
    """Caches that do not know of each other, as in processes."""
    limit = 200_000
    caches = [RangeCache(tmp_path, limit) for _ in range(4)]
    for number in range(800):
        caches[number % 4].put("u", str(number % 4), number, DATA[:1000])
        assert stored(tmp_path) <= limit * (1 + 4 / 64) + 4 * 1004


def test_threads_may_share_a_cache(tmp_path: Path):
    cache = RangeCache(tmp_path, 20_000)

    def work(number: int) -> bool:
        cache.put("u", "", number % 40, DATA[number % 40 :][:1000])
        found = cache.get("u", "", number % 40, 1000)
        return found in (None, DATA[number % 40 :][:1000])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(800)))
    assert stored(tmp_path) <= 20_000
    assert cache.failures == 0


def test_a_folder_that_takes_nothing_is_refused_at_once(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write into .*file"):
        RangeReader(cache_dir=tmp_path / "file")
    with pytest.raises(ValueError, match="cannot write into /proc/cache"):
        RangeReader(cache_dir=Path("/proc/cache"))
    for size in (0, -5):
        with pytest.raises(ValueError, match=f"cache_bytes must be at least 1, got {size}"):
            RangeReader(cache_dir=tmp_path / "cache", cache_bytes=size)

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(range_cache, "check_writable", lambda _: None)
    monkeypatch.setattr(range_cache.tempfile, "TemporaryFile", full)
    with pytest.raises(ValueError, match="No space left on device; choose another cache_dir"):
        RangeReader(cache_dir=tmp_path)


def test_a_disk_that_fills_up_ends_caching_but_not_reading(
    server: FaultyServer, tmp_path: Path, monkeypatch
):
    server.files["/a.tar"] = DATA
    url = f"{server.url}/a.tar"
    reader = RangeReader(cache_dir=tmp_path)
    assert reader.read(url, 0, 100) == DATA[:100]

    def full(_: bytes) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(range_cache, "_checksum", full)
    # The copy cannot be checked either: that is another matter, so only new ranges here.
    assert reader.read(url, 200, 100) == DATA[200:300]
    assert reader.read(url, 300, 100) == DATA[300:400]
    assert reader.counts.cache_failures == 1
    monkeypatch.undo()
    assert reader.read(url, 0, 100) == DATA[:100]
    assert reader.counts.cache_hits == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_ranges_are_fetched_once_unless_asked_for_fresh(server: FaultyServer, tmp_path: Path):
    server.files["/a.tar"] = DATA
    url = f"{server.url}/a.tar"
    first = RangeReader(cache_dir=tmp_path / "cache")
    second = RangeReader(cache_dir=tmp_path / "cache")
    for reader in (first, second, first):
        assert reader.read(url, 10, 100, tag="one") == DATA[10:110]
    assert len(server.requests) == 1
    assert (first.counts.cache_hits, second.counts.cache_hits) == (1, 1)
    server.files["/a.tar"] = DATA[::-1]
    assert first.read(url, 10, 100, tag="one") == DATA[10:110]
    assert first.read(url, 10, 100, tag="two") == DATA[::-1][10:110]
    assert first.read(url, 10, 100, tag="one", fresh=True) == DATA[::-1][10:110]
    assert second.read(url, 10, 100, tag="one") == DATA[::-1][10:110]
    assert len(server.requests) == 3


def test_another_signature_is_the_same_range(server: FaultyServer, tmp_path: Path):
    for day in "12":
        server.files[f"/a.tar?sig={day}"] = DATA
    reader = RangeReader(cache_dir=tmp_path)
    for day in "12":
        assert reader.read(f"{server.url}/a.tar?sig={day}", 0, 9, tag="sha256") == DATA[:9]
    assert len(server.requests) == 1


def test_local_files_are_not_cached(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(DATA)
    reader = RangeReader(cache_dir=tmp_path / "cache")
    reader.read(str(tmp_path / "a.tar"), 0, 10)
    assert not list((tmp_path / "cache").iterdir())
