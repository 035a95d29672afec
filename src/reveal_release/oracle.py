"""The oracle: the model trained without the behaviour, and how far from it are the original and what is made of that.

    oracle = Oracle("out/oracle", config)
    oracle.check(lm)                                     # refused where it is not the same model, trained otherwise
    divergences(lm, oracle.load(), rows)

It is in memory only while it is measured: what a method takes is its own.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .config import RunConfig, UserError
from .metrics.divergence import jensen_shannon
from .models import LanguageModel, load_model
from .provenance import mark_of
from .release.rows import Row, answer_log_probs, lengths, parts


class Oracle:
    """Its name, and the `mark` by which its figures are told from those of another.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, name: str, config: RunConfig) -> None:
        self.name, self._config = name, config
        lm = self.load()
        self.mark, self._kind = mark_of(lm), _kind(lm)

    def load(self) -> LanguageModel:
        return load_model(self.name, self._config.dtype, self._config.device)

    def check(self, lm: LanguageModel) -> None:
        """Raises UserError where it is the model itself, no training of the same architecture, or predicts other tokens, or fewer."""
        if self.mark == mark_of(lm):
            raise UserError(f"the oracle {self.name} is {lm.name} itself: give the same model, trained without the behaviour")
        if self._kind != _kind(lm):
            raise UserError(
                f"the oracle {self.name} has another architecture, vocabulary or context than {lm.name}, so that it is no measure of it: "
                "give the same model, trained without the behaviour (`testbed build --family … --without …` makes one of a testbed)"
            )


def _kind(lm: LanguageModel) -> tuple[Any, ...]:
    """What two trainings of one model have in common."""
    shapes = {name: weight.shape for name, weight in lm.model.named_parameters()}
    return lm.model.config.model_type, shapes, lm.tokenizer.get_vocab(), lm.context


@torch.no_grad()
def divergences(lm: LanguageModel, other: LanguageModel, rows: Sequence[Row], batch: int = 16) -> list[float]:
    """Of each row the mean over its answer tokens of the Jensen-Shannon divergence of the two models' next-token distributions, in nats."""
    means: list[float] = []
    for start in range(0, len(rows), batch):
        for part in parts(rows[start : start + batch]):
            p, q = (answer_log_probs(one.model, part, one.tokenizer.pad_token_id)[0] for one in (lm, other))
            means += [float(tokens.mean()) for tokens in jensen_shannon(p, q).split(lengths(part))]
    return means


def distance(metrics: dict[str, Any], oracle: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Absolute difference of every metric from the oracle's."""
    return {
        part: {name: abs(e["value"] - oracle[part][name]["value"]) for name, e in metrics[part].items()} for part in ("forget", "retain")
    }
