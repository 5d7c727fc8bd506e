"""What users name as shards."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from conftest import photo_like
from faulty_server import FaultyServer

from agedphoto.datasets import ShardIndex, encode_photo, open_index, write_shards
from agedphoto.datasets.index import INDEX_NAME, Shard
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.sources import named_outright


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch) -> Path:
    """Nothing is written into the caches of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache"


@pytest.fixture
def shards(make_shards, make_photos) -> Path:
    """Twelve photos in train-000000.tar to train-000011.tar, two more in valid-000000.tar."""
    folder = make_shards([(16 + n, 20) for n in range(12)], shard_bytes=1)
    photos = make_photos([(40, 20), (41, 20)], folder="more")
    write_shards(sorted(photos.iterdir()), folder, split="valid")
    return folder


def tar_of(path: Path, *heights: int) -> Path:
    """A tar from somebody else, of pictures of these heights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, height in enumerate(heights):
            data = encode_photo(photo_like(height, 20, seed=height), "png")
            member = tarfile.TarInfo(f"{number:04d}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def heights(source, **options) -> list[int]:
    """Heights of all photos, which are found at their places, too."""
    index = open_index(source, **options)
    assert index.height.tolist() == [index.read(n).shape[0] for n in range(len(index))]
    return index.height.tolist()


def test_tars_named_outright_are_those_of_the_index_beside_them(shards: Path):
    """In the order named, with all that the index knows of them."""
    names = "train-{000002..000004}.tar"
    assert heights(f"{shards}/{names}") == [18, 19, 20]
    assert heights(f"{shards}/train-{{000011,000000}}.tar") == [27, 16]
    assert heights(shards / "train-000001.tar") == [17]
    assert heights(f"{shards}/train-00000{{1,{{3..4}}}}.tar") == [17, 19, 20]
    assert heights(f"{shards}/train-{{000008..000000..4}}.tar") == [24, 20, 16]
    assert heights([shards / "train-000001.tar", f"{shards}/valid-000000.tar"]) == [17, 40, 41]
    assert heights(f"{shards}/train-000001.tar::{shards}/train-000000.tar") == [17, 16]
    assert heights(f"{shards}/*0.tar") == [16, 26, 40, 41]
    assert heights(f"{shards}/train-00001[01].tar") == [26, 27]
    index, whole = open_index(f"{shards}/{names}"), open_index(shards)
    assert index.root == whole.root == str(shards)
    assert index.shards == whole.shards[2:5]
    np.testing.assert_array_equal(index.crc32, whole.crc32[2:5])
    np.testing.assert_array_equal(index.offset, whole.offset[2:5])


def test_a_set_is_the_same_wherever_it_lies(shards: Path, server: FaultyServer, monkeypatch):
    server.files = {f"/a/b/{path.name}": path for path in shards.iterdir()}
    names = "train-{000002..000004}.tar"
    prints = {
        open_index(f"{folder}/{names}").fingerprint
        for folder in (shards, f"file://{shards}", f"{server.url}/a/b")
    }
    monkeypatch.chdir(shards)
    prints |= {open_index(names).fingerprint, open_index(f"./{names}").fingerprint}
    assert len(prints) == 1
    assert len({open_index(s).fingerprint for s in (".", shards, f"{server.url}/a/b/")}) == 1
    assert heights(INDEX_NAME) == heights(shards)


def test_foreign_tars_need_no_index(tmp_path: Path):
    one, two = tar_of(tmp_path / "f" / "x-0.tar", 16, 17), tar_of(tmp_path / "f" / "y-0.tar", 18)
    (tmp_path / "f" / "notes.txt").write_text("")
    for source in (tmp_path / "f", f"{tmp_path}/f/*.tar", [one, two], f"{one}::{two}",
                   f"{tmp_path}/f/{{x,y}}-0.tar", f"file://{tmp_path}/f"):  # fmt: skip
        assert heights(source) == [16, 17, 18]
        index = open_index(source)
        assert index.splits == ("x", "y")
        assert [shard.name for shard in index.shards] == ["x-0.tar", "y-0.tar"]
    assert heights(tmp_path / "f", split="y") == [18]
    with pytest.raises(ValueError, match=r"no split 'z' in .*; there are: x, y"):
        open_index(tmp_path / "f", split="z")


def test_ours_and_foreign_tars_of_several_places_go_together(shards: Path, tmp_path: Path):
    other = tar_of(tmp_path / "f" / "g" / "x.tar", 50)
    tar_of(shards / "stranger.tar", 51)
    source = [other, shards / "train-000003.tar", f"{shards}/stranger.tar", shards / "../f/g"]
    with pytest.raises(ValueError, match=r"x.tar is named twice"):
        open_index(source)
    assert heights(source[:3]) == [50, 19, 51]
    index = open_index(source[:3])
    assert index.root == str(tmp_path)
    assert [shard.name for shard in index.shards] == [
        "f/g/x.tar", "shards/train-000003.tar", "shards/stranger.tar"
    ]  # fmt: skip
    assert (index.crc32 == -1).tolist() == [True, False, True]


def test_a_split_is_taken_of_folders_and_not_of_what_is_named_outright(shards: Path):
    assert heights(shards, split="valid") == [40, 41]
    assert heights(f"{shards}/train-{{000000..000001}}.tar", split="valid") == [16, 17]
    with pytest.raises(ValueError, match="no split 'test' in"):
        open_index(shards, split="test")


def test_lists_of_folders_are_one_set(shards: Path, make_shards):
    second = make_shards([(30, 20)], name="second")
    assert heights([second, shards], split="train") == [30, *range(16, 28)]
    assert named_outright([second, shards]) is False


@pytest.mark.parametrize(
    ("source", "outright"),
    [
        ("data/set", False),
        ("data/set/index.json", False),
        ("https://h/set", False),
        ("a.tar", True),
        (Path("a.tar"), True),
        ("https://h/train-{0..3}.tar?sig=1", True),
        ("https://h/get?file=a.tar", True),
        (["a.tar", "s3://b/b.tar"], True),
        ("a.tar::b.tar", True),
        (["a.tar", "data/set"], False),
    ],
)
def test_it_is_told_whether_tars_are_named(source, outright: bool):
    assert named_outright(source) is outright


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], r"no shards are named by \[\]"),
        ("", "shards are named by an empty text"),
        (["a.tar", ""], "empty text"),
        ("pipe:curl https://h/a.tar", "is a pipe, which cannot be read from its middle"),
        (["x", "pipe:cat a.tar"], "is a pipe"),
        ("a-{000..002.tar", "braces do not match in 'a-{000..002.tar'"),
        ("a-{0..99999999}.tar", "stands for more than 1,000,000 shards"),
        ("a-{0..1999}{0..1999}.tar", "stands for more than 1,000,000 shards"),
        ("nowhere-*.tar", r"nothing matches 'nowhere-\*.tar'"),
        ("https://h/x-*.tar", "patterns are for local files; use braces"),
        ("nowhere/a.tar", "no such shard: nowhere/a.tar; correct its name"),
        ("nowhere/a-{0..2}.tar", "no such shard: nowhere/a-0.tar"),
        ("nowhere", "no index.json in nowhere; make the shards with: agedphoto shard"),
        (["a.tar", "a.tar"], "a.tar is named twice; name every shard once"),
        ("a.tar::./a.tar", "a.tar is named twice"),
        ("https://h/{a,a}.tar", "https://h/a.tar is named twice"),
        ("nowhere/a.tar.gz", "no such shard: nowhere/a.tar.gz"),
        ("nonsense://x/a.tar", "cannot open nonsense://x"),
        ("nonsense://x", "cannot open nonsense://x"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, monkeypatch, source, message: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_index(source)


def test_a_shard_that_is_missing_is_named(shards: Path):
    (shards / "train-000003.tar").unlink()
    for source in ("train-{000002..000004}.tar", "train-{000002..000099}.tar"):
        with pytest.raises(ValueError, match=r"no such shard: .*/train-0000(03|12).tar"):
            open_index(f"{shards}/{source}")


def test_a_set_that_is_not_finished_is_not_taken_for_a_foreign_one(shards: Path):
    (shards / INDEX_NAME).unlink()
    assert len(open_index(shards)) == 14
    (shards / ".train.journal").write_text("")
    with pytest.raises(ValueError, match=r"not finished \(.train.journal\); run the same"):
        open_index(shards)
    (shards / ".train.journal").rename(shards / "train-00001-of-00002.index.json")
    with pytest.raises(ValueError, match=r"are not joined yet .*; join them with: agedphoto index"):
        open_index(shards)


def test_signs_in_names_are_only_names_where_they_exist(tmp_path: Path):
    for name in ("{a,b}", "x*", "[c]", "d::e"):
        tar_of(tmp_path / name / f"{name}-{{0..1}}.tar", 16)
        assert heights(tmp_path / name) == [16]
        assert heights(tmp_path / name / f"{name}-{{0..1}}.tar") == [16]


def test_our_set_on_http_takes_one_request_and_no_whole_shard(shards: Path, server: FaultyServer):
    server.files = {f"/set/{path.name}": path for path in shards.iterdir()}
    index = open_index(f"{server.url}/set/")
    assert server.requests == [("GET", f"/set/{INDEX_NAME}", None)]
    assert index.fingerprint == open_index(shards).fingerprint
    assert len(open_index(f"{server.url}/set/train-{{000000..000002}}.tar")) == 3
    assert len(server.requests) == 2
    reader = RangeReader()
    for number in range(len(index)):
        index.read(number, reader)
    asked = [wanted for _, path, wanted in server.requests if path.endswith(".tar")]
    assert len(asked) == len(index)
    assert all(asked)
    assert reader.counts.bytes_read == index.size.sum()


def test_foreign_tars_on_http_are_named_outright(tmp_path: Path, server: FaultyServer):
    server.files["/f/x-0.tar"] = tar_of(tmp_path / "x-0.tar", 16, 17)
    server.files["/f/x-1.tar"] = tar_of(tmp_path / "x-1.tar", 18)
    index = open_index(f"{server.url}/f/x-{{0..1}}.tar")
    assert index.height.tolist() == [16, 17, 18]
    assert (index.root, index.shards[1].name) == (f"{server.url}/f", "x-1.tar")
    with pytest.raises(ValueError, match=r"no index.json in http.*/f, and a web server has no"):
        open_index(f"{server.url}/f")
    with pytest.raises(ValueError, match=r"no such shard: http.*/f/x-2.tar"):
        open_index(f"{server.url}/f/x-{{0..2}}.tar")


def test_signed_urls_work_and_are_not_told(tmp_path: Path, shards: Path, server: FaultyServer):
    tar = tar_of(tmp_path / "x-0.tar", 16, 17)
    server.files["/f/x-0.tar?sig=SECRET1"] = tar
    url = f"{server.url}/f/x-0.tar?sig=SECRET1"
    index = open_index(url)
    assert index.read(1).shape == (17, 20, 3)
    # Another signature: the same set.
    server.files["/f/x-0.tar?sig=SECRET2"] = tar
    assert open_index(url.replace("SECRET1", "SECRET2")).fingerprint == index.fingerprint
    server.files = {f"/set/{path.name}?sas=SECRET3": path for path in shards.iterdir()}
    whole = open_index(f"{server.url}/set?sas=SECRET3")
    assert whole.read(3).shape == (19, 20, 3)
    assert whole.fingerprint == open_index(shards).fingerprint
    named = open_index(f"{server.url}/set/train-{{000000..000001}}.tar?sas=SECRET3")
    assert (named.height.tolist(), named.crc32[0]) == ([16, 17], whole.crc32[0])
    server.files = {}
    for failing in (lambda: index.read(1), lambda: whole.read(1), lambda: open_index(url),
                    lambda: open_index(f"{server.url}/set?sas=SECRET3")):  # fmt: skip
        with pytest.raises((OSError, ValueError)) as failed:
            failing()
        assert "SECRET" not in str(failed.value)


def test_folders_that_can_be_listed_are_looked_through(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/foreign/x-0.tar", tar_of(tmp_path / "x-0.tar", 16).read_bytes())
    try:
        assert heights("memory://foreign") == [16]
        memory.pipe_file("/foreign/x-1.tar", tar_of(tmp_path / "x-1.tar", 17).read_bytes())
        assert heights("memory://foreign") == [16, 17]
        with pytest.raises(ValueError, match=r"no index.json in memory://empty"):
            open_index("memory://empty")
    finally:
        memory.rm("/foreign", recursive=True)


def test_a_million_photographs_open_in_a_second(tmp_path: Path):
    """In a process of its own, so that only the opening counts; cores are shared, so its time."""
    N, S = 1_000_000, 1000
    rng = np.random.default_rng(0)
    columns = {
        name: rng.integers(1, top, N)
        for name, top in (("offset", 10**9), ("size", 5 * 10**6), ("crc32", 2**32),
                          ("height", 2041), ("width", 2041))
    }  # fmt: skip
    index = ShardIndex(
        root="",
        shards=tuple(
            Shard(name=f"train-{n:06d}.tar", split="train", bytes=10**9, sha256=f"{n:064x}")
            for n in range(S)
        ),
        extensions=("j2c",),
        keys=np.strings.add("photograph-", np.arange(N).astype(np.dtypes.StringDType())),
        extension=np.zeros(N, np.int64),
        shard=np.sort(rng.integers(0, S, N)),
        **columns,
    )
    (tmp_path / INDEX_NAME).write_bytes(index.to_json())
    script = (
        "import sys, time, dataclasses, numpy as np\n"
        "from agedphoto.datasets import open_index\n"
        "begun = time.process_time()\n"
        "index = open_index(sys.argv[1]).of_split('train')\n"
        "taken = time.process_time() - begun\n"
        "assert len(index) == 1_000_000\n"
        "columns = {f.name for f in dataclasses.fields(index)}\n"
        "columns -= {'root', 'shards', 'extensions'}\n"
        "assert all(type(getattr(index, name)) is np.ndarray for name in columns), columns\n"
        "assert all(getattr(index, name).dtype != object for name in columns), columns\n"
        "print(taken, index.fingerprint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    taken, fingerprint = done.stdout.split()
    assert fingerprint == index.fingerprint
    assert float(taken) < 1.5
