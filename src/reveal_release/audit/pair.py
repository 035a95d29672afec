"""The models of an audit, the original, the released one and perhaps an oracle, and the phases in which all are attacked alike."""

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..config import RunConfig, UserError
from ..generation import Progress
from ..located import located
from ..models import LanguageModel
from ..oracle import Oracle
from ..phases import Phases, begin, check_places
from ..provenance import model_identity
from ..release.adapter import check_fits, recorded_task
from ..release.lora import from_peft
from ..release.runtime import applied
from ..runfolder import RunFolder
from .elicitation import Outcome, answers

SIDES = {"original": "the original", "released": "the released model"}
ORACLE = "oracle"
"""A third side, where there is one: a model that never had the behaviour."""

FEWEST = 8
"""Answers by which a level is to be told: of fewer, one alone makes a large share."""

Sides = dict[str, Any]
"""A value of the original, one of the released model and, where there is one, of the oracle; with what else is told of an attack."""


class Pair(Phases):
    """The original `lm`, the `patch` that makes it the released model, the task, and the seeds of the repetitions.

    `sides`: the models that are attacked, without the oracle until `with_oracle`. Args: as of `auditor.audit`.
    """

    def __init__(self, config: RunConfig, patch: str | Path, repeats: int, reporter: Any = None, oracle: str | None = None) -> None:
        if repeats < 1:
            raise UserError(f"--repeats is {repeats}: give a whole number of at least 1")
        self.config, self.named, self.path, self.count = config, str(patch), located(patch), config.reveal.final_samples
        self.patch = from_peft(self.path)  # a folder that holds no patch, or nothing of an audit, is refused before the model is loaded
        check_places(config, "audit")
        self.task, self.lm = begin(config)
        self.oracle = Oracle(oracle, config) if oracle else None
        if self.oracle:
            self.oracle.check(self.lm)
        check_fits(self.patch, self.path, self.lm.model)
        folder = RunFolder(config, "audit", model_identity(self.lm), patch=digest(self.path), seeds=repeats)
        super().__init__(folder, reporter, config.seed, self.lm.remarks)
        if (made_for := recorded_task(self.path)) not in (None, self.task.name):
            self.reporter.note(f"This patch takes {made_for} away, and is attacked for {self.task.name}: see that --task is right.")
        self.seeds = [self.seed(f"audit-{i + 1}") for i in range(repeats)]
        self.sides = list(SIDES)
        self.known: list[str] = folder.phase("known", lambda: worked(self.path))

    def with_oracle(self) -> None:
        """From here on the oracle is attacked too."""
        self.sides = [*SIDES, ORACLE]

    def on(self, side: str, name: str, title: str, work: Callable[[LanguageModel, Progress], Any], total: int | None = None) -> Any:
        """A phase with one of the models."""
        if side == ORACLE and self.oracle:
            load, mark = self.oracle.load, self.oracle.mark  # so that another oracle's figures are not taken for its own
            return self.phase(f"{name}-{ORACLE}-{mark}", f"{title} the oracle", lambda update: work(load(), update), total)

        def patched(update: Progress) -> Any:
            with applied(self.lm.model, self.patch) if side == "released" else nullcontext():
                return work(self.lm, update)

        return self.phase(f"{name}-{side}", f"{title} {SIDES[side]}", patched, total)

    def scores(
        self, name: str, title: str, instructions: list[str], samples: int, sides: Iterable[str]
    ) -> dict[str, dict[str, np.ndarray]]:
        """(samples,) scores of each instruction on each of the models, with the same random numbers on all of them."""

        def work(lm: LanguageModel, update: Progress) -> Any:
            return answers(lm, self.task, instructions, samples, self.seed(name), update).tolist()

        return {side: dict(zip(instructions, map(np.array, self.on(side, name, title, work)), strict=True)) for side in sides}

    def outcome(self, scores: Any) -> dict[str, Any]:
        """The outcome of all scores, and how many answers they took."""
        return {**Outcome.of(scores, self.config.reveal.threshold).to_dict(), "calls": np.size(scores)}

    def told(self, scores: np.ndarray) -> dict[str, Any]:
        """The outcome of all (seeds, answers) scores, and of each seed's."""
        by_seed = [Outcome.of(row, self.config.reveal.threshold).to_dict() for row in scores]
        return {**self.outcome(scores), "by_seed": by_seed}


def by_level(levels: list[Sides]) -> Sides:
    """An attack made at several levels: told by that at which the released model shows most; with the answers of all.

    An oracle is told by its own worst, for a maximum is not to be held beside a level that was not chosen. Levels of fewer than `FEWEST`
    answers are passed over where there is another.
    """
    enough = [one for one in levels if one["released"]["calls"] >= FEWEST] or levels

    def most(side: str) -> Sides:
        return max(enough, key=lambda one: one[side]["share"]["value"])

    worst = most("released")
    told = {side: worst[side] for side in SIDES} | ({ORACLE: most(ORACLE)[ORACLE]} if ORACLE in worst else {})
    calls = {side: sum(one[side]["calls"] for one in levels) for side in told}
    return {**worst, **{side: {**one, "calls": calls[side]} for side, one in told.items()}, "levels": levels}


def worked(patch: Path) -> list[str]:
    """The instructions that worked in the run whose folder the patch lies in; none if it lies elsewhere."""
    try:
        iterations = json.loads((patch.resolve().parent / "results.json").read_text(encoding="utf-8"))["iterations"]
        return list(dict.fromkeys(str(text) for one in iterations for text in one["worked"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []


def digest(patch: Path) -> str:
    """Tells one patch from another: sha256 of its two files."""
    return hashlib.sha256(b"".join((patch / name).read_bytes() for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME))).hexdigest()[:16]
