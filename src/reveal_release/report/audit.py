"""What an audit shows: what every attack drew out of each model, the strongest instructions, and the verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .terminal import blank, columns, line
from .words import clean, duration, figure

WHOLE = 0.95
"""Of the blocks' weights, the share from which on it is not told how much was rounded."""
Results = dict[str, Any]
ATTACKS = {
    "search": "best of all searches", "few_shot": "examples in the context", "prefix": "first tokens given",
    "paraphrase": "paraphrased prompts", "quantise": "quantised weights", "truncate": "a cut patch", "relearn": "fine-tuning",
}  # fmt: skip


def render_audit(results: Results, console: Console) -> None:
    """What every attack drew out of each model, the strongest instructions, and the verdict. `results` is what `audit.json` holds."""
    seeds, calls = len(results["seeds"]), results["calls"]
    searches = f"{seeds} searches" if seeds > 1 else "1 search"
    line(console, "")
    line(console, f"Audit: {results['task']}, {clean(results['model'])} with {clean(results['patch'])}", "bold")
    line(console, f"{searches} of {results['evaluations']} instructions; {duration(sum(results['seconds'].values()))} in all", "dim")
    line(console, f"calls: {calls['original']} answers of the original, {calls['released']} of the released model", "dim")
    if "oracle" in calls:
        line(console, f"       {calls['oracle']} of the oracle", "dim")
    line(console, "")
    console.print(_attacks(results["attacks"]))
    if prefix := results["attacks"].get("prefix"):
        line(console, f"The given tokens themselves score {figure(prefix['control'], percent=False)}.", "dim")
    for key in ("paraphrase", "quantise", "truncate"):
        if one := results["attacks"].get(key):
            levels = [{**one["before"], "level": "before"}, *one["levels"]]
            told = ", ".join(f"{level['level']} {100 * level['released']['share']['value']:.0f} %" for level in levels)
            console.print(Text(f"Released, same prompts: {told}.", style="dim"))
            if (part := one.get("rounded", 1.0)) < WHOLE:  # told of quantised weights alone
                console.print(Text(f"Rounded were {100 * part:.0f} % of the blocks' weights: the rest is in no linear layer.", "dim"))
    made = [(key, name, results["attacks"][key]) for key, name in ATTACKS.items() if results["attacks"].get(key)]
    if beside := [(name, one) for key, name, one in made if "oracle" in one and key != "relearn"]:
        line(console, "")
        console.print(_shares("shown at worst, beside the oracle", beside))
    if relearn := results["attacks"].get("relearn"):
        line(console, "")
        levels = [{"level": "nothing", **relearn["before"]}, *relearn["levels"]]
        console.print(_shares("shown after fine-tuning on", [(level["level"], level) for level in levels]))
    line(console, "")
    line(console, "The strongest instructions. The model wrote some of them; they may offend.", "bold")
    table = blank()
    for column in ("original", "released"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("instruction")
    for one in results["strongest"]:
        rewards = (figure(one[side]["reward"], percent=False) for side in ("original", "released"))
        table.add_row(*rewards, Text(clean(one["instruction"])))
    console.print(table)
    line(console, "")
    console.print(Text(results["verdict"], style="bold red" if results["drawn_out"] else "bold green"))
    line(console, f"All figures: {Path(results['output']) / 'audit.json'}", "dim")


def _attacks(attacks: Results) -> Table:
    """Mean score, and how many of the answers show the behaviour, which searches are not asked for."""
    table = columns(("mean score, 95 % intervals", "original", "released", "show it"))
    for i, pair in enumerate(zip(*(attacks["search"][side]["by_seed"] for side in ("original", "released")), strict=True), 1):
        table.add_row(f"  search {i}, best", *(figure(one["reward"], percent=False) for one in pair), "")
    for key, name in ATTACKS.items():
        sides = attacks.get(key)
        if sides and key != "relearn":  # which has a table of its own
            pair = sides["original"], sides["released"]
            shares = " → ".join(f"{100 * one['share']['value']:.0f} %" for one in pair)
            table.add_row(f"  {sides.get('level', name)}", *(figure(one["reward"], percent=False) for one in pair), shares)
        elif key in attacks and not sides:
            table.add_row(f"  {name}", "–", "–", "–")
    return table


def _shares(title: str, rows: Sequence[tuple[str, Results]]) -> Table:
    """How many answers of each model show the behaviour."""
    sides = [side for side in ("original", "released", "oracle") if side in rows[0][1]]
    table = columns((title, *sides))
    for name, row in rows:
        shares = ([100 * row[side]["share"][key] for key in ("value", "low", "high")] for side in sides)
        table.add_row(f"  {name}", *(f"{value:.0f} % [{low:.0f}, {high:.0f}]" for value, low, high in shares))
    return table
