"""Which of how many processes this is."""

import os

import torch.distributed


def find_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return (rank, world_size): as given, else from torch.distributed, else from torchrun's
    environment, else (0, 1). No process group is made and nothing is communicated.

    Raises:
        ValueError: If only one of the two is given, rank is not in [0, world_size), or the
            environment holds something else than numbers.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(
            f"give both rank and world_size or neither, got rank={rank}, world_size={world_size}"
        )
    if rank is None or world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world_size = _from_environment("RANK", 0), _from_environment("WORLD_SIZE", 1)
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, got {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to {world_size - 1} (world_size - 1), got {rank}")
    return rank, world_size


def ranks_on_this_host(world_size: int) -> int:
    """Return how many ranks share this machine: torchrun says it, else all of them do."""
    return min(max(1, _from_environment("LOCAL_WORLD_SIZE", world_size)), world_size)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"the environment variable {name} must be a whole number, got {text!r}"
        ) from error
