"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLINGS = 30


@dataclass(frozen=True)
class Pauses:
    """Seconds: each pause is twice as long as the one before it, up to ``longest``."""

    first: float
    longest: float

    def after(self, failures: int) -> float:
        """The pause after so many failures in a row, of which there is one at least."""
        return min(self.longest, self.first * 2 ** min(failures - 1, _DOUBLINGS))
