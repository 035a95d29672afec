"""What a run shows in the terminal: progress while it works, and before and after when it is done.

    reporter = Reporter()
    with reporter.phase("Evaluate the original", total=10) as update:
        update(3, 10)
    render(results, reporter.console)

Everything is readable without colour. What a model wrote is never read as markup, and its control characters are dropped.
The remaining time is an estimate: the time so far, spread evenly over the work.
"""

import math
import re
import shlex
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

Update = Callable[[int, int], None]
Numbers = dict[str, Any]
"""An `Estimate` as a dictionary: value, n, low, high."""

WIDTH = 100
TITLES = {"forget": "forget (should fall)", "retain": "retain (should stay)"}
RISING = ("truth_ratio", "forget_quality")
"""What among the figures of forgetting rises as the behaviour goes."""
ELICITED = "strongest_elicitation"
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a terminal's CSI sequences: colours, cursor moves
ATTACKS = {
    "search": "best of all searches", "few_shot": "examples in the context", "prefix": "first tokens given",
    "paraphrase": "paraphrased prompts", "quantise": "quantised weights", "truncate": "a cut patch",
}  # fmt: skip
KEPT = (
    ("results.json", "every figure, with its interval"),
    ("front.svg", "what each step could have been: forgetting against utility"),
    ("forget_data", "what the model revealed, by iteration"),
    ("model", "the merged model"),
    ("config.yaml", "the settings"),
    ("log.txt", "what was done"),
)


class Reporting(Protocol):
    """What the loop asks of a reporter."""

    def phase(self, name: str, total: int | None = None) -> AbstractContextManager[Update]: ...
    def skip(self, name: str) -> None: ...
    def note(self, text: str) -> None: ...
    def log_to(self, path: Path) -> None: ...


class SilentReporter:
    """Shows and writes nothing."""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Update]:
        yield lambda done, total: None

    def skip(self, name: str) -> None: ...
    def note(self, text: str) -> None: ...
    def log_to(self, path: Path) -> None: ...


class Reporter:
    """A progress bar for each phase and one line when it is done; without a terminal, the lines alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._log: Path | None = None

    def log_to(self, path: Path) -> None:
        """From now on every line is also appended to this file, with the time of day."""
        self._log = Path(path)

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Update]:
        """Yields `update(done, total)`. A phase that fails leaves no line."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(12), TaskProgressColumn(), _Times())
        started = time.perf_counter()
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(clean(name, 36), total=total)  # fits 80 columns
            yield lambda done, total: progress.update(task, completed=done, total=total)
        self.note(f"{name}  {duration(time.perf_counter() - started)}")

    def skip(self, name: str) -> None:
        self.note(f"{name}  (kept from the earlier run)")

    def note(self, text: str) -> None:
        line = _printable(text)
        self.console.print(Text(line), soft_wrap=True)
        if self._log:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")


class _Times(ProgressColumn):
    """Elapsed, and about how much is left."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        left = elapsed * (task.total - task.completed) / task.completed if task.total and task.completed else None
        return Text(f"{_clock(elapsed)} elapsed" + ("" if left is None else f", ~{_clock(left)} left"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s or 1 h 2 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def clean(text: str, length: int = WIDTH) -> str:
    """One line of what a model wrote: without control and formatting characters, cut to `length` characters."""
    kept = " ".join(_printable(text).split())
    return kept if len(kept) <= length else kept[: length - 1] + "…"


def _printable(text: str) -> str:
    """Without escape sequences, control, formatting (so also bidirectional) and surrogate characters; line breaks as spaces."""
    text = _ESCAPE.sub("", text)
    return "".join(c if not unicodedata.category(c).startswith(("C", "Z")) else " " if c.isspace() else "" for c in text)


def figure(estimate: Numbers, percent: bool) -> str:
    """`34.2 % [31.0, 37.5]`, `9.87 [9.51, 10.22]`, `266 [238, 299]`; without the interval where there is none."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    scale, digits, unit = (100, 1, " %") if percent else (1, _digits(value), "")
    shown = "–" if _none(value) else f"{scale * value:.{digits}f}{unit}"
    return shown if _none(low) or _none(high) else f"{shown} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def _digits(value: Any) -> int:
    """Decimals of a figure that is no percentage: three digits are shown, so that before and after fit a line."""
    return 2 if _none(value) or abs(value) < 10 else 1 if abs(value) < 100 else 0


def change(before: Numbers, after: Numbers, percent: bool, relative: bool) -> str:
    """Relative change in per cent, or the difference in points of a percentage."""
    a, b = before["value"], after["value"]
    if _none(a) or _none(b) or ((relative or not percent) and a == 0):
        return "–"
    if relative or not percent:
        return f"{100 * (b - a) / a:+.0f} %" if relative else f"{100 * (b - a) / a:+.1f} %"
    return f"{100 * (b - a):+.1f} pt"


def _none(value: float | None) -> bool:
    return value is None or math.isnan(value)


def percentage(name: str, *estimates: Numbers) -> bool:
    """Ratios, F1 and pass@1 lie in [0, 1] and are shown as percentages; a perplexity never is, nor an elicitation, a mean score."""
    return "perplexity" not in name and name != ELICITED and all(_none(e["value"]) or 0 <= e["value"] <= 1 for e in estimates)


def label(name: str) -> str:
    words = {"f1": "F1", "rtp": "RTP", "rouge": "ROUGE", "l": "L"}
    name, rising = re.sub(r"pass_at_(\d+)", r"pass@\1", name).replace("expected_max_", "max_"), name in RISING
    return " ".join(words.get(word, word) for word in name.split("_")) + " ↑" * rising


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=column != columns[0])
    return table


def _heading(table: Table, text: str) -> None:
    table.add_row(Text(text, style="bold"))


def render(results: Numbers, console: Console) -> None:
    """Before and after, samples, where the files are and what to type next. `results` is what `results.json` holds."""
    output, task, model = Path(results["output"]), results["task"], results["model"]
    seconds, iterations = sum(results["seconds"].values()), len(results["iterations"])
    _line(console, "")
    _line(console, f"Reveal & Release: {task}, {clean(model)}", "bold")
    rounds = "1 iteration" if iterations == 1 else f"{iterations} iterations"
    cost = f"{rounds} in {duration(seconds)}, {results['peak_memory_mib'] / 1024:.1f} GiB of memory"
    _line(console, f"{cost}, seed {results['seed']}; stopped: {results['stopped_because']}", "dim")
    _line(console, "")
    console.print(_before_and_after(results))
    _samples(results["samples"], console)
    _files(results, output, console)
    if results["patch"]["path"]:
        _next(model, str(_patch(results, output)), output / "config.yaml", console)


def _patch(results: Numbers, output: Path) -> Path:
    path = Path(results["patch"]["path"])
    return path if path.is_relative_to(output) else output / path


def compared(results: Numbers) -> Iterator[tuple[str, str, str, str, str]]:
    """(part, metric's name, before, after, change) of every metric, and of the elicitation, as they are shown."""
    for part in TITLES:
        rows = {name: (e, results["after"][part][name]) for name, e in results["before"][part].items()}
        if part == "forget":
            rows[ELICITED] = (results["elicitation"]["before"], results["elicitation"]["after"])
        for name, (before, after) in rows.items():
            percent = percentage(name, before, after)
            relative = part == "forget" and name not in RISING  # of a p-value it could be any power of ten
            yield part, name, figure(before, percent), figure(after, percent), change(before, after, percent, relative)


def _before_and_after(results: Numbers) -> Table:
    table = _table(("95 % intervals", "before", "after", "change"))
    last = ""
    for part, name, before, after, text in compared(results):
        if part != last:
            if last:
                table.add_row("")
            _heading(table, TITLES[part])
        last = part
        good, bad = "+-" if name in RISING else "-+"
        style = "" if part == "retain" else "green" if text.startswith(good) else "red" if text.startswith(bad) else ""
        table.add_row("  " + label(name), before, after, Text(text, style=style))
    return table


def _samples(samples: Sequence[dict[str, str]], console: Console) -> None:
    if not samples:
        return
    _line(console, "")
    _line(console, "Samples. The model wrote them; they may offend.", "bold")
    for sample in samples:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for key, name in (("prompt", "asked"), ("before", "before"), ("after", "after")):
            style = "bold" if key == "prompt" else ""
            grid.add_row(Text(name, style="dim"), Text(clean(sample[key]) or "(nothing)", style=style))
        console.print(Padding(grid, (0, 0, 1, 2)), highlight=False)


def _files(results: Numbers, output: Path, console: Console) -> None:
    _line(console, f"Files in {output}", "bold")
    grid = Table.grid(padding=(0, 2))
    patch = results["patch"]
    if patch["path"]:
        grid.add_row(f"  {patch['path']}", f"the patch: a PEFT adapter of rank {patch['rank']}, scale {patch['scale']:g}")
    for name, what in KEPT:
        if (output / name).exists():
            grid.add_row(f"  {name}", what)
    console.print(grid, highlight=False)
    if not patch["path"]:
        _line(console, f"  No patch: {results['stopped_because']}, so nothing is taken out of the model.")


def loading(model: str) -> tuple[str, str]:
    """(import, expression) that load the base: a bundled testbed by its name, which plain transformers does not know."""
    if model.startswith("testbed-") and not Path(model).is_dir():
        return "from reveal_release.models import load_model", f"load_model({model!r}).model"
    return "from transformers import AutoModelForCausalLM", f"AutoModelForCausalLM.from_pretrained({model!r})"


def _next(model: str, patch: str, config: Path, console: Console) -> None:
    """Commands that run as they stand."""
    loader, base = loading(model)
    _line(console, "")
    _line(console, "Use the patch in Python, measure it again, or attack it", "bold")
    _line(console, f"  from peft import PeftModel; {loader}")
    _line(console, f"  model = PeftModel.from_pretrained({base}, {patch!r})")
    _line(console, "")
    given = f"--config {shlex.quote(str(config))} --patch {shlex.quote(patch)}"
    _line(console, f"  reveal-release evaluate {given}")
    _line(console, f"  reveal-release audit {given} --output {shlex.quote(f'{config.parent}-audit')}")


def render_metrics(metrics: Numbers, console: Console) -> None:
    """What `evaluate` measured, part by part (forget and retain, or a suite): one column with its intervals."""
    table = _table(("95 % intervals", "value", "n"))
    for part, estimates in metrics.items():
        _heading(table, TITLES.get(part, part))
        for name, estimate in estimates.items():
            table.add_row("  " + label(name), figure(estimate, percentage(name, estimate)), str(estimate["n"]))
    console.print(table)


def render_instructions(found: Numbers, console: Console) -> None:
    """What `reveal` found: the instructions by reward, and where the data lies."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("reward, 95 % interval", justify="right", no_wrap=True)
    table.add_column("instruction (the model wrote some; they may offend)")
    for one in sorted(found["instructions"], key=lambda one: -one["reward"]["value"]):
        table.add_row(figure(one["reward"], percent=False), Text(clean(one["instruction"])))
    console.print(table)
    _line(console, "")
    _line(console, f"{found['records']} records of forget data in {found['path']}")
    for one in found["exports"]:
        where = f"in {one['path']}" if one["path"] else "so no file"
        left_out = f"; {one['left_out']} left out, as it holds only {one['holds']}" if one["left_out"] else ""
        _line(console, f"{one['format']}, {one['set']} set: {one['records']} records, {where}{left_out}")


def render_audit(results: Numbers, console: Console) -> None:
    """What every attack drew out of both models, the strongest instructions, and the verdict. `results` is what `audit.json` holds."""
    seeds, calls = len(results["seeds"]), results["calls"]
    searches = f"{seeds} searches" if seeds > 1 else "1 search"
    _line(console, "")
    _line(console, f"Audit: {results['task']}, {clean(results['model'])} with {clean(results['patch'])}", "bold")
    _line(console, f"{searches} of {results['evaluations']} instructions in {duration(sum(results['seconds'].values()))}", "dim")
    _line(console, f"calls: {calls['original']} answers of the original, {calls['released']} of the released model", "dim")
    _line(console, "")
    console.print(_attacks(results["attacks"]))
    if prefix := results["attacks"].get("prefix"):
        _line(console, f"The given tokens themselves score {figure(prefix['control'], percent=False)}.", "dim")
    for key in ("paraphrase", "quantise", "truncate"):
        if one := results["attacks"].get(key):
            shares = [(f"{level['level']} ", level["released"]["share"]["value"]) for level in one["levels"]]
            told = ", ".join(f"{name}{100 * share:.0f} %" for name, share in [("", one["before"]["released"]["share"]["value"]), *shares])
            console.print(Text(f"The released model shows it in {told}.", style="dim"))
    if relearn := results["attacks"].get("relearn"):
        _line(console, "")
        console.print(_relearning(relearn))
    _line(console, "")
    _line(console, "The strongest instructions. The model wrote some of them; they may offend.", "bold")
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for column in ("original", "released"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("instruction")
    for one in results["strongest"]:
        rewards = (figure(one[side]["reward"], percent=False) for side in ("original", "released"))
        table.add_row(*rewards, Text(clean(one["instruction"])))
    console.print(table)
    _line(console, "")
    console.print(Text(results["verdict"], style="bold red" if results["drawn_out"] else "bold green"))
    _line(console, f"All figures: {Path(results['output']) / 'audit.json'}", "dim")


def _attacks(attacks: Numbers) -> Table:
    """Mean score, and how many of the answers show the behaviour, which searches are not asked for."""
    table = _table(("mean score, 95 % intervals", "original", "released", "show it"))
    for i, pair in enumerate(zip(*(attacks["search"][side]["by_seed"] for side in ("original", "released")), strict=True), 1):
        table.add_row(f"  search {i}, best", *(figure(one["reward"], percent=False) for one in pair), "")
    for key, name in ATTACKS.items():  # relearning has a table of its own
        if sides := attacks.get(key):
            pair = sides["original"], sides["released"]
            shares = " → ".join(f"{100 * one['share']['value']:.0f} %" for one in pair)
            table.add_row(f"  {sides.get('level', name)}", *(figure(one["reward"], percent=False) for one in pair), shares)
        elif key in attacks:
            table.add_row(f"  {name}", "–", "–", "–")
    return table


def _relearning(relearn: Numbers) -> Table:
    """How many answers show the behaviour after fine-tuning, by what it was on."""
    sides = [side for side in ("original", "released", "oracle") if side in relearn["before"]]
    table = _table(("shown after fine-tuning on", *sides))
    for level in ({"level": "nothing", **relearn["before"]}, *relearn["levels"]):
        shares = ([100 * level[side]["share"][key] for key in ("value", "low", "high")] for side in sides)
        table.add_row(f"  {level['level']}", *(f"{value:.0f} % [{low:.0f}, {high:.0f}]" for value, low, high in shares))
    return table


def _line(console: Console, text: str, style: str = "") -> None:
    """One line as it is: no markup, no emoji codes, not broken, so that commands can be copied."""
    console.print(Text(text, style=style), soft_wrap=True)
