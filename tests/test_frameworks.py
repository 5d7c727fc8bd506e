"""Aged pairs under Accelerate and Lightning: each rank its own part, together the epoch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

SCRIPT = Path(__file__).with_name("two_ranks.py")


def run(tmp_path: Path, *arguments: object, ranks: int = 2) -> list[dict]:
    """Run a function of two_ranks.py under torchrun; return what each rank said."""
    out = tmp_path / "said"
    out.mkdir()
    function, shards, *more = map(str, arguments)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
            str(ranks), str(SCRIPT), function, shards, str(out), *more,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, said
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["accelerate", "lightning"])
def test_ranks_see_disjoint_samples_whose_union_is_the_epoch(
    open_pairs, shards, tmp_path, framework
):
    pytest.importorskip(framework)
    alone = open_pairs(batch_size=4, crops_per_photo=3)
    epoch = [key for batch in alone for key in batch.keys.tolist()]
    first, second = run(tmp_path, framework, shards)
    assert not set(first["keys"]) & set(second["keys"])
    assert set(first["keys"]) | set(second["keys"]) == set(epoch)
    assert len(first["keys"]) == len(second["keys"]) == len(epoch) // 2
    assert first["batches"] == second["batches"] == len(alone)
    # They trained as one.
    assert first["weight"] == pytest.approx(second["weight"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dispatch", "shard"])
def test_a_second_split_by_accelerate_is_refused(shards, tmp_path, how):
    pytest.importorskip("accelerate")
    said = run(tmp_path, "accelerate_prepared", shards, how)
    # What is dispatched is read on rank 0 alone; what is sharded, on both.
    refused = [rank["refused"] for rank in said]
    assert "leave it out of accelerator.prepare" in refused[0]
    assert how == "dispatch" or refused[0] == refused[1]


def test_one_process_may_be_prepared_where_nothing_is_split(open_pairs):
    accelerate = pytest.importorskip("accelerate")
    splitting = accelerate.DataLoaderConfiguration(dispatch_batches=False)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=splitting)
    loader = accelerator.prepare(DataLoader(open_pairs(), batch_size=None))
    for ours, theirs in zip(open_pairs(), loader, strict=True):
        assert torch.equal(ours.aged, theirs.aged)
        assert torch.equal(ours.keys, theirs.keys)


def test_there_is_no_generator_for_those_who_ask(open_pairs):
    assert not hasattr(open_pairs(), "generator")
