"""Phases of long work: each is done once, whatever happens in between, and draws its random numbers from a seed of its own."""

import contextlib
import gc
import resource
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .config import RunConfig
from .generation import Progress
from .models import LanguageModel, load_model
from .release.pem import check_adaptable
from .report.progress import Reporting, SilentReporter
from .reveal.endpoint import Endpoint
from .reveal.rewards import shared
from .runfolder import RunFolder, check_place
from .sandbox import require_protections
from .tasks import Task, get_task


def check_places(config: RunConfig, kind: str) -> None:
    """Raises UserError where work of this kind cannot be kept in its folder, or rewards in the one they share; before a model is loaded."""
    check_place(Path(config.output), kind)
    shared()


def prepare(config: RunConfig) -> None:
    """Settings checked and threads set. Raises UserError for a setting out of its range."""
    config.check()
    if config.threads:
        torch.set_num_threads(config.threads)


def begin(config: RunConfig, lm: LanguageModel | None = None) -> tuple[Task, LanguageModel]:
    """What all work begins with: settings checked, threads set, the task found, the model loaded where it is not (`lm`).

    Raises:
        UserError: one of them will not do.
    """
    prepare(config)
    task = get_task(config.task, config)
    if task.scores_code:
        require_protections(config.allow_unsafe_code)
    lm = lm or load_model(config.model, config.dtype, config.device)
    task.suit(lm)
    return task, lm


def check_able(task: Task, lm: LanguageModel, config: RunConfig) -> None:
    """Raises UserError where no LoRA can be put on the model, or this machine cannot isolate the code that the evaluation runs."""
    check_adaptable(lm, config.release)
    if task.runs_code:
        require_protections(config.allow_unsafe_code)


def check_endpoint(config: RunConfig) -> None:
    """Raises UserError where a model that shall propose instructions does not answer."""
    if config.reveal.endpoint:
        Endpoint(config.reveal.endpoint, config.reveal.endpoint_model).check()


class Phases:
    """Does work by phases and keeps each result in a run folder. `seconds` and `memory_mib` are those of all phases so far."""

    def __init__(self, folder: RunFolder, reporter: Reporting | None, seed: int, remarks: Sequence[str] = ()) -> None:
        self.folder, self.reporter, self.first_seed = folder, reporter or SilentReporter(), seed
        self.seconds: dict[str, float] = {}
        self.memory_mib: dict[str, float] = {}
        self._earlier: list[dict[str, Any]] = []  # parts of the phase at work that an earlier process did
        self.reporter.log_to(folder.path / "log.txt")
        for remark in remarks:
            self.reporter.note(remark)

    def phase(self, name: str, title: str, work: Callable[[Progress], Any], total: int | None = None) -> Any:
        """Does `work(progress)` once and keeps its JSON result, its time, and the most memory that the process had meanwhile."""

        def timed() -> dict[str, Any]:
            reset_peak_memory()
            start = time.perf_counter()
            self._earlier = []
            with self.reporter.phase(title, total) as update:
                result = work(update)
            seconds = time.perf_counter() - start + sum(part["seconds"] for part in self._earlier)
            return {"result": result, "seconds": seconds, "memory_mib": max([peak_memory_mib(), *(p["memory_mib"] for p in self._earlier)])}

        if self.folder.has(f"{name}.json") and name not in self.seconds:  # what this process did is nothing to tell
            self.reporter.skip(title)
        kept = self.folder.phase(name, timed)
        self.seconds[name] = round(kept["seconds"], 2)
        self.memory_mib[name] = kept["memory_mib"]
        return kept["result"]

    def part(self, name: str, work: Callable[[], Any]) -> Any:
        """Within the work of a long phase: does a part of it once. What an earlier process did counts in the phase's time and memory."""

        def timed() -> dict[str, Any]:
            start = time.perf_counter()
            return {"result": work(), "seconds": time.perf_counter() - start, "memory_mib": peak_memory_mib()}

        done = self.folder.has(f"{name}.json")
        kept = self.folder.phase(name, timed)
        if done:
            self._earlier.append(kept)
        return kept["result"]

    def seed(self, name: str) -> int:
        """A seed of its own for each phase of each run."""
        return zlib.crc32(f"{self.first_seed}/{name}".encode())


def peak_memory_mib() -> float:
    """Of what this process has on the GPU it uses, or if it uses none in main memory, since it began or since `reset_peak_memory`."""
    if torch.cuda.is_initialized():
        return round(max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)  # Linux gives KiB


def reset_peak_memory() -> None:
    """The next reading of `peak_memory_mib` is of what is used from here on; without effect where the kernel does not allow it."""
    gc.collect()  # models that nobody uses any more
    if torch.cuda.is_initialized():
        for gpu in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(gpu)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
