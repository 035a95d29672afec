"""Jensen-Shannon divergence by hand, and against SciPy's distance, which is its root."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from reveal_release.metrics.divergence import jensen_shannon


def test_by_hand() -> None:
    """(1/2, 1/2) and (1, 0) have the mixture (3/4, 1/4); equal ones are 0 apart, and disjoint ones log 2."""
    p = torch.tensor([[0.5, 0.5], [0.3, 0.7], [1.0, 0.0]])
    q = torch.tensor([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]])
    first = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25) + math.log(1 / 0.75)) / 2
    assert jensen_shannon(p.log(), q.log()).tolist() == pytest.approx([first, 0.0, math.log(2)], abs=1e-6)


def test_a_model_that_predicts_nothing_is_not_equal_to_another() -> None:
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()
    broken = torch.tensor([[math.nan, math.nan], [0.0, -math.inf]])
    for found in (jensen_shannon(p, broken), jensen_shannon(broken, p)):
        assert math.isnan(found[0]) and found[1] == 0


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)), min_size=2, max_size=20))
def test_as_scipy_and_symmetric(weights: list[tuple[float, float]]) -> None:
    p, q = (np.array(column) / sum(column) for column in zip(*weights, strict=True))
    log_p, log_q = (torch.tensor(x).log()[None] for x in (p, q))
    found = jensen_shannon(log_p, log_q).item()
    assert found == pytest.approx(np.nan_to_num(jensenshannon(p, q)) ** 2, abs=1e-9)
    assert found == pytest.approx(jensen_shannon(log_q, log_p).item(), abs=1e-12)
