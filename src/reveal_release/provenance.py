"""What figures are of: the model, the settings, the versions."""

import hashlib
import importlib.metadata
import json
import platform
from typing import Any

import torch

from .chat import chat_ids
from .config import RunConfig
from .models import LanguageModel, dtype_name, precision
from .release.base import fingerprint
from .tasks import Task

NO_PART = ("transformers_version", "architectures", "dtype", "use_cache")
"""Of a model's configuration, what changes nothing that is computed, or is told elsewhere."""


def model_identity(lm: LanguageModel) -> str:
    """What must stay the same for work to go on: weights and configuration, how it is asked and ends, what it is computed in and on."""
    asked = chat_ids(lm.tokenizer, (("user", "?"),))
    settings = {k: v for k, v in lm.model.config.to_diff_dict().items() if k not in NO_PART}
    reads = json.dumps([lm.tokenizer.get_vocab(), lm.tokenizer.chat_template, asked, lm.begin, lm.ends, settings], sort_keys=True)
    return f"{fingerprint(lm.model)}, {hashlib.sha256(reads.encode()).hexdigest()}, {lm.arithmetic}"


def mark_of(lm: LanguageModel) -> str:
    """Eight digits of its identity, for the names of phases with a model that is not the run's own."""
    return hashlib.sha256(model_identity(lm).encode()).hexdigest()[:8]


def provenance(config: RunConfig, task: Task) -> dict[str, Any]:
    """What figures are of, as the first entries of a results file."""
    return {
        "version": importlib.metadata.version("reveal-release"),
        "task": config.task,
        "task_identity": task.file_digest,
        "model": config.model,
        "seed": config.seed,
        "config_hash": config.hash(),
    }


def environment(lm: LanguageModel) -> dict[str, Any]:
    """The versions and settings that figures depend on."""
    names = ("torch", "transformers", "peft", "accelerate")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "threads": torch.get_num_threads(),
        "dtype": dtype_name(lm.model.dtype),
        "training": dtype_name(precision(lm.device)),  # of the processor: on a CPU with AMX not that of the weights
        "device": str(lm.device),
    }
