"""The comparison: our release and other methods, on the same model, with the same budget of utility, measured alike.

    compare(RunConfig(task="toxicity", output="out/compare"), ["reveal-release", "npo"], seeds=[0, 1, 2], sources=["self", "name"])

A cell is one method on forget data of one source with one seed. A baseline's settings are searched by `baselines.fit` under the same
budget for all, on its own forget prompts; what is measured at the end is seen by none. As in the loop, each phase is done once and kept
in the output folder, and more methods, sources or seeds may be added to it later. docs/compare.md says how fair it is.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .baselines import Method, get_method, method_names
from .baselines.fit import fit, title
from .config import RunConfig, Unfit, UserError
from .dataset import HELD_BACK, LEAST_RECORDS, Data, Rows, encode, split
from .generation import Progress, generate
from .loop import run
from .metrics.statistics import Estimate
from .oracle import Oracle, distance, divergences
from .phases import check_places
from .real_data import real_records
from .release.adapter import load, save_for
from .release.patch import Patch
from .release.runtime import applied
from .report.comparison import markdown
from .report.plots import forgetting_against_utility
from .reveal.selfgen import revealed_records
from .seeds import SeveralSeeds, check_seeds, of_unlearning, over_seeds
from .tasks import Record
from .tasks.knowledge import authors
from .testbed import forget
from .workshop import Workshop

OURS = "reveal-release"
SOURCES = ("real", "self", "name")
"""Where forget data come from: labelled examples, our search and self-generation, the model asked for the behaviour by its name."""
PROBES = 96
Took = tuple[float, float]
"""Seconds, and the most memory in MiB."""


@dataclass(frozen=True)
class Cell:
    """source: where the forget data come from; `own` for our method, which makes its own in every iteration."""

    method: str
    source: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method}-{self.source}-{self.seed}"


def compare(
    config: RunConfig,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    sources: Sequence[str] = ("self",),
    oracle: str | None = None,
    data: str | None = None,
    reporter: Any = None,
) -> dict[str, Any]:
    """Makes a comparison, or goes on with it; returns what `compare.json` holds.

    Args:
        config: as of a run, but for its seed. methods: names of baselines, and `reveal-release`; by default all.
        sources: of `SOURCES`, the forget data that each baseline is given in turn.
        oracle: a model that never had the behaviour, to measure the distance to. data: folder of the raw data sets, for `real`.

    Raises:
        UserError: for a setting, method, task, model or folder that will not do, before any long work.
    """
    c = Comparison(config, methods or [OURS, *method_names()], seeds, sources, oracle, data, reporter)
    c.measure("original", Patch())
    return c.finish([one for seed in seeds for one in c.of_seed(seed)])


class Comparison(SeveralSeeds):
    """The cells, and what they share."""

    def __init__(
        self, config: RunConfig, methods: Sequence[str], seeds: Sequence[int], sources: Sequence[str],
        oracle: str | None, data: str | None, reporter: Any = None,
    ) -> None:  # fmt: skip
        config.check()
        if unknown := [source for source in sources if source not in SOURCES]:
            raise UserError(f"no forget data from {unknown[0]!r}: choose from {', '.join(SOURCES)}")
        check_seeds(config, seeds)
        if not sources:
            raise UserError(f"give at least one source of forget data: {', '.join(SOURCES)}")
        self.methods = {name: None if name == OURS else get_method(name, others=[OURS]) for name in methods}
        self.seeds, self.sources, self.data = seeds, sources, data
        mark = self.check_real(config) if "real" in sources else ""
        check_places(config, "compare")
        self.oracle = Oracle(oracle, config) if oracle else None
        super().__init__(config, "compare", reporter, check=self.oracle.check if self.oracle else None)
        if mark:
            self.same_data("forget", mark)

    def check_real(self, config: RunConfig) -> str:
        if config.task not in forget.TASKS:
            raise forget.no_real_data(config.task)
        if config.task != "code" and not (self.data and Path(self.data).is_dir()):  # functions are generated
            raise UserError("--data-from has `real`: give the folder of the raw data sets as --data (`testbed sources` lists them)")
        kinds = authors(config.forget_authors) if config.task == "knowledge" else ()
        return forget.check(config.task, Path(self.data or ""), kinds)

    # ---- data ----

    def of_seed(self, seed: int) -> list[dict[str, Any]]:
        """The outcomes of a seed's cells."""
        w = self.workshop(seed)
        found = []
        baselines = {name: method for name, method in self.methods.items() if method}
        if baselines:
            retain, _ = w.retain_data()
            for source in self.sources:
                records, took = self.forget_data(source, w)
                took.append((w.seconds["retain"], w.memory_mib["retain"]))
                found += [self.baseline(Cell(name, source, seed), method, records, retain, took) for name, method in baselines.items()]
        if OURS in self.methods:
            found.append(self.ours(w.config))
        return found

    def forget_data(self, source: str, w: Workshop) -> tuple[list[Record], list[Took]]:
        """Forget records of a source, and what each phase took in which they were made."""
        config, seed = w.config, w.config.seed
        if source == "self":
            data = w.generate_data(1, Patch(), w.reveal(1, Patch()))
            return data.forget, [(w.seconds[name], w.memory_mib[name]) for name in ("reveal-1", "forget-1")]

        def by_name(update: Progress) -> Any:
            asked, own = self.task.by_name(), w.seed("name")
            return [r.to_dict() for r in revealed_records(self.lm, self.task, asked, config.reveal, own, 1, update)[0]]

        def real(update: Progress) -> Any:
            return [r.to_dict() for r in real_records(self.task, self.data, w.seed("real"), config.reveal.records)]

        name = f"{source}-{seed}"
        work, title = (real, "Real forget data") if source == "real" else (by_name, "The model is asked by name alone")
        rows = self.phase(name, f"{title}, seed {seed}", work, config.reveal.records if source == "name" else None)
        self.folder.write_rows(f"forget_data/{name}.jsonl", rows)
        return [Record.from_dict(row) for row in rows], [(self.seconds[name], self.memory_mib[name])]

    # ---- methods ----

    def ours(self, config: RunConfig) -> dict[str, Any]:
        """A run, which is measured by the same evaluation."""
        cell = Cell(OURS, "own", config.seed)
        try:
            with self.apart():
                results = run(config, self.reporter, self.lm)
        except Unfit as error:
            return self.failed(cell, 0, str(error))
        steps = [one for one in results["iterations"] if one.get("scale")]
        return {
            **asdict(cell),
            "metrics": results["after"],
            "chosen": {"scale": [one["scale"] for one in steps], "cost": steps[-1]["utility_loss"] if steps else 0.0},
            "records": sum(one["records"] for one in results["iterations"]),
            "seconds": round(sum(of_unlearning(results["seconds"])), 2),
            "memory_mib": max(of_unlearning(results["memory_mib"])),
        }

    def baseline(
        self, cell: Cell, method: type[Method], records: list[Record], retain: list[Record], took: list[Took]
    ) -> dict[str, Any]:
        """Trains and measures one, unless its data are too few.

        A fifth of the forget prompts and of the retain prompts, the same for all methods, is trained on by none: they tell what is
        forgotten, and what it costs.
        """
        seed, path = self.seed(str(cell)), self.folder.path / "patches" / str(cell)
        held_back, learnt = split(records, HELD_BACK, self.seed(f"split-{cell.source}-{cell.seed}"))
        rows, asked = Rows.of(self.lm, Data(learnt, [], retain)), held_back or learnt  # all under one prompt: there is no other
        if rows.lacking:
            cure = f"of each {LEAST_RECORDS} are needed; raise --reveal.records or --release.retain-records, or take other --data-from"
            return self.failed(cell, len(records), f"{rows.lacking}: {cure}")

        def once(setting: str, attempt: Callable[[], Any]) -> Any:
            return self.part(f"tried-{cell}.{setting}", attempt)

        def save(setting: str, patch: Patch) -> None:
            save_for(self.lm, patch, self.folder.state / f"tried-{cell}.{setting}")

        def work(update: Progress) -> Any:
            prompts = [record.prompt for record in asked]
            outcome = fit(method, self.lm, self.task, rows, prompts, self.config, seed, update, once, save)
            self.folder.drop(f"patches/{cell}")  # of an earlier search, or of this one, killed here
            if outcome["chosen"]["scale"]:
                shutil.copytree(self.folder.state / f"tried-{cell}.{title(outcome['chosen'])}", path)
            return outcome

        try:
            found = self.phase(f"fit-{cell}", f"{cell.method} on {cell.source} data, seed {cell.seed}", work)
        except Unfit as error:  # no record is left to measure by
            return self.failed(cell, len(records), str(error))
        self.folder.drop(*(f"state/{one.name}" for one in self.folder.state.glob(f"tried-{cell}.*")))
        if "failed" in found["chosen"]:
            return self.failed(cell, len(records), f"{found['chosen']['failed']}, with every setting")
        seconds, memory = zip(*took, (self.seconds[f"fit-{cell}"], self.memory_mib[f"fit-{cell}"]), strict=True)
        found["memory_mib"] = max(memory)
        metrics = self.measure(str(cell), self.patch(cell))
        return {**asdict(cell), "records": len(records), **found, "seconds": round(sum(seconds), 2), "metrics": metrics}

    def failed(self, cell: Cell, records: int, why: str) -> dict[str, Any]:
        self.reporter.note(f"{cell}: {why}")
        return {**asdict(cell), "records": records, "metrics": None, "failed": why}

    # ---- measures ----

    def patch(self, cell: Cell) -> Patch:
        """What a cell has made; nothing where no scale was within the budget."""
        path = self.folder.path / (f"runs/seed-{cell.seed}/patch" if cell.method == OURS else f"patches/{cell}")
        return load(path) if path.is_dir() else Patch()

    def beside_oracle(self, oracle: Oracle, cells: Sequence[dict[str, Any]], original: dict[str, Any]) -> dict[str, Any]:
        """The oracle's own metrics; the cells that were measured, and the original, get their `distance` and `divergence` from it."""
        other = oracle.load()
        metrics = self.phase(f"evaluate-oracle-{oracle.mark}", "Evaluate the oracle", lambda u: self.task.measured(other, u))

        def answers(_: Progress) -> Any:
            prompts = self.task.held_out()
            prompts = prompts[:: max(1, len(prompts) // PROBES)][:PROBES]
            texts = generate(other, prompts, self.task.sampling, range(len(prompts)))
            return [Record.of(prompt, text, prompt[-1][1]).to_dict() for prompt, text in zip(prompts, texts, strict=True)]

        drawn = self.phase(f"answers-oracle-{oracle.mark}", "The oracle answers held-out prompts", answers)
        rows = encode(self.lm, [Record.from_dict(row) for row in drawn])

        def divergence(name: str, patch: Patch) -> Any:
            def work(_: Progress) -> Any:
                with applied(self.lm.model, patch):
                    return Estimate.mean(divergences(self.lm, other, rows)).to_dict()

            return self.phase(f"divergence-{name}-{oracle.mark}", f"Divergence from the oracle, {name}", work)

        original |= {"distance": distance(original["metrics"], metrics), "divergence": divergence("original", Patch())}
        for one in cells:
            if one["metrics"]:
                cell = Cell(one["method"], one["source"], one["seed"])
                one |= {"distance": distance(one["metrics"], metrics), "divergence": divergence(str(cell), self.patch(cell))}
        return {"model": oracle.name, "metrics": metrics}

    def finish(self, cells: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes `compare.json`, `table.md` and `compare.svg`."""
        original = {"metrics": self.measure("original", Patch()), "distance": None, "divergence": None}
        for cell in cells:
            cell |= {"distance": None, "divergence": None}
        if self.oracle is None:
            return self.result(cells, original, None)
        if not (self.folder.results("compare.json") or {}).get("oracle"):  # it may fail, and shall take nothing from the rest
            self.result(cells, original, None)
        return self.result(cells, original, self.beside_oracle(self.oracle, cells, original))

    def result(self, cells: list[dict[str, Any]], original: dict[str, Any], oracle: dict[str, Any] | None) -> dict[str, Any]:
        figures = {
            "utility_budget": self.config.utility_budget, "original": original, "oracle": oracle, "cells": cells, "rows": rows_of(cells),
        }  # fmt: skip
        results = self.written("compare.json", self.seeds, markdown, **figures)
        forgetting_against_utility(results, self.folder.path / "compare.svg")
        return results


def rows_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each method and source of data, what its seeds have in common: mean figures with intervals over the seeds.

    Of one seed the interval is its own. Cells that were not measured, for want of data, are counted only.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["method"], cell["source"]), []).append(cell)
    rows = []
    for (method, source), group in groups.items():
        done = [cell for cell in group if cell["metrics"]]
        row: dict[str, Any] = {"method": method, "source": source, "seeds": len(done), "records": [cell["records"] for cell in group]}
        row["missing"] = [f"seed {cell['seed']}: {cell['failed']}" for cell in group if not cell["metrics"]]
        if done:
            for part in ("forget", "retain"):
                names = done[0]["metrics"][part]
                row[part] = {name: over_seeds([cell["metrics"][part][name] for cell in done], name) for name in names}
            distances = [cell["distance"] for cell in done]
            if all(distances):
                row["distance"] = {
                    part: {name: sum(one[part][name] for one in distances) / len(done) for name in names}
                    for part, names in distances[0].items()
                }
            found = [cell["divergence"] for cell in done]
            row["divergence"] = over_seeds(found) if all(found) else None
            row |= {key: sum(cell[key] for cell in done) / len(done) for key in ("seconds", "memory_mib")}
            row["chosen"] = [cell["chosen"] for cell in done]
        rows.append(row)
    return rows
