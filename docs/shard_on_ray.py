"""Shard photographs with Ray: one task a part, on whichever machine has cores to spare.

All machines see both folders under the same path, and have agedphoto installed.
Begun again after any accident, it goes on: see docs/sharding.md.
"""

import argparse
import sys
from pathlib import Path

import ray
from ray.exceptions import RayError

from agedphoto.datasets import find_inputs, index_folder, write_shards
from agedphoto.datasets.parts import Part


@ray.remote
def make_part(photos: Path, shards: Path, number: int, count: int, cores: int) -> list[str]:
    """Make one part of the split; return what could not be read, and why."""
    done = write_shards(find_inputs(photos), shards, part=(number, count), num_threads=cores)
    return [reason for _, reason in done.rejected]


def main() -> int:
    """Make all parts and join them; return 1 if a part is missing."""
    parser = argparse.ArgumentParser(description="Shard photographs with Ray.")
    parser.add_argument("photos", type=Path, help="folder of photographs, or a zip")
    parser.add_argument("shards", type=Path, help="folder for the shards")
    parser.add_argument("--parts", type=int, default=100, help="how many to cut the split into")
    parser.add_argument("--cores", type=int, default=16, help="of each part")
    arguments = parser.parse_args()
    photos, shards = arguments.photos.resolve(), arguments.shards.resolve()

    ray.init(include_dashboard=False)
    parts = {
        make_part.options(num_cpus=arguments.cores).remote(
            photos, shards, number, arguments.parts, arguments.cores
        ): number
        for number in range(1, arguments.parts + 1)
        # What an earlier run has finished stays as it is.
        if not (
            shards / Part(split="train", number=number, count=arguments.parts).index_name
        ).exists()
    }
    failed, waiting = False, list(parts)
    while waiting:
        [task], waiting = ray.wait(waiting)
        try:
            rejected = ray.get(task)
        except RayError as error:
            # The other parts go on; this one is made when the script is run again.
            print(f"part {parts[task]} failed: {error}", file=sys.stderr)
            failed = True
            continue
        for reason in rejected:
            print(f"left out: {reason}", file=sys.stderr)
        print(f"part {parts[task]} of {arguments.parts} is done", flush=True)
    ray.shutdown()
    if failed:
        return 1
    index = index_folder(shards).index
    print(f"{len(index)} photographs in {len(index.shards)} shards: {shards}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
