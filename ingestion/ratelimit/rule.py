"""Rates and bursts: pure values, no Redis."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit: `rate_per_s` in the long run, and `burst` at once after a pause.

    In any span of t seconds at most burst + rate_per_s * t are granted.
    """

    rate_per_s: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.rate_per_s < float("inf")):
            msg = f"a rate must be above 0 per second, not {self.rate_per_s}"
            raise ValueError(msg)
        if self.burst < 1:
            msg = f"a burst must be at least 1, not {self.burst}"
            raise ValueError(msg)

    @property
    def interval_us(self) -> float:
        """Return the microseconds from one grant to the next in the long run."""
        return 1e6 / self.rate_per_s
