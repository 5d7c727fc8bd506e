"""A saved place in the sequence of pairs, and whether it means the same here."""

from collections.abc import Mapping
from typing import Any


def check_state(
    state: Mapping[str, Any], expected: Mapping[str, Any], *, num_samples: int, world_size: int
) -> int:
    """Return how many samples of its epoch a state has behind it.

    Args:
        state: As saved.
        expected: What must agree, `global_batch` among it.
        num_samples: Of an epoch.
        world_size: Ranks there are now.

    Raises:
        ValueError: If something differs, with what was and what is, and the batch size that would
            fit; or if the state is damaged.
    """
    if not isinstance(state, Mapping) or "global_batch" not in state:
        raise ValueError(
            f"this is no state of AgedPairs: {str(state)[:80]!r}; use its state_dict()"
        )
    differing = [name for name in expected if state.get(name) != expected[name]]
    if differing:
        changes = "; ".join(
            f"{name} was {state.get(name)!r}, is {expected[name]!r}" for name in differing
        )
        hint = (
            _fitting(state.get("global_batch"), world_size) if "global_batch" in differing else ""
        )
        raise ValueError(f"this state is not of these pairs: {changes}{hint}")
    samples, G = state.get("samples"), expected["global_batch"]
    if not isinstance(samples, int) or samples % G or not 0 <= samples < num_samples:
        raise ValueError(
            f"samples of a state must be a multiple of {G} below {num_samples}, got {samples!r}; "
            "the state is damaged"
        )
    return samples


def _fitting(saved: object, world_size: int) -> str:
    if not isinstance(saved, int):
        return ""
    if saved % world_size:
        return f"; {world_size} ranks cannot share a global batch of {saved}"
    return f"; use batch_size={saved // world_size} on {world_size} ranks"
