"""The examples of docs/sharding.md do what they say, on one machine and tiny photographs."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from agedphoto.datasets import ShardIndex, find_photos, open_index, write_shards
from agedphoto.datasets.ranges import RangeReader

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZES = [(20 + number, 30) for number in range(7)]
NUM_PARTS = 2


@pytest.fixture
def photos(make_photos) -> Path:
    root = make_photos(SIZES)
    (root / "deeper").mkdir()
    (root / "0003.png").rename(root / "deeper" / "0003.png")
    return root


def blocks(language: str) -> list[str]:
    text = (DOCS / "sharding.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def bash(
    command: str, *arguments: str, cwd: Path, status: int = 0, env: Mapping[str, str] | None = None
) -> str:
    """Run a script with `agedphoto` on the path; return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command, "bash", *arguments],
        cwd=cwd, env={**os.environ, "PATH": path, **(env or {})},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def assert_same_samples(
    folder: Path, photos: Path, whole: Path, num_parts: int = NUM_PARTS
) -> None:
    """Compare with an undivided run, sample by sample."""
    write_shards(find_photos(photos), whole, root=photos)
    parted, expected = open_index(folder), open_index(whole)
    assert parted.keys.tolist() == expected.keys.tolist()
    for name in ("size", "crc32", "height", "width"):
        np.testing.assert_array_equal(getattr(parted, name), getattr(expected, name))
    assert contents(parted) == contents(expected)
    # Each part has at least one shard of its own.
    assert len(parted.shards) == num_parts
    assert len(expected.shards) == 1


def contents(index: ShardIndex) -> list[bytes]:
    reader = RangeReader()
    return [index.read_bytes(sample, reader) for sample in range(len(index))]


@pytest.mark.slow
def test_the_commands_make_what_one_run_makes(photos: Path, tmp_path: Path):
    [commands] = [block for block in blocks("bash") if "--part 1/3" in block]
    bash(f"set -e\n{commands}", cwd=tmp_path)
    assert_same_samples(tmp_path / "shards", photos, tmp_path / "whole", num_parts=3)


@pytest.mark.slow
def test_the_slurm_script_makes_what_one_run_makes(photos: Path, tmp_path: Path):
    """With the environment that Slurm gives to each task; sbatch is a stand-in that runs them."""
    script, submission = [block for block in blocks("bash") if "sbatch" in block.lower()][:2]
    (tmp_path / "shard.sh").write_text(script)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}"
    submission = submission.replace("1-100%20", f"1-{NUM_PARTS}%2").replace(
        "photos shards 100", f"photos shards {NUM_PARTS}"
    )
    printed = bash(f"set -e\nPATH={path}$PATH\n{submission}", cwd=tmp_path)
    assert "submitted after 4711" in printed
    assert_same_samples(tmp_path / "shards", photos, tmp_path / "whole")


SBATCH = r"""#!/bin/bash
# Runs at once what Slurm would run some time, last task first.
set -u
for argument; do
    case $argument in
        --array=*) tasks=${argument#--array=1-}; shift ;;
        --dependency=*) echo "submitted after ${argument##*:}"; shift ;;
        --wrap=*) exec bash -c "${argument#--wrap=}" ;;
        --parsable) shift ;;
    esac
done
for ((task = ${tasks%%%*}; task >= 1; task--)); do
    SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=1 bash "$@" >&2 || exit
done
echo 4711
"""


@pytest.mark.slow
def test_a_photo_that_cannot_be_read_is_no_failure_of_its_slurm_task(photos: Path, tmp_path: Path):
    [script] = [block for block in blocks("bash") if block.startswith("#!")]
    (photos / "0000.png").write_bytes(b"no photo")
    for task in range(1, NUM_PARTS + 1):
        bash(script, "photos", "shards", str(NUM_PARTS), cwd=tmp_path,
             env={"SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "1"})  # fmt: skip
    [wrapped] = re.findall('--wrap="(.*)"', "".join(blocks("bash")))
    bash(wrapped, cwd=tmp_path)
    assert len(open_index(tmp_path / "shards")) == len(SIZES) - 1
    assert "0000.png" in (tmp_path / "shards" / "rejected.jsonl").read_text()
    # A folder that is not there is one.
    bash(script, "elsewhere", "new", "3", cwd=tmp_path, status=1,
         env={"SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1"})  # fmt: skip


@pytest.mark.slow
def test_the_kubernetes_job_makes_what_one_run_makes(photos: Path, tmp_path: Path):
    yaml = pytest.importorskip("yaml")
    [manifest] = blocks("yaml")
    job = yaml.safe_load(manifest)
    assert job["kind"] == "Job"
    assert job["spec"]["completionMode"] == "Indexed"
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["bash", "-c"]
    [command] = container["args"]
    assert f"/{job['spec']['completions']}" in command
    command = command.replace(f"/{job['spec']['completions']}", f"/{NUM_PARTS}")
    for index in range(NUM_PARTS):
        bash(command, cwd=tmp_path, env={"JOB_COMPLETION_INDEX": str(index)})
    bash("agedphoto index shards && agedphoto verify shards", cwd=tmp_path)
    assert_same_samples(tmp_path / "shards", photos, tmp_path / "whole")


@pytest.mark.slow
def test_the_ray_script_makes_what_one_run_makes(photos: Path, tmp_path: Path):
    pytest.importorskip("ray", reason="Ray has no wheels for every Python")
    # Short: sockets lie in it, and their names may have no more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        [command] = [block for block in blocks("bash") if "shard_on_ray.py" in block]
        command = command.replace("--parts 100 --cores 16", f"--parts {NUM_PARTS} --cores 1")
        command = command.replace("docs/", f"{DOCS}/")
        env = {
            "RAY_TMPDIR": scratch, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local",
        }  # fmt: skip
        printed = bash(command, cwd=tmp_path, env=env)
        assert f"{len(SIZES)} photographs in {NUM_PARTS} shards" in printed
        bash("agedphoto verify shards", cwd=tmp_path)
        assert_same_samples(tmp_path / "shards", photos, tmp_path / "whole")
        # Begun again, it finds everything made.
        again = bash(command, cwd=tmp_path, env=env)
        assert f"{len(SIZES)} photographs in {NUM_PARTS} shards" in again
        assert not [
            process.info["pid"]
            for process in psutil.process_iter(["pid", "cmdline"])
            if any(scratch in word for word in process.info["cmdline"] or [])
        ]
