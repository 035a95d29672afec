"""Searches for the instructions that draw a behaviour out: proposals, NeuralUCB, finalists scored again.

The same function is the audit: run on a released model with fresh seeds, it says what an optimiser can still draw out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import RevealConfig, UserError
from ..generation import Progress
from ..metrics.statistics import Estimate
from ..models import LanguageModel, chat_ids
from ..tasks import Record, Task
from .bandit import BanditConfig, NeuralBandit
from .endpoint import Endpoint
from .proposals import Context, key, propose


@dataclass(frozen=True)
class Finding:
    """An instruction and its reward on samples that did not select it."""

    instruction: str
    reward: Estimate

    def to_dict(self) -> dict:
        return {"instruction": self.instruction, "reward": self.reward.to_dict()}


@dataclass(frozen=True)
class SearchResult:
    """`best` is scored on samples used for nothing else, so its reward is unbiased; `finalists` are in order, best first.

    history: (instruction, mean reward of the search's samples, share of distinct records among them) in the order tried.
    calls: records drawn.
    """

    best: Finding
    finalists: list[Finding]
    history: list[tuple[str, float, float]]
    calls: int

    def to_dict(self) -> dict:
        return {
            "best": self.best.to_dict(),
            "finalists": [f.to_dict() for f in self.finalists],
            "history": self.history,
            "calls": self.calls,
        }


def search(
    lm: LanguageModel,
    task: Task,
    config: RevealConfig,
    seed: int,
    known: Sequence[str] = (),
    progress: Progress | None = None,
) -> SearchResult:
    """Finds instructions with high reward within `config.evaluations` trials.

    Args:
        known: instructions that worked before, tried first.
        progress: called with (trials done, trials in all).

    Raises:
        UserError: no source gave an instruction to try, or the endpoint that is among them does not answer.
    """
    rng = random.Random(seed)
    endpoint = Endpoint(config.endpoint, config.endpoint_model) if config.endpoint else None
    taken = {key(text) for text in task.evaluation_instructions()}
    bandit = NeuralBandit(BanditConfig(seed=seed))
    pool: list[str] = []
    rewards: dict[int, float] = {}
    distinct: dict[int, float] = {}
    outputs: list[Record] = []

    def add(texts: Sequence[str]) -> None:
        if texts:
            bandit.add_arms(features(lm, texts))
            pool.extend(texts)

    def trial(arms: Sequence[int]) -> None:
        records = draw(lm, task, [pool[arm] for arm in arms], config.samples, base=seed * 1_000_003)
        scores = np.array([r.score for r in records]).reshape(len(arms), config.samples).mean(1)
        bandit.observe(list(arms), scores.tolist())
        rewards.update(zip(arms, scores.tolist(), strict=True))
        for i, arm in enumerate(arms):
            own = records[i * config.samples : (i + 1) * config.samples]
            distinct[arm] = len({task.novelty(record) for record in own}) / len(own)
        outputs.extend(records)
        if progress:
            progress(len(rewards), config.evaluations)

    def more(count: int) -> None:
        best = [pool[arm] for arm in sorted(rewards, key=lambda a: -rewards[a])[:8]]
        top = [text for r in sorted(outputs, key=lambda r: -r.score)[:16] if (text := task.output(r))]
        sources = [name for name in config.sources if name != "seeds" or not rewards]
        add(propose(Context(lm, task.seeds, best, top, rng, endpoint), sources, count, taken))

    tried_first = {key(text): text for text in known if key(text) not in taken}
    taken |= tried_first.keys()
    add(list(tried_first.values()))
    more(config.candidates // 2)
    if not pool:
        raise UserError(f"no instruction to try from {', '.join(config.sources)}: add seeds to reveal.sources")
    first = list(range(min(len(tried_first), config.start)))
    others = [arm for arm in range(len(pool)) if arm not in first]
    trial(first + rng.sample(others, min(config.start - len(first), len(others))))
    while len(rewards) < config.evaluations:
        spare = len(pool) - len(rewards)
        if spare < config.candidates // 2:
            more(config.candidates // 4)
        arms = bandit.select(min(config.batch, config.evaluations - len(rewards)))
        if not arms:
            break
        trial(arms)
    history = [(pool[arm], reward, distinct[arm]) for arm, reward in rewards.items()]
    return _finish(lm, task, config, seed, history)


def _finish(
    lm: LanguageModel, task: Task, config: RevealConfig, seed: int, history: list[tuple[str, float, float]]
) -> SearchResult:
    """Scores the best again on fresh samples, so that the luckiest does not win, and the winner once more, for the report."""
    texts = [text for text, _, _ in sorted(history, key=lambda row: -row[1])[: config.finalists]]
    records = draw(lm, task, texts, config.final_samples, base=seed * 1_000_003 + 500_000)
    scores = np.array([r.score for r in records]).reshape(len(texts), config.final_samples)
    order = np.argsort(-scores.mean(1), kind="stable")
    finalists = [Finding(texts[i], Estimate.mean(scores[i])) for i in order]
    fresh = draw(lm, task, [finalists[0].instruction], config.final_samples, base=seed * 1_000_003 + 750_000)
    best = Finding(finalists[0].instruction, Estimate.mean([r.score for r in fresh]))
    calls = len(history) * config.samples + len(records) + len(fresh)
    return SearchResult(best, finalists, history, calls)


def draw(
    lm: LanguageModel, task: Task, instructions: Sequence[str], samples: int, base: int, progress: Progress | None = None
) -> list[Record]:
    """`samples` records of each instruction, in order; the i-th sample of each has the same random numbers."""
    asked = [text for text in instructions for _ in range(samples)]
    return task.elicit(lm, asked, [base + i % samples for i in range(len(asked))], progress)


@torch.inference_mode()
def features(lm: LanguageModel, instructions: Sequence[str], batch_size: int = 64) -> Tensor:
    """(n, d) float32: the last layer's hidden state at the last token of each instruction's prompt."""
    rows = []
    for start in range(0, len(instructions), batch_size):
        ids = [chat_ids(lm.tokenizer, [("user", text)]) for text in instructions[start : start + batch_size]]
        length = max(map(len, ids))
        inputs = torch.full((len(ids), length), lm.tokenizer.pad_token_id, dtype=torch.long, device=lm.device)
        mask = torch.zeros_like(inputs)
        for i, row in enumerate(ids):
            inputs[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        hidden = lm.model.base_model(input_ids=inputs, attention_mask=mask).last_hidden_state
        rows.append(hidden[torch.arange(len(ids)), mask.sum(1) - 1].float().cpu())
    return torch.cat(rows)
