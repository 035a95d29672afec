"""What a run, `reveal` and `evaluate` show in the terminal when they are done.

    render(results, console)
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..located import pinned
from ..shipped import testbeds
from .terminal import blank, columns, heading, line
from .words import ELICITED, RISING, at_floor, change, clean, duration, falls, figure, label, percentage

Results = dict[str, Any]
TITLES = {"forget": "forget (should fall)", "retain": "retain (should stay)"}
UNFOUND = (
    "Search longer (--reveal.evaluations), count less as found (--stop-reward), take another scorer (--scorer, or in the task's file), or "
    "begin with instructions of your own (docs/your_own_task.md)."
)
FEW = "let more instructions write (--reveal.portfolio), or lower what counts (--reveal.threshold)"
KEPT = (
    ("results.json", "every figure, with its interval"),
    ("front.svg", "what each step could have been: forgetting against utility"),
    ("forget_data", "what the model revealed, by iteration"),
    ("model", "the merged model"),
    ("config.yaml", "the settings"),
    ("log.txt", "what was done"),
)


def render(results: Results, console: Console) -> None:
    """Before and after, samples, where the files are and what to type next. `results` is what `results.json` holds."""
    output, task, model = Path(results["output"]), results["task"], results["model"]
    seconds, iterations = sum(results["seconds"].values()), len(results["iterations"])
    line(console, "")
    line(console, f"Reveal & Release: {task}, {clean(model)}", "bold")
    rounds = "1 iteration" if iterations == 1 else f"{iterations} iterations"
    cost = f"{rounds} in {duration(seconds)}, {results['peak_memory_mib'] / 1024:.1f} GiB of memory"
    line(console, f"{cost}, seed {results['seed']}; stopped: {results['stopped_because']}", "dim")
    line(console, "")
    console.print(_before_and_after(results))
    if floors := [label(name) for name, before in results["before"]["retain"].items() if at_floor(name, before)]:
        line(console, "")
        line(console, f"Too little of it before to tell whether it is kept: {', '.join(floors)}.", "yellow")
        if any(name.startswith(("code", "maths")) for name in floors):
            line(console, "Public benchmarks may: reveal-release evaluate --suite gsm8k (or humaneval, mbpp), with --patch and without.")
    _samples(results["samples"], console)
    _files(results, output, console)
    if results["patch"]["path"]:
        _next(model, str(output / results["patch"]["path"]), output / "config.yaml", console)


def compared(results: Results) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(part, metric's name, before, after, change, n) of every metric, and of the elicitation, as they are shown."""
    for part in TITLES:
        rows = {name: (e, results["after"][part][name]) for name, e in results["before"][part].items()}
        if part == "forget":
            rows[ELICITED] = (results["elicitation"]["before"], results["elicitation"]["after"])
        for name, (before, after) in rows.items():
            percent = percentage(name, before, after)
            told = change(before, after, percent, relative=falls(part, name))
            yield part, name, figure(before, percent), figure(after, percent), told, f"{after['n']:,}"


def _before_and_after(results: Results) -> Table:
    table = columns(("95 % intervals", "before", "after", "change"))
    last = ""
    for part, name, before, after, text, _ in compared(results):
        if part != last:
            if last:
                table.add_row("")
            heading(table, TITLES[part])
        last = part
        good, bad = "+-" if name in RISING else "-+"
        style = "" if part == "retain" else "green" if text.startswith(good) else "red" if text.startswith(bad) else ""
        table.add_row("  " + label(name), before, after, Text(text, style=style))
    return table


def _samples(samples: Sequence[dict[str, str]], console: Console) -> None:
    if not samples:
        return
    line(console, "")
    line(console, "Samples. The model wrote them; they may offend.", "bold")
    for sample in samples:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for key, name in (("prompt", "asked"), ("before", "before"), ("after", "after")):
            style = "bold" if key == "prompt" else ""
            grid.add_row(Text(name, style="dim"), Text(clean(sample[key]) or "(nothing)", style=style))
        console.print(Padding(grid, (0, 0, 1, 2)), highlight=False)


def _files(results: Results, output: Path, console: Console) -> None:
    line(console, f"Files in {output}", "bold")
    grid = Table.grid(padding=(0, 2))
    patch = results["patch"]
    if patch["path"]:
        grid.add_row(f"  {patch['path']}", f"the patch: a PEFT adapter of rank {patch['rank']}")
    for name, what in KEPT:
        if (output / name).exists():
            grid.add_row(f"  {name}", what)
    console.print(grid, highlight=False)
    if not patch["path"]:
        cure = f" {UNFOUND}" if results["stopped_because"] == "nothing left to reveal" else ""
        line(console, f"  No patch: {results['stopped_because']}, so nothing is taken out of the model.{cure}")


def loading(model: str, hub: bool = True) -> tuple[str, str]:
    """(import, expression) that load the base: a bundled testbed by its name, which plain transformers does not know.

    hub: it may be a name there, with a revision.
    """
    if model in testbeds():
        return "from reveal_release.models import load_model", f"load_model({model!r}).model"
    name, revision = pinned(model) if hub else (model, None)
    given = f"{name!r}, revision={revision!r}" if revision else f"{model!r}"
    return "from transformers import AutoModelForCausalLM", f"AutoModelForCausalLM.from_pretrained({given})"


def _next(model: str, patch: str, config: Path, console: Console) -> None:
    """Commands that run as they stand."""
    loader, base = loading(model)
    line(console, "")
    line(console, "Use the patch in Python, measure it again, or attack it", "bold")
    line(console, f"  from peft import PeftModel; {loader}")
    line(console, f"  model = PeftModel.from_pretrained({base}, {patch!r})")
    line(console, "")
    given = f"--config {shlex.quote(str(config))} --patch {shlex.quote(patch)}"
    line(console, f"  reveal-release evaluate {given}")
    line(console, f"  reveal-release audit {given} --output {shlex.quote(f'{config.parent}-audit')}")


def render_metrics(metrics: Results, of: str, console: Console) -> None:
    """What `evaluate` measured, part by part (forget and retain, or a suite): one column with its intervals. `of`: a line on what."""
    line(console, of, "bold")
    table = columns(("95 % intervals", "value", "n"))
    for part, estimates in metrics.items():
        heading(table, TITLES.get(part, part))
        for name, estimate in estimates.items():
            table.add_row("  " + label(name), figure(estimate, percentage(name, estimate)), str(estimate["n"]))
    console.print(table)


def render_instructions(found: Results, console: Console) -> None:
    """What `reveal` found: the instructions by reward, and where the data lies."""
    table = blank()
    table.add_column("reward, 95 % interval", justify="right", no_wrap=True)
    table.add_column("instruction (the model wrote some; they may offend)")
    for one in sorted(found["instructions"], key=lambda one: -one["reward"]["value"]):
        table.add_row(figure(one["reward"], percent=False), Text(clean(one["instruction"])))
    console.print(table)
    line(console, "")
    if found["path"]:
        line(console, f"{found['records']} records of forget data in {found['path']}")
        line(console, f"{found['retained']['records']} of retain data in {found['retained']['path']}")
        if found["records"] < found["wanted"]:
            line(console, f"({found['wanted']} forget records were asked for: {FEW})", "dim")
    else:
        best = f"the best instruction scores {found['best']['reward']['value']:.2f}, and --stop-reward is {found['stop_reward']:g}"
        line(console, f"Nothing found: {best}. {UNFOUND}")
    for one in found["exports"]:
        where = f"in {one['path']}" if one["path"] else "so no file"
        left_out = f"; {one['left_out']} left out: it takes only {one['holds']}" if one["left_out"] else ""
        line(console, f"{one['format']}, {one['set']} set: {one['records']} records, {where}{left_out}")
