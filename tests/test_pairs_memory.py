"""Aged pairs take no more memory the longer they run."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import gc, json, sys
import psutil
from agedphoto.datasets import AgedPairs
from agedphoto.textures import TextureBank

pairs = AgedPairs(
    sys.argv[1], crop_px=32, batch_size=8, crops_per_photo=2, device="cpu", num_threads=2,
    textures=TextureBank.synthesize(2, size_px=64), rank=0, world_size=1, mix_photos=1,
    prefetch_batches=4, ready_batches=int(sys.argv[2]), pool_bytes=36 * 96 * 96 * 3,
)
resident, process = [], psutil.Process()
for epoch in range(45):
    for batch in pairs:
        pass
    gc.collect()
    resident.append(process.memory_info().rss)
stats = pairs.stats()
pairs.close()
print(json.dumps({"resident": resident, "decoded": stats["photos_decoded"]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ready_batches", [0, 2])
def test_memory_stays_flat_over_thirty_epochs(make_shards, ready_batches):
    """The pool holds less than half of the photos, so every epoch decodes nearly all of them."""
    shards = make_shards([(96 - n % 7, 96 - n % 5) for n in range(96)], format="htj2k")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(shards), str(ready_batches)],
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["decoded"] > 30 * 96
    resident = np.array(said["resident"][-30:]) / 2**20
    slope = np.polyfit(np.arange(len(resident)), resident, 1)[0]
    # Keeping every batch would be 1.7 MiB an epoch, every decoded photo 2.3 MiB, every encoded
    # one a little less. What remains is the allocator's, and levels off.
    assert slope < 0.3, f"{slope:.3f} MiB an epoch: {resident.round(1).tolist()}"
    assert resident[-1] - resident[0] < 8, resident.round(1).tolist()
