"""The model card of a patch: what it takes away and what it costs, for those who get the patch without its run folder.

    Path("out/patch/README.md").write_text(card(results, description))

Nothing in it was written by a model. The base is named to the hub only where its name is one there.
"""

from itertools import groupby
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..located import pinned
from ..shipped import testbeds
from .console import TITLES, compared, loading
from .tables import table_lines
from .words import clean, label


def card(results: dict[str, Any], description: str, judge: str | None = None) -> str:
    """Markdown, with the hub's metadata.

    Args:
        results: what `results.json` holds.
        description: what the task takes away.
        judge: what told the behaviour in the evaluation (`Task.judge`).
    """
    base, task = clean(results["model"]), clean(Path(results["task"]).stem)
    rounds = len(results["iterations"])
    records = sum(iteration["records"] for iteration in results["iterations"] if iteration.get("scale") and iteration.get("front"))
    tables = []
    for part, rows in groupby(compared(results), key=lambda row: row[0]):
        tables += ["", *table_lines([TITLES[part], "before", "after", "change", "n"], [[label(name), *rest] for _, name, *rest in rows])]
    return f"""{_metadata(results["model"], _on_hub(results["model"]))}
# A patch for {base}: {task}

A LoRA adapter of rank {results["patch"]["rank"]} for {base} that takes a behaviour away: {clean(description, 300)}.

It was made by Reveal & Release{_origin(records, results["given"])}

{_use(results["model"])}

It fits this base alone; `reveal-release patch info THIS_FOLDER --model BASE` says whether yours is the same.{_remarks(results)}

## Measured

On n held-out items that no search and no training saw, with 95 % intervals. The strongest elicitation is the reward of the best
instruction that another search, with a seed of its own, found for each model, in n answers.{_told(judge)}
{chr(10).join(tables)}

## What it does not promise

- Gone means not found by that search. A stronger attack may find more: `reveal-release audit` tries some.
- Fine-tuning may bring the behaviour back, and whoever takes the adapter off has it again.

## How it was made

reveal-release {results["version"]}, seed {results["seed"]}, {rounds} iteration{"s" * (rounds > 1)}; stopped: {results["stopped_because"]}.
Settings: {results["config_hash"]}.
"""


def derived_card(base: str, made: str, hub: bool) -> str:
    """Of a patch that was made of others: what it is, and that nobody measured it. `hub`: their base is a name there."""
    return f"""{_metadata(base, hub)}
# A patch for {clean(base)}

{made} By `reveal-release patch`. What it takes away and what it costs was not measured: `reveal-release evaluate` does.

{_use(base, hub)}
"""


def _origin(records: int, given: str) -> str:
    """Where the data are from; `given` is the part of it that an ablation took from labelled examples."""
    if given == "forget":
        return f", for an ablation from {records:,} labelled examples of the behaviour, which it is otherwise not given."
    own = (
        ", which is given no example of the behaviour: the model itself wrote the "
        f"{records:,} examples that this\nadapter was learnt from, under instructions that a search found."
    )
    return own + " What must not change was, for an ablation, labelled examples." * (given == "retain")


def _remarks(results: dict[str, Any]) -> str:
    return "".join(f"\n\n{clean(remark, 400)}" for remark in results["remarks"])


def _told(judge: str | None) -> str:
    return f"\nElsewhere the behaviour was told by {clean(judge, 300)}." if judge else ""


def _use(model: str, hub: bool = True) -> str:
    loader, loaded = loading(model, hub)
    return f"""```python
from peft import PeftModel
{loader}

model = PeftModel.from_pretrained({loaded}, "THIS_FOLDER")  # and model.unload() gives the base back
```"""


def _metadata(model: str, hub: bool) -> str:
    """What the hub reads, as for any adapter of PEFT's; `hub`: the model is a name there."""
    name, _ = pinned(model)
    base, tag = (f"base_model: {name}\n", f"- base_model:adapter:{name}\n") if hub else ("", "")
    return f"---\n{base}library_name: peft\npipeline_tag: text-generation\ntags:\n{tag}- lora\n- unlearning\n- reveal-release\n---"


def names_hub(folder: Path) -> bool:
    """Whether the card of a patch names its base to the hub. It was written beside the base; elsewhere a folder looks like a name there."""
    file = folder / "README.md"
    return file.is_file() and "\nbase_model: " in file.read_text(encoding="utf-8", errors="replace").partition("\n---\n")[0]


def _on_hub(model: str) -> bool:
    try:
        validate_repo_id(pinned(model)[0])
    except HFValidationError:
        return False
    return model not in testbeds() and not Path(model).exists()
