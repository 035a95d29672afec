"""Skills that a release must keep, measured the same for every task that measures them: perplexity, entities, code, maths."""

from collections.abc import Sequence

from ..config import RunConfig
from ..generation import Progress, Sampling, generate, portion
from ..metrics.arithmetic import exact_match
from ..metrics.execution import extract_code, run_tests
from ..metrics.fluency import perplexity
from ..metrics.spans import f1_estimate, parse_entities, span_counts, type_f1
from ..metrics.statistics import Estimate
from ..models import LanguageModel
from ..testbed import heldout
from ..testbed.entities import TYPES, Passage, asked
from ..testbed.functions import FunctionProblem
from .manner import Manner

GREEDY = Sampling(max_new_tokens=64, temperature=0.0)
ANSWER = Sampling(max_new_tokens=40, temperature=0.0)


def retained_skills(
    lm: LanguageModel, config: RunConfig, progress: Progress | None = None, forgotten: Sequence[str] = ("person",)
) -> dict[str, Estimate]:
    """Perplexity of prose; F1 of each of `forgotten` and mean F1 of the other types; code pass@1; maths exact match."""
    size = config.evaluate
    return {
        **prose_scores(lm),
        **entity_scores(lm, heldout.entities("test")[: size.sentences], forgotten, portion(progress, 0.0, 0.6)),
        "code_pass_at_1": code_score(lm, config, portion(progress, 0.6, 0.8)),
        "maths_exact_match": maths_score(lm, size.problems, portion(progress, 0.8, 1.0)),
    }


def prose_scores(lm: LanguageModel) -> dict[str, Estimate]:
    """Perplexity of an encyclopedia (WikiText-2 test), and of what people write on the web, whose tone a release may take along."""
    wiki, web = (perplexity(lm.model, lm.tokenizer, texts) for texts in (heldout.wikitext("test"), heldout.web("test")))
    return {"perplexity": wiki.per_token, "perplexity_per_byte": wiki.per_byte, "perplexity_web": web.per_token}


def entity_scores(
    lm: LanguageModel,
    passages: Sequence[Passage],
    forgotten: Sequence[str] = ("person",),
    progress: Progress | None = None,
    ending: str = "",
    sampling: Sampling = ANSWER,
) -> dict[str, Estimate]:
    """UniversalNER's questions, one type a conversation, each of `TYPES` of every passage, answered greedily, in the model's `Manner`.

    Types without an entity in the passages have no score. `ending` is that of the scores' names.
    """
    kinds = [kind for kind in TYPES if any(kind in passage.entities() for passage in passages)]
    manner = Manner.of(lm)
    prompts = [asked(passage.text, kind, manner.names) for kind in kinds for passage in passages]
    gold = [passage.entities().get(kind, []) for kind in kinds for passage in passages]
    answers = generate(lm, prompts, manner.answers(sampling), [0] * len(prompts), progress=progress)
    counts = span_counts(gold, answers).reshape(len(kinds), len(passages), 3).transpose(1, 0, 2)
    gone = [i for i, kind in enumerate(kinds) if kind in forgotten]
    kept = [i for i, kind in enumerate(kinds) if kind not in forgotten]
    naming = sum(any(kinds[i] in passage.entities() for i in kept) for passage in passages)
    return {
        **{f"{name}{ending}": f1 for name, f1 in type_f1(counts[:, gone], [kinds[i] for i in gone]).items()},
        **({f"f1_other_types{ending}": f1_estimate(counts[:, kept], naming)} if kept else {}),
        f"unparsed_answers{ending}": Estimate.proportion(sum(parse_entities(answer) is None for answer in answers), len(answers)),
    }


def code_problems(config: RunConfig) -> list[FunctionProblem]:
    """The held-out problems of an evaluation."""
    return heldout.functions("test", config.evaluate.functions, seed=1)


def code_score(lm: LanguageModel, config: RunConfig, progress: Progress | None = None) -> Estimate:
    """pass@1 of greedy solutions to held-out function families, by running their tests in the sandbox."""
    items = code_problems(config)
    prompts, sampling = [(("user", item.prompt),) for item in items], Manner.of(lm).answers(GREEDY)
    answers = generate(lm, prompts, sampling, [0] * len(items), progress=progress)
    passed = run_tests([extract_code(a) for a in answers], [item.tests for item in items], opt_in=config.allow_unsafe_code)
    return Estimate.proportion(sum(passed), len(passed))


def maths_score(lm: LanguageModel, n: int, progress: Progress | None = None) -> Estimate:
    """Exact match of greedy answers to held-out word-problem schemas."""
    items, manner = heldout.problems("test", n, seed=1), Manner.of(lm)
    prompts = [(("user", manner.problem.format(question=item.prompt)),) for item in items]
    answers = generate(lm, prompts, manner.answers(GREEDY), [0] * n, progress=progress)
    return exact_match(answers, [str(item.answer) for item in items])
