"""Phases: each with a seed of its own, done once, with its time and memory kept."""

import mmap
from pathlib import Path

import pytest
import torch

from reveal_release.config import RunConfig
from reveal_release.phases import Phases, peak_memory_mib
from reveal_release.report.progress import SilentReporter
from reveal_release.runfolder import RunFolder


def phases(output: Path, seed: int = 0) -> Phases:
    return Phases(RunFolder(RunConfig(output=str(output))), SilentReporter(), seed)


def test_every_phase_of_every_run_has_a_seed_of_its_own(tmp_path: Path) -> None:
    one, other = phases(tmp_path / "one"), phases(tmp_path / "two", seed=1)
    seeds = [where.seed(name) for where in (one, other) for name in ("reveal-1", "reveal-2", "audit-1")]
    assert len(set(seeds)) == 6 and seeds[0] == phases(tmp_path / "three").seed("reveal-1")


def touched(mib: int) -> int:
    """Has so much memory for a moment, from the kernel: an array may lie where the heap is kept free from what was before."""
    with mmap.mmap(-1, mib << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    return mib


def test_memory_is_of_the_phase_and_not_of_what_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # by another test
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this kernel does not let a process reset its peak")
    work = phases(tmp_path)
    work.phase("large", "Large", lambda _: touched(300))
    work.phase("small", "Small", lambda _: 1)
    assert work.memory_mib["large"] > work.memory_mib["small"] + 200


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_is_the_memory_there(tmp_path: Path) -> None:
    work = phases(tmp_path)
    torch.zeros(1, device="cuda")
    work.phase("large", "", lambda _: torch.zeros(2**26, device="cuda").numel())
    work.phase("small", "", lambda _: torch.zeros(2**20, device="cuda").numel())
    assert 256 <= work.memory_mib["large"] < 320 and 4 <= work.memory_mib["small"] < 64


def test_a_finished_phase_keeps_its_result_time_and_memory(tmp_path: Path) -> None:
    first = phases(tmp_path)
    assert first.phase("search", "Search", lambda update: update(1, 2) or [0.1 + 0.2]) == [0.1 + 0.2]
    assert 0 <= first.seconds["search"] < 5 and 0 < first.memory_mib["search"] <= peak_memory_mib()
    again = phases(tmp_path)
    assert again.phase("search", "Search", lambda update: 1 / 0) == [0.1 + 0.2]
    assert (again.seconds, again.memory_mib) == (first.seconds, first.memory_mib)


def test_only_what_an_earlier_process_did_is_told_as_kept(tmp_path: Path) -> None:
    skipped: list[str] = []
    for _ in range(2):
        work = phases(tmp_path)
        work.reporter.skip = skipped.append  # type: ignore[method-assign]
        for _ in range(2):
            work.phase("retain", "Retain data", lambda _: 1)
    assert skipped == ["Retain data"], "nothing by the first process, and once by the second"
