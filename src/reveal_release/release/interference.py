"""Interference of the two modules, measured directly, beside the overlap of their weights.

Each module should do its own job and leave the other's alone. How far it does not is a change of loss (mean negative log-likelihood
of the answer tokens, in nats) where the module is put on:

    retain_change   of retain records, from W to W − λ ΔW_f: what subtracting the forget module breaks
    forget_change   of forget records, from W − λ ΔW_f to W − λ ΔW_f + ΔW_r: what of the behaviour the retain module brings back (below 0)
                    or takes away as well (above 0)

`scale` multiplies the step, so that methods can be compared where they forget equally.
"""

from collections.abc import Sequence

from ..config import ReleaseConfig
from ..models import LanguageModel
from .orthogonality import overlap
from .patch import Patch
from .release import direction
from .rows import Row
from .runtime import applied
from .utility import mean_nll


def interference(
    lm: LanguageModel,
    forget_pem: Patch,
    retain_pem: Patch,
    forget_rows: Sequence[Row],
    retain_rows: Sequence[Row],
    config: ReleaseConfig,
    scale: float = 1.0,
) -> dict[str, float]:
    """`retain_change` and `forget_change`, as above, and the three measures of `orthogonality.overlap`.

    Args:
        lm: W, with the patches of earlier iterations if there are any.
        forget_rows, retain_rows: best such that no module was trained on.
        scale: the multiple of the step that the search chose.
    """
    before = mean_nll(lm, retain_rows)
    with applied(lm.model, direction(forget_pem, Patch(), config), scale):
        broken, forgotten = mean_nll(lm, retain_rows), mean_nll(lm, forget_rows)
    with applied(lm.model, direction(forget_pem, retain_pem, config), scale):
        together = mean_nll(lm, forget_rows)
    return {"retain_change": broken - before, "forget_change": together - forgotten, **overlap(forget_pem, retain_pem)}
