"""Work that is done with several seeds on one model and task: a run folder of its own, one below it for each seed, figures over all."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .config import RunConfig, UserError
from .generation import Progress
from .metrics.statistics import Estimate
from .models import LanguageModel
from .phases import Phases, begin, check_able, check_endpoint, check_places
from .provenance import environment, model_identity, provenance
from .release.patch import Patch
from .release.prose import prose
from .release.runtime import applied
from .runfolder import RunFolder
from .workshop import Workshop

PARTS = ("figures", "forget", "retain")
"""What a cell of a study or an ablation has figures in."""
P_VALUES = ("forget_quality",)
UNLEARNING = ("reveal-", "forget-", "real", "retain", "release-", "further-")
"""The phases that unlearning takes, by the start of their names."""


def check_seeds(config: RunConfig, seeds: Sequence[int]) -> None:
    """Raises UserError where there is none, or one that will not do."""
    if not seeds:
        raise UserError("give at least one seed")
    for seed in seeds:
        replace(config, seed=seed).check()


class SeveralSeeds(Phases):
    """What the seeds share.

    check: raises UserError where the model will not do; called before there is a folder. others: what else must stay the same for the
    work to go on.
    """

    def __init__(
        self, config: RunConfig, kind: str, reporter: Any = None, check: Callable[[LanguageModel], None] | None = None, **others: Any
    ) -> None:
        self.config = replace(config, seed=0)
        check_places(config, kind)
        prose(config.utility_text)  # what each seed's run reads: refused here, before any work
        self.task, self.lm = begin(self.config)
        check_able(self.task, self.lm, config)
        if check:
            check(self.lm)
        super().__init__(RunFolder(self.config, kind, model_identity(self.lm), **others), reporter, 0, self.lm.remarks)

    def workshop(self, seed: int) -> Workshop:
        """The phases of a run with this seed, in `runs/seed-N`."""
        config = replace(self.config, seed=seed, output=str(self.folder.path / "runs" / f"seed-{seed}"))
        with self.apart():
            return Workshop(config, self.reporter, lm=self.lm)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Work with a run folder of its own, which it logs to; afterwards the log is this one's again."""
        try:
            yield
        finally:
            self.reporter.log_to(self.folder.path / "log.txt")

    def same_data(self, part: str, mark: str) -> None:
        """Refuses raw data sets which are not those that earlier work here drew from. `mark`: `check` of today's."""
        if self.folder.phase(f"raw-{part}", lambda: mark) != mark:
            raise UserError(f"{self.folder.path} holds work on other raw data sets than these: choose another --output")

    def written(self, file: str, seeds: Sequence[int], table: Callable[[dict[str, Any]], str], **figures: Any) -> dict[str, Any]:
        """Writes and returns the results: what they are of, the figures, and where they were made; with the `table` of them."""
        of = {key: value for key, value in provenance(self.config, self.task).items() if key != "seed"}
        made = {"environment": environment(self.lm), "output": str(self.folder.path)}
        results = {**of, "seeds": list(seeds), **figures, **made}
        self.folder.write_results(file, results)
        self.folder.write("table.md", table(results))
        return results

    def measure(self, name: str, patch: Patch) -> dict[str, Any]:
        """The task's own evaluation of the model with a patch."""

        def work(update: Progress) -> Any:
            if name == "original":
                check_endpoint(self.config)  # before the long work, not after it
            with applied(self.lm.model, patch):
                return self.task.measured(self.lm, update)

        return self.phase(f"evaluate-{name}", f"Evaluate {name}", work)


def plain(value: float) -> dict[str, float]:
    """One figure without an interval."""
    return Estimate(value, 1, math.nan, math.nan).to_dict()


def of_unlearning(phases: Mapping[str, float]) -> list[float]:
    """Of a run's seconds, or memory, by phase those of search, data and training, not of evaluation."""
    return [value for name, value in phases.items() if name.startswith(UNLEARNING)]


def averaged(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of every figure in `PARTS` of the cells, one cell a seed, what `over_seeds` makes of it."""
    return {
        part: {key: over_seeds([cell[part][key] for cell in cells], key, metric=part != "figures") for key in cells[0][part]}
        for part in PARTS
    }


def over_seeds(estimates: Sequence[dict[str, float]], name: str = "", metric: bool = True) -> dict[str, float]:
    """The mean of several seeds' figures, of those that have a value; one seed's figure as it is. Of p-values, which are no amounts, the
    median.

    The interval is over the seeds, but no narrower than the seeds' own are in the mean: all are measured on the same items, so that to
    agree does not make them sure.

    metric: of a metric that lies between 0 and 1, the interval does so too. Other figures, such as a rise, may be below 0.
    """
    known = [e for e in estimates if not math.isnan(e["value"])]
    values = [e["value"] for e in known]
    if len(known) < 2:
        return (known or estimates)[0]
    if name in P_VALUES:
        return plain(statistics.median(values)) | {"n": len(values)}
    mean = Estimate.mean(values)
    own = [(e["low"], e["high"]) for e in known if not math.isnan(e["low"])]
    if own:
        low, high = (statistics.fmean(bounds) for bounds in zip(*own, strict=True))
        mean = replace(mean, low=min(mean.low, low), high=max(mean.high, high))
    if metric and all(0 <= e["low"] <= e["high"] <= 1 for e in known):  # a share, which Student's t over few seeds does not know
        mean = replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))
    return mean.to_dict()
