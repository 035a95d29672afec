"""What the commands of `patch` show: figures of patches.py, and the command that goes on from there."""

import shlex
from typing import Any

from rich.console import Console

from .terminal import columns, line
from .words import clean

Figures = dict[str, Any]


def render_info(figures: Figures, folder: str, console: Console) -> None:
    least, rank, stored = figures["least_rank"], figures["rank"], figures["stored"]
    ranks = f"rank {rank}" if least == rank else f"ranks {least} to {rank}"
    line(console, clean(folder), "bold")
    if figures["task"]:
        line(console, f"  takes away: {clean(figures['task'])}")
    line(console, f"  {figures['modules']} modules of {ranks}" + (f", stored at {stored}" if stored > rank else ""))
    relative = f", {_percent(figures['relative'])} of the weights that it changes" if figures["relative"] is not None else ""
    line(console, f"  norm {figures['norm']:.4g}{relative}; {figures['bytes'] / 2**20:.1f} MiB")
    identity = f"fingerprint {figures['fingerprint'][:16]}…" if figures["fingerprint"] else "without a fingerprint"
    line(console, f"  base {clean(figures['base'])} ({identity})")
    if figures["checked"]:
        told = "is the base" if figures["fingerprint"] else "has modules of these names and shapes; more cannot be told"
        line(console, f"  {clean(figures['checked'])} {told}", "green")
    table = columns(("largest modules", "rank", "norm", "share"))
    for name, rank, norm in figures["largest"]:
        share = (norm / figures["norm"]) ** 2 if norm else 0.0
        table.add_row("  " + clean(name), str(rank), f"{norm:.4g}", _percent(share))
    console.print(table)
    if figures["fingerprint"]:
        _next(console, "merge", folder, "--model", figures["base"], "--output", _beside(folder, "merged"))


def render_merge(figures: Figures, console: Console) -> None:
    restored, changed, dtype = figures["restored"], figures["changed"], figures["dtype"]
    line(console, f"The merged model: {figures['output']}, in {dtype}", "bold")
    finer = "" if dtype == "float32" else "; --dtype float32 loses less"
    line(console, f"  rounding took {_percent(figures['rounding'])} of the change{finer}")
    rounded = f"; the base was rounded to {figures['rounded']}" if figures["rounded"] else ""
    line(console, f"  a revert gives back {_whole(restored, changed)} bit for bit{rounded}")
    if named := figures["unchecked"]:
        unsure = f"whether it is of this model cannot be told: it names {clean(named)}, and has no reveal_release.json with a fingerprint"
        line(console, f"  {unsure}", "yellow")
    if part := figures["part"]:
        line(console, f"  {clean(part, 400)}", "yellow")
    _next(console, "revert", figures["patch"], "--model", figures["output"], "--output", _beside(figures["output"], "reverted"))


def render_revert(figures: Figures, console: Console) -> None:
    line(console, f"The base again: {figures['output']}", "bold")
    if figures["exact"]:
        rounded = f" rounded to {figures['rounded']}" if figures["rounded"] else ""
        line(console, f"  every weight is the base's{rounded}, bit for bit", "green")
    elif figures["exact"] is None:
        line(console, "  its fingerprint is the base's (a sample of every weight, to bfloat16); more was not recorded", "green")
    else:
        same, which = "is" if figures["same_fingerprint"] else "is not", "all" if figures["rounded"] else "the others"
        line(console, f"  bit for bit in {_whole(figures['restored'], figures['changed'])}; the merge rounded {which}")
        line(console, f"  its fingerprint {same} the base's; for all of them load {clean(figures['base'])} itself", "yellow")


def render_combine(figures: Figures, console: Console) -> None:
    line(console, f"The sum: {figures['output']}, norm {figures['norm']:.4g}", "bold")
    line(console, f"  rank {figures['rank']} of {figures['concatenated']} put together; relative error {figures['error']:.1e}")
    if not figures["rank"]:
        line(console, "  they cancel out: nothing is left of them", "yellow")
    _next(console, "info", figures["output"], "--model", figures["base"])


def render_truncate(figures: Figures, console: Console) -> None:
    worst = max(figures["errors"], key=lambda name: figures["errors"][name])
    line(console, f"Rank {figures['was']} to {figures['rank']}: {figures['output']}", "bold")
    most = f"most in {clean(worst)}, {_percent(figures['errors'][worst])}"
    line(console, f"  relative error of the change {_percent(figures['error'])}; {most}")
    _next(console, "info", figures["output"], "--model", figures["base"])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share == 0 or share >= 1e-5 else "less than 0.001 %"


def _whole(part: int, total: int) -> str:
    """A share that reads 100 % only where it is all."""
    return f"all {total:,} weights" if part == total else f"{min(100 * part / total, 99.99):.2f} % of {total:,} weights"


def _beside(folder: str, what: str) -> str:
    return f"{folder.rstrip('/')}-{what}"


def _next(console: Console, *words: str) -> None:
    line(console, f"Next: reveal-release patch {shlex.join(words)}", "dim")
