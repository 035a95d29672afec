"""Skills that a release must keep, measured the same for every task: perplexity, entities, code, maths."""

import numpy as np

from ..config import RunConfig
from ..generation import Progress, Sampling, generate
from ..metrics.arithmetic import exact_match
from ..metrics.execution import extract_code, run_tests
from ..metrics.fluency import perplexity
from ..metrics.spans import mean_f1, span_counts, span_scores
from ..metrics.statistics import Estimate
from ..models import LanguageModel
from ..testbed import heldout
from ..testbed.entities import READ, TYPES, question
from .base import portion

GREEDY = Sampling(max_new_tokens=64, temperature=0.0)
ANSWER = Sampling(max_new_tokens=40, temperature=0.0)


def retained_skills(lm: LanguageModel, config: RunConfig, progress: Progress | None = None) -> dict[str, Estimate]:
    """Perplexity on WikiText-2 test; F1 of Person and mean F1 of the other types; code pass@1; maths exact match."""
    size = config.evaluate
    wiki = perplexity(lm.model, lm.tokenizer, heldout.wikitext("test"))
    return {
        "perplexity": wiki.per_token,
        "perplexity_per_byte": wiki.per_byte,
        **entity_scores(lm, size.sentences, portion(progress, 0.0, 0.6)),
        "code_pass_at_1": code_score(lm, size.functions, config.allow_unsafe_code, portion(progress, 0.6, 0.8)),
        "maths_exact_match": maths_score(lm, size.problems, portion(progress, 0.8, 1.0)),
    }


def entity_scores(lm: LanguageModel, sentences: int, progress: Progress | None = None) -> dict[str, Estimate]:
    """UniversalNER's questions, one type a conversation, every type of every sentence, answered greedily."""
    passages = heldout.entities("test")[:sentences]
    asked, gold = [], []
    for kind in TYPES:
        for passage in passages:
            asked.append((("user", f"Text: {passage.text}"), ("assistant", READ), ("user", question(kind))))
            gold.append(passage.entities().get(kind, []))
    answers = generate(lm, asked, ANSWER, [0] * len(asked), progress=progress)
    n = len(passages)
    person = slice(TYPES.index("person") * n, (TYPES.index("person") + 1) * n)
    counts = span_counts(gold, answers).reshape(len(TYPES), n, 3)
    others = np.delete(counts, TYPES.index("person"), axis=0).transpose(1, 0, 2)
    named = counts[TYPES.index("person"), :, 2].any()
    return {
        **({"f1_person": span_scores(gold[person], answers[person]).f1} if named else {}),
        "f1_other_types": Estimate.bootstrap(others, mean_f1),
        "unparsed_answers": span_scores(gold, answers).unparsed,
    }


def code_score(lm: LanguageModel, n: int, unsafe: bool, progress: Progress | None = None) -> Estimate:
    """pass@1 of greedy solutions to held-out function families, by running their tests in the sandbox."""
    items = heldout.functions("test", n, seed=1)
    answers = generate(lm, [(("user", item.prompt),) for item in items], GREEDY, [0] * n, progress=progress)
    passed = run_tests([extract_code(a) for a in answers], [item.tests for item in items], opt_in=unsafe)
    return Estimate.proportion(sum(passed), len(passed))


def maths_score(lm: LanguageModel, n: int, progress: Progress | None = None) -> Estimate:
    """Exact match of greedy answers to held-out word-problem schemas."""
    items = heldout.problems("test", n, seed=1)
    answers = generate(lm, [(("user", item.prompt),) for item in items], GREEDY, [0] * n, progress=progress)
    return exact_match(answers, [str(item.answer) for item in items])
