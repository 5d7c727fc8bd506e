"""Which of how many processes this is."""

import os

import torch.distributed


def find_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return (rank, world_size): as given, else from torch.distributed, else from torchrun's
    environment, else (0, 1). No process group is made and nothing is communicated.

    Raises:
        ValueError: If only one of the two is given, or rank is not in [0, world_size).
    """
    if (rank is None) != (world_size is None):
        raise ValueError(
            f"give both rank and world_size or neither, got rank={rank}, world_size={world_size}"
        )
    if rank is None or world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank = int(os.environ.get("RANK", "0"))
            world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to {world_size - 1} (world_size - 1), got {rank}")
    return rank, world_size
