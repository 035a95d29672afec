"""Evaluation alone: the metrics of a model, with a patch or without.

    evaluate_only(RunConfig(task="toxicity", model="testbed-llama"), "out/patch")
"""

from typing import Any

from .config import RunConfig
from .located import located
from .models import load_model
from .phases import begin, prepare
from .release.adapter import load
from .release.patch import Patch
from .release.runtime import applied
from .report.progress import SilentReporter
from .sandbox import require_protections
from .suites.evaluate import SuiteEvaluation


def evaluate_only(
    config: RunConfig, patch: str | None = None, reporter: Any = None, suite: SuiteEvaluation | None = None
) -> dict[str, Any]:
    """The task's metrics of a model, or those of a suite, by its name, instead; with a patch or without. Nothing is written.

    Raises:
        UserError: for a setting, task, model or patch that will not do, or code that cannot be isolated, before any long work.
    """
    if suite:
        prepare(config)
        lm = load_model(config.model, config.dtype, config.device)
    else:
        task, lm = begin(config)
        if task.runs_code:
            require_protections(config.allow_unsafe_code)
    loaded = load(located(patch), lm.model) if patch is not None else Patch()
    reporter = reporter or SilentReporter()
    for remark in lm.remarks:
        reporter.note(remark)
    with reporter.phase("Evaluate") as update, applied(lm.model, loaded):
        if suite:
            return {suite.suite.name: {name: e.to_dict() for name, e in suite.evaluate(lm, update).items()}}
        return task.measured(lm, update)
