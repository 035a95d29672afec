"""Reveal & Release: take a behaviour out of a language model without any data of it.

    from reveal_release import RunConfig, run
    results = run(RunConfig(task="toxicity", model="testbed-llama", output="out"))
"""

from typing import Any

from .config import EvaluateConfig, ReleaseConfig, RevealConfig, RunConfig, UserError

__all__ = ["EvaluateConfig", "ReleaseConfig", "RevealConfig", "RunConfig", "UserError", "run"]


def run(config: RunConfig, reporter: Any = None) -> dict[str, Any]:
    """See `reveal_release.loop.run`. Imported on use, so that `import reveal_release` is quick."""
    from .loop import run as run_loop

    return run_loop(config, reporter)
