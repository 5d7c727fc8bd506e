"""Sharding that is killed at any moment and begun again ends with the same bytes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")

# One process that has imported everything forks the runs, so that a kill costs milliseconds. Runs
# are slowed down so that there is time to be killed in; what they do is the same.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
from agedphoto.datasets import ShardOptions, encoding, find_inputs, write_splits

train, valid, undisturbed, out = map(Path, sys.argv[1:5])
rng = random.Random(int(sys.argv[5]))
encode = encoding.encode_photo

def begin(folder, delay):
    if pid := os.fork():
        return pid
    def encode_slowly(*arguments, **options):
        time.sleep(delay)
        return encode(*arguments, **options)
    encoding.encode_photo = encode_slowly
    try:
        write_splits(
            {"train": find_inputs(train), "valid": find_inputs(valid)}, folder,
            options=ShardOptions(shard_bytes=4000), num_threads=2,
        )
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)

def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}

assert os.waitpid(begin(undisturbed, 0), 0)[1] == 0
goal = contents(undisturbed)
kills, states, wrong = 0, set(), []
for attempt in range(200):
    # The last ones are left in peace: a run must be able to come to its end.
    pid = begin(out, 0.06 if attempt < 150 else 0)
    time.sleep(rng.uniform(0.0, 0.12 if attempt < 150 else 5))
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    kills += 1
    there = contents(out)
    states.add(tuple(sorted(there)))
    wrong += [
        name for name, data in there.items()
        if name.startswith(("train-", "valid-")) and data != goal.get(name)
    ]
print(json.dumps({
    "kills": kills, "states": len(states), "wrong": wrong,
    "same": contents(out) == goal,
    "odd": [name for name in contents(out).keys() ^ goal.keys()],
    "hidden": [name for name in contents(out) if name.startswith(".")],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_and_begun_again_it_ends_with_the_same_bytes(
    make_photos, tmp_path: Path, seed
):
    photos = make_photos([(30, 40)] * 14)
    (photos / "0005.png").write_bytes(b"no photograph")
    (photos / "0013.png").write_bytes(b"no photograph")
    archive = tmp_path / "valid.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(make_photos([(20, 30)] * 3, folder="valid").iterdir()):
            file.write(path, path.name)
    folders = [photos, archive, tmp_path / "undisturbed", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, *map(str, folders), str(seed)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["hidden"] == told["odd"] == []
    assert told["same"]
    assert told["kills"] > 3
    assert told["states"] > 3
