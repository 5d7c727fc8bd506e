"""All ranks hear the same answer, one step late, and wait for nobody to give it."""

import json

import pytest
from launched import Launched

from agedphoto.train.agreement import Agreement

RANK = """
import json, sys, time
import torch.distributed as dist
from agedphoto.train.agreement import Agreement

rank, world_size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group(
    "gloo", store=dist.FileStore(store, world_size), rank=rank, world_size=world_size
)
agreement = Agreement(alone=False, seconds=7.0)
answers, longest = [], 0.0
for step in range(6):
    # The last rank is the slow one, with the latest clock; the first is asked to stop.
    if rank == world_size - 1:
        time.sleep(3.0 if step == 0 else 0.1)
    begun = time.perf_counter()
    asked = rank == 0 and step >= 3
    answers.append(agreement.exchange(10.0 * step + rank, asked=asked))
    if step == 0:
        longest = time.perf_counter() - begun
agreement.close()
agreement.close()
dist.destroy_process_group()
print(json.dumps({"answers": answers, "first_s": longest}))
"""


def test_alone_the_answer_is_what_was_said_at_once():
    agreement = Agreement(alone=True, seconds=5.0)
    assert agreement.exchange(6.0, asked=False) == (6.0, False)
    assert agreement.exchange(7.0, asked=True) == (7.0, True)
    agreement.close()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_hear_the_latest_clock_and_any_request_one_step_late(tmp_path, world_size):
    launched = [
        Launched("-c", RANK, rank, world_size, tmp_path / "store") for rank in range(world_size)
    ]
    told = []
    try:
        for one in launched:
            status, said = one.end(timeout_s=300)
            assert status == 0, said
            told.append(json.loads(said))
    finally:
        for one in launched:
            one.__exit__()
    last = world_size - 1
    expected = [[7.0, False]] + [[10.0 * step + last, step >= 3] for step in range(5)]
    for one in told:
        assert one["answers"] == expected
    # Nobody waits in the step itself for the slow one.
    assert told[0]["first_s"] < 1.5
