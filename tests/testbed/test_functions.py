"""Every family gives a right solution and tests that can fail, and the split holds out combinations only."""

import ast
import functools
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reveal_release.testbed.functions import FunctionProblem, Split, components, families, sample

SPLITS: tuple[Split, ...] = ("train", "test")


def passes(source: str, tests: tuple[str, ...]) -> bool:
    space: dict[str, object] = {}
    exec(source, space)  # noqa: S102 - the sources are the generator's own
    try:
        for test in tests:
            exec(test, space)  # noqa: S102
    except Exception:  # noqa: BLE001 - a mutant may fail in any way
        return False
    return True


@functools.cache
def every_family() -> tuple[tuple[Split, FunctionProblem], ...]:
    return tuple((split, sample(random.Random(7), split, f)) for split in SPLITS for f in families(split))


class _Erase(ast.NodeTransformer):
    """Erase what a renamed function or a changed constant changes."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return node if node.value is None or isinstance(node.value, bool) else ast.Constant(0)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def skeleton(source: str) -> str:
    tree = ast.parse(source)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    names = {function.name: "F"} | {a.arg: f"A{i}" for i, a in enumerate(function.args.args)}
    return "\n".join(ast.dump(_Erase(names).visit(statement)) for statement in function.body)


def test_there_are_many_families_and_a_fifth_is_held_out() -> None:
    train, test = families("train"), families("test")
    assert len(train) == len(set(train)) and len(test) == len(set(test))
    assert len(train) + len(test) >= 250
    assert 0.15 <= len(test) / (len(train) + len(test)) <= 0.25
    assert not set(train) & set(test)


def test_every_solution_passes_and_is_small_and_states_its_signature() -> None:
    for split, p in every_family():
        assert passes(p.solution, p.tests), p
        assert p.family in families(split) and p.level in (1, 2, 3)
        assert 3 <= len(p.tests) <= 5
        assert len(p.solution.splitlines()) <= 8 and p.solution == p.solution.strip()
        assert f"`{p.solution.splitlines()[0][4:-1]}`" in p.prompt, p
        assert not set("[]{}_|") & set(p.prompt.replace("`", " ").split()), p.prompt
        assert not re.search(r"\b_[fabckjv]\b", p.prompt + p.solution), p


@pytest.mark.parametrize("body", ["None", "0", "[]", "''", "True", "1"])
def test_constant_answers_fail_everywhere(body: str) -> None:
    for _, p in every_family():
        wrong = f"{p.solution.splitlines()[0]}\n    return {body}"
        assert not passes(wrong, p.tests), p


def test_returning_the_first_argument_fails_everywhere() -> None:
    same = []
    for _, p in every_family():
        signature = p.solution.splitlines()[0]
        first = signature.split("(")[1].split(")")[0].split(",")[0]
        if passes(f"{signature}\n    return {first}", p.tests):
            same.append(p.family)
    assert not same


MUTANTS = [
    ("% 2 == 0", "% 2 == 1"), ("% 2 == 1", "% 2 == 0"), (" > 0", " < 0"), (" < 0", " > 0"), (" != ", " == "),
    ("sum(result)", "len(result)"), ("max(result", "min(result"), ("min(result", "max(result"),
    ("result[0]", "result[-1]"), ("result[-1]", "result[0]"), ("startswith", "endswith"),
    ("isalpha", "isdigit"),
    (".upper()", ".lower()"), (" and ", " or "), (" or ", " and "), ("all(", "any("),
    ("total * x", "total + x"),
]  # fmt: skip


def test_most_plausible_mutants_fail() -> None:
    tried, killed = Counter[str](), Counter[str]()
    for _, p in every_family():
        for old, new in MUTANTS:
            if old in p.solution:
                tried[old] += 1
                killed[old] += not passes(p.solution.replace(old, new, 1), p.tests)
    assert set(tried) == {old for old, _ in MUTANTS}
    assert sum(killed.values()) >= 0.97 * sum(tried.values()), (killed, tried)


def test_no_test_family_is_a_train_family_renamed_or_with_another_constant() -> None:
    train = {skeleton(p.solution) for split, p in every_family() if split == "train"}
    test = {skeleton(p.solution): p.family for split, p in every_family() if split == "test"}
    assert len(test) > 100
    assert not train & set(test), [test[s] for s in train & set(test)][:5]


def test_every_component_of_a_test_family_is_in_several_train_families() -> None:
    shown = Counter(c for f in families("train") for c in components(f))
    rare = {c for f in families("test") for c in components(f) if shown[c] < 2}
    assert not rare
    assert components("list/agg:sum/filter:even/map:same") == (
        "list/agg:sum",
        "list/filter:even",
        "list/map:same",
    )


def test_single_families_and_level_one_are_train() -> None:
    held_out = [p for split, p in every_family() if split == "test"]
    assert all(p.level >= 2 and not p.family.startswith("single/") for p in held_out)


@pytest.mark.parametrize("split", SPLITS)
def test_sampling_is_deterministic_and_varied(split: Split) -> None:
    one, two = random.Random(3), random.Random(3)
    first = [sample(one, split) for _ in range(200)]
    assert first == [sample(two, split) for _ in range(200)]
    assert {p.family for p in first} <= set(families(split))
    assert len({p.prompt for p in first}) > 180
    family = families(split)[-1]
    drawn = [sample(one, split, family) for _ in range(60)]
    assert {p.family for p in drawn} == {family}
    assert len({p.prompt.split("`")[0] for p in drawn}) >= 4
    assert len({p.solution.split("(")[0] for p in drawn}) >= 2


def test_a_family_of_the_other_split_is_refused() -> None:
    with pytest.raises(ValueError, match="no family"):
        sample(random.Random(0), "train", families("test")[0])
    with pytest.raises(ValueError, match="unknown split"):
        families("dev")  # type: ignore[arg-type]


@settings(max_examples=150)
@given(st.integers(min_value=0), st.sampled_from(SPLITS))
def test_any_seed_gives_a_problem_that_parses_and_passes(seed: int, split: Split) -> None:
    p = sample(random.Random(seed), split)
    tree = ast.parse(p.solution)
    assert len(tree.body) == 1 and isinstance(tree.body[0], ast.FunctionDef)
    assert all(isinstance(ast.parse(t).body[0], ast.Assert) and "\n" not in t for t in p.tests)
    assert passes(p.solution, p.tests)
