"""Runs Python programs that a language model wrote, as if they were hostile.

    outcomes = run_programs(["assert 1 + 1 == 2", "import os; os._exit(0)"])   # passed, failed

Each program runs in a child process of a clean fork server (`_sandbox_child.py`, started by a fresh exec, so
that nothing of this process is in its memory): no network, no file of the user (an empty root that holds
Python's standard library, read-only, and an empty tmpfs as working folder), no environment, no other process
in sight, no privilege, bounded time, memory, output, processes, files and disk. When a program ends or runs
out of time, the kernel kills everything that it started. It passes only if its last line was reached:
`sys.exit(0)` and `os._exit(0)` are failures. Programs get the standard library only, and cannot start other
programs.

Where the kernel refuses namespaces (Docker's default profile, Ubuntu 24.04's AppArmor rule), `protections`
says what is left, and nothing runs unless the caller opted in. Bubblewrap is not used: it asks the kernel
for the same namespaces as this file does.

What is not promised: protection against bugs in the kernel; that code written against this very harness
cannot claim success (solution and tests share a process: a class that equals everything passes any assert);
a bound on the memory of all processes of a program together (it is `processes` times `memory_mib`).
As root of a container without CAP_SYS_ADMIN, nothing but time bounds the number of processes. Without
namespaces (opted in) nothing bounds the sum of file sizes, and the names of files can be tested for
existence; without seccomp as well, a program can signal the user's other processes and outlive
its time by leaving its process group.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from .config import UserError

Status = Literal["passed", "failed", "timeout", "memory", "output", "killed", "error"]

CHILD = Path(__file__).with_name("_sandbox_child.py")
# All that a program sees of the environment. A fixed hash seed: the same program gives the same outcome. One
# malloc arena: each thread's own would take 64 MiB of address space.
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    "PATH": "",
    "MALLOC_ARENA_MAX": "1",
}
# Without these a program could reach the network, files or other processes, or exhaust the machine.
REQUIRED = ("network_namespace", "mount_namespace", "pid_namespace", "unprivileged_user", "rlimits")
START_SECONDS, GRACE_SECONDS = 30.0, 1.5


@dataclass(frozen=True)
class Limits:
    """What one program may use. `cpu_seconds`, `memory_mib` (address space) and `files` (open at once) hold
    for each process, `output_kib` for each of stdout and stderr, `processes` counts threads too, `disk_kib`
    bounds the working folder."""

    wall_seconds: float = 3.0
    cpu_seconds: int = 2
    memory_mib: int = 256
    output_kib: int = 64
    files: int = 32
    processes: int = 8
    disk_kib: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UserError(
                    f"Limits.{field.name} is {getattr(self, field.name)}: give a number above zero."
                )


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    `passed`: it ran to its last line. `failed`: it raised, left early or closed the harness. `timeout`: wall
    clock or CPU time. `memory`: MemoryError. `output`: it printed too much. `killed`: a signal ended it.
    `error`: the sandbox itself failed, and the program was not judged. Texts have no control characters but
    newline and tab."""

    ok: bool
    status: Status
    stdout: str
    stderr: str
    seconds: float


# Escape sequences (CSI, OSC and its kin, two-character ones), then every other control character, the C1
# block and the marks that turn the direction of text.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def sanitise(text: str) -> str:
    """Text that is safe to print on a terminal."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


class _Server:
    """One fork server and the socket to it. Runs one program at a time."""

    def __init__(self, namespaces: bool) -> None:
        self._folder = tempfile.mkdtemp(prefix="sandbox-")
        self._socket, theirs = socket.socketpair()
        # Not the virtual environment's: that is a user's folder.
        python = getattr(sys, "_base_executable", None) or sys.executable
        mode = "namespaces" if namespaces else "plain"
        command = [python, "-P", "-s", "-S", "-B", str(CHILD), mode, self._folder]
        with theirs, open(os.path.join(self._folder, "log"), "w+") as log:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
            try:
                theirs.close()
                hello = self._receive(START_SECONDS)
            except (OSError, ValueError):
                log.seek(0)
                lines = log.read().strip().splitlines()
                hello = {"why": lines[-1] if lines else "its process died"}
            except BaseException:
                self.close()
                raise
        self.in_force: dict[str, bool] = hello.get("in_force", {})
        self.why: str = hello.get("why", "")

    def run(self, source: str, limits: Limits, name: str = "__main__") -> Outcome:
        """Run one program.

        Raises:
            OSError: The server died or does not answer; it must be replaced."""
        body = json.dumps({"source": source, "limits": asdict(limits), "name": name}).encode()
        self._socket.settimeout(START_SECONDS)
        self._socket.sendall(struct.pack("!I", len(body)) + body)
        answer = self._receive(limits.wall_seconds + GRACE_SECONDS)
        status = answer["status"]
        stdout, stderr = sanitise(answer["stdout"]), sanitise(answer["stderr"])
        return Outcome(status == "passed", status, stdout, stderr, answer["seconds"])

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._socket.settimeout(seconds)
        data = self._exactly(struct.unpack("!I", self._exactly(4))[0])
        return json.loads(data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError("the sandbox's server has gone")
            data += chunk
        return data

    def close(self) -> None:
        """Kill the server; its death kills what it runs."""
        self._socket.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def _probe() -> tuple[bool, dict[str, bool], str]:
    """Start a server to see what this machine allows: (namespaces?, protections in force, why no
    namespaces)."""
    if sys.platform != "linux":
        raise UserError(f"The sandbox needs Linux, not {sys.platform}: run it in Docker or WSL.")
    why = ""
    for namespaces in (True, False):
        server = _Server(namespaces)
        server.close()
        if server.in_force:
            return namespaces, server.in_force, "" if namespaces else why
        why = server.why
    raise UserError(f"The sandbox does not start here ({why}): no program can be run on this machine.")


def protections() -> dict[str, bool]:
    """Which protections are in force on this machine, found by running a program under them. `landlock` is
    used only where there is no mount namespace; root with its full powers needs no user namespace."""
    return dict(_probe()[1])


def missing_protections() -> list[str]:
    """The protections without which nothing runs unless the caller opted in, and that this machine does not
    give."""
    in_force = protections()
    return [name for name in REQUIRED if not in_force[name]]


def require_protections(opt_in: bool = False) -> None:
    """Raise UserError where programs would not be isolated and the user has not accepted that."""
    missing = missing_protections()
    if missing and not opt_in:
        left = ", ".join(name for name, on in protections().items() if on) or "nothing"
        raise UserError(
            f"Refusing to run code that a model wrote: this machine gives no {', no '.join(missing)} "
            f"({_probe()[2] or 'not permitted'}); allow unprivileged user namespaces (in Docker, "
            f"--security-opt seccomp=unconfined --security-opt apparmor=unconfined), or accept the risk with --allow-unsafe-code "
            f"(still in force: {left})."
        )


def run_programs(
    programs: Sequence[str],
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
    opt_in: bool = False,
    progress: Callable[[int, int], None] | None = None,
    name: str = "__main__",
) -> list[Outcome]:
    """Run programs, each in a sandbox of its own.

    Args:
        programs: Python source texts.
        limits: What each may use.
        workers: Programs at a time; by default one for each core that this process may use.
        opt_in: Run even where required protections are missing (`--allow-unsafe-code`).
        progress: Called in the caller's thread with (programs done, programs in all) after each program.
        name: Of the module that a program is, as its `__name__`.

    Returns:
        One outcome for each program, in the same order.

    Raises:
        UserError: This machine cannot isolate the programs, and `opt_in` is false.
    """
    require_protections(opt_in)
    if isinstance(programs, str):
        raise UserError("run_programs takes a list of programs and got one string: use run_program.")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: give at least 1.")
    namespaces = _probe()[0]
    cores = len(os.sched_getaffinity(0))
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(programs)):
        todo.put(index)
    done: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        server = None
        try:
            while not stop.is_set():
                index = todo.get_nowait()
                server = server or _Server(namespaces)
                if not server.in_force:
                    raise UserError(
                        f"The sandbox does not start any more ({server.why}): free some memory, then give the same command again."
                    )
                weaker = [kind for kind, on in _probe()[1].items() if on and not server.in_force[kind]]
                if weaker:  # its trial failed for want of memory or time
                    raise UserError(
                        f"The sandbox started without {', '.join(weaker)} this time: free some memory, then give the same command again."
                    )
                broken = False
                try:
                    outcome = server.run(programs[index], limits, name)
                except (OSError, ValueError) as error:
                    # No answer in time: the program bogged the machine down. Anything else is our failure.
                    status: Status = "timeout" if isinstance(error, TimeoutError) else "error"
                    reason = f"The sandbox gave no answer: {error!r}"
                    outcome = Outcome(False, status, "", reason, limits.wall_seconds)
                    broken = True
                if broken or outcome.status == "error":
                    server.close()
                    server = None
                done.put((index, outcome))
        except queue.Empty:
            pass
        except BaseException as error:  # handed to the caller's thread
            done.put((-1, error))
        finally:
            if server:
                server.close()

    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(workers or cores, len(programs)))
    ]
    for thread in threads:
        thread.start()
    outcomes: dict[int, Outcome] = {}
    try:
        while len(outcomes) < len(programs):
            index, outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes[index] = outcome
            if progress:
                progress(len(outcomes), len(programs))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return [outcomes[index] for index in range(len(programs))]


def run_program(source: str, limits: Limits = DEFAULT_LIMITS, opt_in: bool = False) -> Outcome:
    """Run one program; see `run_programs`, which is far cheaper for many."""
    return run_programs([source], limits, workers=1, opt_in=opt_in)[0]
