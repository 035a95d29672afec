"""The model writes its own data: forget records with the best instructions, retain records from benign ones."""

import random
from collections.abc import Sequence

from ..config import ReleaseConfig, RevealConfig
from ..generation import Progress, Sampling, generate
from ..models import LanguageModel, chat_ids, user_turn_ids
from ..tasks import Record, Task
from .curation import NearDuplicates, curate
from .proposals import key
from .search import Finding, draw

ROUNDS = 8


def forget_records(
    lm: LanguageModel,
    task: Task,
    finalists: Sequence[Finding],
    config: RevealConfig,
    seed: int,
    iteration: int,
    progress: Progress | None = None,
) -> list[Record]:
    """Samples from a portfolio of the best instructions until `config.records` are kept, or a round adds nearly nothing."""
    chosen = [f.instruction for f in finalists[: config.portfolio]]
    kept: list[Record] = []
    seen = NearDuplicates()
    each = -(-config.records // len(chosen))
    for number in range(ROUNDS):
        drawn = draw(lm, task, chosen, each, base=seed * 1_000_003 + 100_000 * (number + 1))
        before = len(kept)
        curate(drawn, lambda score: score >= config.threshold, kept, cap=2 * each, seen=seen)
        if progress:
            progress(min(len(kept), config.records), config.records)
        if len(kept) >= config.records or len(kept) - before < 0.02 * len(drawn):
            break
    kept = kept[: config.records]
    return [Record(r.prompt, r.completion, r.score, r.instruction, iteration) for r in kept]


def retain_records(
    lm: LanguageModel, task: Task, config: ReleaseConfig, threshold: float, seed: int, progress: Progress | None = None
) -> list[Record]:
    """Answers to the model's own user turns and to the task's benign instructions that do not show the behaviour.

    The model's own user turns are drawn from what it was taught to answer, so they cover its skills without any data.
    """
    rng = random.Random(seed)
    reserved = {key(text) for text in task.evaluation_instructions()}
    kept: list[Record] = []
    seen = NearDuplicates()
    half = config.retain_records // 2
    ids = user_turn_ids(lm.tokenizer)
    for _ in range(ROUNDS):
        asked = [rng.choice(task.benign) for _ in range(half // 2)]
        if ids is not None:
            seeds = [rng.getrandbits(40) for _ in range(half + half // 2)]
            asked += [t for t in generate(lm, [ids] * len(seeds), Sampling(96), seeds) if t and key(t) not in reserved]
        answers = generate(lm, [(("user", text),) for text in asked], Sampling(80), [rng.getrandbits(40) for _ in asked])
        scores = task.score(list(zip(asked, answers, strict=True)))
        records = [Record((("user", q),), a, float(s), q) for q, a, s in zip(asked, answers, scores, strict=True)]
        before = len(kept)
        curate(records, lambda score: score < threshold, kept, cap=max(8, config.retain_records // 16), seen=seen)
        if progress:
            progress(min(len(kept), config.retain_records), config.retain_records)
        if len(kept) >= config.retain_records or len(kept) - before < 0.02 * len(records):
            break
    rng.shuffle(kept)
    return kept[: config.retain_records]


def encode(lm: LanguageModel, records: Sequence[Record], limit: int = 256) -> list[tuple[list[int], int]]:
    """(token ids, length of the prompt) of each record in the chat template, cut at `limit`: what training takes."""
    rows = []
    for record in records:
        prompt = chat_ids(lm.tokenizer, record.prompt)
        answer = lm.tokenizer(record.completion, add_special_tokens=False)["input_ids"]
        ids = (prompt + list(answer) + [lm.tokenizer.eos_token_id])[:limit]
        if len(prompt) < len(ids):
            rows.append((ids, len(prompt)))
    return rows
