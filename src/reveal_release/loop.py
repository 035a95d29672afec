"""Reveal and Release: the iteration of the paper (arXiv 2509.14624), on one screen.

    results = run(RunConfig(task="toxicity", model="testbed-llama", output="out"))

What each phase does is in `workshop.py`.
"""

from typing import Any

from .config import RunConfig, Unfit
from .dataset import LEAST_RECORDS
from .models import LanguageModel
from .release.patch import Patch
from .workshop import Workshop


def run(config: RunConfig, reporter: Any = None, lm: LanguageModel | None = None) -> dict[str, Any]:
    """Runs, or goes on with, the whole of Reveal & Release; returns what `results.json` holds.

    `lm`: the configuration's model, where it is loaded already.

    Raises:
        UserError: for a setting, task, model or folder that will not do, before any long work.
        Unfit: the first iteration's data are too few, or its training diverged; what was done is kept.
    """
    w = Workshop(config, reporter, lm=lm)
    patch, stopped = Patch(), "all iterations done"
    w.evaluate(0, patch)
    for t in range(1, config.iterations + 1):
        revealed = w.reveal(t, patch)
        if not patch and not w.found(revealed):
            stopped = "nothing left to reveal"
            break
        data = w.generate_data(t, patch, revealed)  # what an earlier step has left, too
        if patch and len(data.forget) < LEAST_RECORDS:
            more, left = w.further(t, patch, data)
            stopped = "too few new records to train on" if left or w.found(revealed) else "nothing left to reveal"
            if more:
                patch = patch + more
                w.evaluate(t, patch)
            break
        try:
            step = w.release(t, patch, data)
        except Unfit as error:  # what was reached before stays
            if t == 1:
                raise
            stopped = f"iteration {t} failed: {error}"
            break
        if step is None:  # the next iteration may spend more of the budget
            stopped = "utility budget spent"
            continue
        patch, stopped = patch + step, "all iterations done"  # W ← W + s (ΔW_retain − λ ΔW_forget + ΔW_ascent)
        w.evaluate(t, patch)
    return w.finish(patch, stopped)
