"""A number with its sample size and 95 % interval: what every metric returns.

    Estimate.proportion(7, 100)          # Wilson score interval
    Estimate.mean(scores)                # Student's t interval
    Estimate.bootstrap(scores, np.median)

The intervals take rows as independent. Samples of one prompt are not: average them per prompt first, or
bootstrap an array whose first axis is the prompt.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, sem, t

from ..config import UserError

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """`value` from `n` independent rows, with its 95 % interval [`low`, `high`]."""

    value: float
    n: int
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`f"{estimate:.3f}"`: the value and, where there is more than one row, its interval, each number in that format.

        Without a format, as `str`: to three digits, with n.
        """
        if not spec:
            return str(self)
        value = format(self.value, spec)
        return f"{value} [{format(self.low, spec)}, {format(self.high, spec)}]" if self.n > 1 else value

    @classmethod
    def proportion(cls, successes: int, n: int) -> "Estimate":
        """Share of successes, with the Wilson score interval (Wilson, 1927), which is sound near 0 and 1.

        Raises UserError if n is 0, or successes are no whole number in 0..n.
        """
        if n <= 0 or not 0 <= successes <= n or successes % 1 or n % 1:
            raise UserError(f"a proportion needs whole numbers, 0 <= successes <= n and n > 0, got {successes} of {n}")
        interval = binomtest(int(successes), int(n)).proportion_ci(LEVEL, "wilson")
        return cls(successes / n, n, float(interval.low), float(interval.high))

    @classmethod
    def mean(cls, values: ArrayLike) -> "Estimate":
        """Mean of `values` (n,), with Student's t interval. One value has no interval: low and high are NaN.

        Raises UserError if there are no values or one is not finite.
        """
        x = _finite(values, "mean").ravel()
        value = float(x.mean())
        if len(x) == 1:
            return cls(value, 1, math.nan, math.nan)
        half = float(t.ppf((1 + LEVEL) / 2, len(x) - 1) * sem(x))
        return cls(value, len(x), value - half, value + half)

    @classmethod
    def bootstrap(
        cls,
        values: ArrayLike,
        statistic: Callable[[np.ndarray], float],
        seed: int = 0,
        resamples: int = 1000,
    ) -> "Estimate":
        """`statistic(values)`, with the percentile bootstrap interval (Efron, 1979) over the first axis.

        values: (n, ...). A resample for which the statistic is NaN (an AUC without a positive) is passed over. One row has no
        interval: low and high are NaN.
        Raises UserError if there are no values or one is not finite.
        """
        x = _finite(values, "bootstrap")
        value, n, rng = float(statistic(x)), len(x), np.random.default_rng(seed)
        draws = np.array([statistic(x[rng.integers(0, n, n)]) for _ in range(resamples if n > 1 else 0)])
        if np.isnan(draws).all():
            return cls(value, n, math.nan, math.nan)
        low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(value, n, float(low), float(high))

    def in_unit(self, n: int | None = None) -> "Estimate":
        """The same for a figure that is 0 or 1 only where every row says so, as a mean of scores in [0, 1] is: its interval stays there.

        Where all rows say the same, neither Student's t nor the bootstrap has an interval: then as many may say anything else, 0 or 1 at
        worst, as Wilson's interval has it, of `n` rows if fewer than all could.
        """
        if self.value in (0.0, 1.0) or math.isclose(self.low, self.high, rel_tol=1e-9):
            rows = self.n if n is None else n
            least, others = Estimate.proportion(rows, rows).low, Estimate.proportion(0, rows).high
            return replace(self, low=self.value * least, high=self.value + (1 - self.value) * others)
        return replace(self, low=max(self.low, 0.0), high=min(self.high, 1.0))

    def to_dict(self) -> dict[str, float]:
        """For JSON: value, n, low, high, also where a task counted with numpy."""
        return {"value": float(self.value), "n": int(self.n), "low": float(self.low), "high": float(self.high)}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 0 or len(x) == 0:
        raise UserError(f"{name} of no values: nothing was measured, so check that something was generated")
    if not np.isfinite(x).all():
        raise UserError(f"{name} of values that are not all finite: {int((~np.isfinite(x)).sum())} are NaN or inf")
    return x
