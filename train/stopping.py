"""What a training knows of its own progress: the best measurement, and how long ago it was."""

import math
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class Best:
    """The lowest score so far; progress is counted in pairs."""

    score: float = math.inf
    seen: int = 0
    """Pairs seen when it was measured."""

    def improve(self, score: float, seen: int, *, min_delta: float = 0.0) -> bool:
        """Take a score if it is lower than the best by the share `min_delta`, and say whether."""
        if not score < self.score * (1 - min_delta):
            return False
        self.score, self.seen = score, seen
        return True


@dataclass(kw_only=True, slots=True)
class EarlyStopping:
    """Says when to stop: a score has not improved for so many pairs."""

    patience: float
    """In pairs; infinite never stops."""
    min_delta: float
    """Relative to the best score: less is no improvement."""
    best: Best

    def over(self, score: float, seen: int) -> bool:
        """Take a score, and say whether patience is at its end."""
        self.best.improve(score, seen, min_delta=self.min_delta)
        return seen - self.best.seen >= self.patience


@dataclass(kw_only=True, slots=True)
class Plateau:
    """The share of the learning rate: a part of it whenever a score no longer improves."""

    patience: float
    """In pairs."""
    factor: float
    min_delta: float
    best: Best
    share: float = 1.0
    since: int = 0
    """Pairs seen when the share was last made smaller."""

    def update(self, score: float, seen: int) -> None:
        """Take a score."""
        if self.best.improve(score, seen, min_delta=self.min_delta):
            return
        if seen - max(self.best.seen, self.since) >= self.patience:
            self.share, self.since = self.share * self.factor, seen
