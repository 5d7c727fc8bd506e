"""What all ranks must decide alike, agreed on without making anybody wait.

Each step the ranks exchange their clocks and whether they were asked to stop, in the background;
the answer is used one step later. On the CPU: a number from the GPU would make every step wait for
the one before.
"""

import torch
import torch.distributed as dist


class Agreement:
    """The clock that all ranks go by, and whether any of them was asked to stop."""

    def __init__(self, *, alone: bool, seconds: float = 0.0) -> None:
        """Start from the same answer on every rank.

        Args:
            alone: There is no other rank.
            seconds: What the clock shows at first.
        """
        self._alone = alone
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._answer = (seconds, False)

    def exchange(self, seconds: float, *, asked: bool) -> tuple[float, bool]:
        """Say what this rank knows; return what all knew a step ago, the latest clock of all.

        Alone, return what was said.
        """
        if self._alone:
            return seconds, asked
        answer = self._collect()
        said = torch.tensor([seconds, float(asked)], dtype=torch.float64)
        work = dist.all_reduce(said, op=dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._pending = work, said
        return answer

    def close(self) -> None:
        """Wait for what is under way; every rank has said equally much."""
        self._collect()

    def _collect(self) -> tuple[float, bool]:
        if self._pending:
            work, said = self._pending
            work.wait()
            self._answer, self._pending = (said[0].item(), bool(said[1].item())), None
        return self._answer
