"""The inside of the sandbox: a clean process that forks one confined child for each program.

`sandbox.py` starts this file with a fresh interpreter and an empty environment; it is not meant to be
imported elsewhere, and uses the standard library only, because it runs before everything else. It is

    launcher -> server (first process of its own pid namespace)
             -> keeper (first process of the program's own pid namespace: when it dies, the kernel kills
                everything that the program started)
             -> program (no privileges)

On file descriptor 0 it takes requests and gives answers, each a 4-byte length and JSON. `namespaces` as the
first argument means the full arrangement, all or nothing. `plain` means what is left where the kernel refuses
namespaces: Landlock for files, a seccomp filter against network and new processes, resource limits.

Not promised: a program and its judge share one process, so code written against this very file can pretend
that it ran to the end (it must find the receipt's descriptor); and a bug in the kernel is a way out.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import sysconfig
import tempfile
import time
import traceback
import types
from collections.abc import Iterable
from typing import NamedTuple

NOBODY = 65534
RECEIPT_FD, REPORT_FD = 3, 4
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_NEW_ANY, CLONE_THREAD = 0x7E020000, 0x00010000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
# Parsed once and kept by every fork: most programs written by a model need one of these.
WARM = "math re collections itertools functools string heapq bisect random typing datetime copy operator"

# System calls that a program has no honest use for: name, number on x86-64, number on arm64 (0: absent). They
# are network, other processes, mounts and namespaces, kernel facilities, memory that no limit counts, exec.
DENIED = """
socket 41 198  connect 42 203  bind 49 200  listen 50 201  accept 43 202  accept4 288 242  ptrace 101 117
process_vm_readv 310 270  process_vm_writev 311 271  process_madvise 440 440  pidfd_open 434 434
pidfd_getfd 438 438  pidfd_send_signal 424 424  kcmp 312 272  mount 165 40  umount2 166 39
pivot_root 155 41  chroot 161 51  move_mount 429 429  open_tree 428 428  fsopen 430 430  fsconfig 431 431
fsmount 432 432  fspick 433 433  mount_setattr 442 442  unshare 272 97  setns 308 268  bpf 321 280
perf_event_open 298 241  userfaultfd 323 282  keyctl 250 219  add_key 248 217  request_key 249 218
io_uring_setup 425 425  io_uring_enter 426 426  io_uring_register 427 427  shmget 29 194  shmat 30 196
semget 64 190  msgget 68 186  mq_open 240 180  memfd_create 319 279  memfd_secret 447 447  execve 59 221
execveat 322 281  kexec_load 246 104  kexec_file_load 320 294  init_module 175 105  finit_module 313 273
delete_module 176 106  reboot 169 142  swapon 167 224  swapoff 168 225  syslog 103 116  acct 163 89
settimeofday 164 170  clock_settime 227 112  adjtimex 159 171  clock_adjtime 305 266  quotactl 179 60
name_to_handle_at 303 264  open_by_handle_at 304 265  personality 135 92  fanotify_init 300 262  iopl 172 0
ioperm 173 0  modify_ldt 154 0  sethostname 170 161  setdomainname 171 162  vhangup 153 58
"""
# Denied as well where there is no pid namespace: new processes, and acting on any process but oneself.
DENIED_PLAIN = """
fork 57 0  vfork 58 0  tkill 200 130  rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240  setpriority 141 140
ioprio_set 251 30  sched_setaffinity 203 122  sched_setscheduler 144 119  sched_setattr 314 274
sched_setparam 142 118
"""
# Nor is there a namespace for what programs share: memory, semaphores and queues of the user that are there already.
DENIED_PLAIN += """
shmctl 31 195  semctl 66 191  semop 65 193  semtimedop 220 192  msgctl 71 187  msgsnd 69 189  msgrcv 70 188
mq_unlink 241 181
"""
# Landlock does not govern these: rights, owners, times and attributes of any file of the user; and its length by
# name, before Linux 6.2.
DENIED_PLAIN += """
truncate 76 45
chmod 90 0  fchmod 91 52  fchmodat 268 53  fchmodat2 452 452  chown 92 0  lchown 94 0  fchown 93 55
fchownat 260 54  utime 132 0  utimes 235 0  futimesat 261 0  utimensat 280 88  setxattr 188 5
lsetxattr 189 6  fsetxattr 190 7  setxattrat 463 463  removexattr 197 14  lremovexattr 198 15
fremovexattr 199 16  removexattrat 466 466  file_setattr 469 469
"""
# openat2 hides its flags from a filter, and the C library does not need it; a watch tells of files elsewhere.
DENIED_PLAIN += "openat2 437 437  inotify_add_watch 254 27"
# Nor does Landlock govern these: access mode 3, by which any file or device opens for neither reading nor writing, but
# for ioctl; and O_TRUNC without writing, before Linux 6.2. The bits to look at (O_ACCMODE | O_TRUNC), what is refused.
OPENING, UNGOVERNED = 0o1003, (0o3, 0o1003, 0o1000)
# Commands by which a pipe sends any signal to any process: F_SETOWN, F_SETSIG, F_SETOWN_EX of fcntl, and
# FIOSETOWN, SIOCSPGRP of ioctl; and by which a file that is open to read is changed: FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR.
COMMANDS = ((8, 10, 15), (0x8901, 0x8902, 0x40086602, 0x401C5820))
# A bit of every type of socket but SOCK_STREAM (1): a pair of others can send to any address.
UNPAIRED = 6
# machine: (column in the tables, AUDIT_ARCH, clone, clone3, socketpair, prctl, open (0: absent), openat, fcntl, ioctl,
#           kill, tgkill, prlimit64)
ARCHITECTURES = {
    "x86_64": (0, 0xC000003E, 56, 435, 53, 157, 2, 257, 72, 16, 62, 234, 302),
    "aarch64": (1, 0xC00000B7, 220, 435, 199, 167, 0, 56, 25, 29, 129, 131, 261),
}

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: object) -> int:
    """Call a libc function; raise OSError naming it when it fails. Integers go as longs (system calls need
    it)."""
    result = getattr(libc, name)(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return int(result)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def protect_mount(path: str, recursive: bool, devices: int = MS_NODEV) -> None:
    """Make a mount read-only, without set-uid files or devices (mount_setattr, Linux 5.12)."""
    attributes = struct.pack("QQQQ", MS_RDONLY | MS_NOSUID | devices, 0, 0, 0)
    call("syscall", 442, -100, path.encode(), 0x8000 if recursive else 0, attributes, len(attributes))


def runtime_paths() -> list[str]:
    """What running Python needs: the standard library and shared libraries, no executable."""
    paths = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"]
    paths += [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    paths += [p + "/lib" for p in (sys.base_prefix, sys.base_exec_prefix) if p != "/"]
    paths = sorted({p for p in paths if os.path.exists(p)})
    return [p for p in paths if not any(p.startswith(q + "/") for q in paths)]


def build_root(root: str) -> None:
    """Replace this mount namespace's root by a tmpfs that holds the runtime, read-only, and three devices."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,mode=755")
    for path in runtime_paths():
        inside = root + path
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
            continue
        if os.path.isdir(path):
            os.mkdir(inside)
        else:
            os.close(os.open(inside, os.O_CREAT))
        mount(path, inside, "", MS_BIND | MS_REC)
        protect_mount(inside, recursive=True)
    # Installed packages are the user's files: cover them.
    for folder in (sysconfig.get_path("stdlib") + "/site-packages", "/usr/lib/python3/dist-packages"):
        if os.path.isdir(root + folder):
            mount("tmpfs", root + folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k")
    os.mkdir(root + "/dev")
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        os.close(os.open(root + device, os.O_CREAT))
        mount(device, root + device, "", MS_BIND)
        protect_mount(root + device, recursive=False, devices=0)  # can be written to, not changed
    os.mkdir(root + "/tmp")
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", 2)  # MNT_DETACH: the old root, now below the new one
    os.chdir("/")
    protect_mount("/", recursive=False)


def enter_namespaces(root: str) -> tuple[int, bool]:
    """Move into namespaces of our own. Forks: the launcher waits and never returns from here.

    Returns a handle on the server's pid namespace, and whether a user namespace was needed (root with
    CAP_SYS_ADMIN needs none: its programs run as a user without rights instead)."""
    flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    uid, gid, user_namespace = os.getuid(), os.getgid(), False
    try:
        if uid != 0:
            raise PermissionError
        call("unshare", flags)
    except PermissionError:
        call("unshare", flags | CLONE_NEWUSER)
        user_namespace = True
        maps = {"setgroups": "deny", "uid_map": f"{NOBODY} {uid} 1", "gid_map": f"{NOBODY} {gid} 1"}
        for name, text in maps.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    server = os.fork()
    if server:
        die_with_parent()
        os.close(0)
        os.waitpid(server, 0)
        os._exit(0)
    die_with_parent()
    own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
    socket.sethostname("sandbox")
    build_root(root)
    return own_pid_namespace, user_namespace


def die_with_parent() -> None:
    call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def install_filter(tables: str, plain: bool) -> None:
    """Install a seccomp filter that answers "not permitted" to the system calls in `tables`, and to clone
    with new namespaces; with `plain`, also to new processes, to signals for any process but this one, to pairs of
    sockets that can send elsewhere, and to opening and changing files in ways that Landlock does not govern.

    Raises OSError where the kernel or this architecture has no filter."""
    if platform.machine() not in ARCHITECTURES:
        raise OSError(f"no system call table for {platform.machine()}")
    column, audit, clone, clone3, socketpair, prctl, *others = ARCHITECTURES[platform.machine()]
    open_file, openat, fcntl, ioctl, *self_only = others
    load, mask, equal, at_least, any_bit, give = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # 0x0005: fail with errno
    # Offsets in struct seccomp_data (little-endian).
    number, architecture, first_argument, second_argument, third_argument = 0, 4, 16, 24, 32
    rows = re.findall(r"\w+ (\d+) (\d+)", tables)
    program = [(load, 0, 0, architecture), (equal, 1, 0, audit), (give, 0, 0, kill), (load, 0, 0, number)]
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]  # x32 numbers would pass under the table

    def answer(verdict: int, *values: int) -> list[tuple[int, int, int, int]]:
        """The verdict for each of these values of what was loaded last."""
        return [row for value in values for row in ((equal, 0, 1, value), (give, 0, 0, verdict))]

    def on(call_number: int, argument: int, *checks: tuple[int, int, int, int], otherwise: int = allow) -> None:
        """Checks an argument of a system call; what they leave open is `otherwise`."""
        whole = [(load, 0, 0, argument), *checks, (give, 0, 0, otherwise)]
        program.extend([(equal, 0, len(whole), call_number), *whole])

    program += answer(refuse, *sorted({int(row[column]) for row in rows} - {0}))
    program += answer(absent, clone3)  # it hides its flags from a filter; without it the C library falls back on clone
    no_process = [(any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, refuse)] if plain else []
    on(clone, first_argument, (any_bit, 0, 1, CLONE_NEW_ANY), (give, 0, 0, refuse), *no_process)
    if plain:
        on(prctl, first_argument, *answer(refuse, PR_SET_PDEATHSIG))  # the keeper's stand-in: the program ends when the server does
        on(socketpair, second_argument, (any_bit, 0, 1, UNPAIRED), (give, 0, 0, refuse))
        for call_number, flags in ((open_file, second_argument), (openat, third_argument)):
            if call_number:
                on(call_number, flags, (mask, 0, 0, OPENING), *answer(refuse, *UNGOVERNED))
        for call_number, commands in zip((fcntl, ioctl), COMMANDS, strict=True):
            on(call_number, second_argument, *answer(refuse, *commands))
        for call_number in self_only:
            targets = [os.getpid()] + ([0] if call_number == self_only[-1] else [])
            on(call_number, first_argument, *answer(allow, *targets), otherwise=refuse)
    program.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    call("prctl", PR_SET_SECCOMP, 2, struct.pack("HP", len(program), ctypes.addressof(code)), 0, 0)


def restrict_files(writable: str) -> None:
    """Landlock (Linux 5.13, no privilege needed): only the runtime can be read, only `writable` changed;
    the filter refuses what Landlock does not govern. File names elsewhere can still be tested for existence."""
    version = call("syscall", 444, 0, 0, 1)
    everything = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    execute, write_file, read_file, read_dir = 1, 2, 4, 8
    ruleset = call("syscall", 444, struct.pack("Q", everything), 8, 0)
    rules: list[tuple[str, int]] = [(p, execute | read_file | read_dir) for p in runtime_paths()]
    rules += [(p, read_file | write_file) for p in ("/dev/null", "/dev/zero", "/dev/urandom")]
    for path, rights in [*rules, (writable, everything)]:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = rights if os.path.isdir(path) else rights & ~read_dir
        call("syscall", 445, ruleset, 1, struct.pack("=Qi", allowed, file), 0)
        os.close(file)
    call("syscall", 446, ruleset, 0)
    os.close(ruleset)


def tasks_of(uid: int) -> int:
    """The number of tasks (threads) that a user has now: RLIMIT_NPROC counts them, too."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        try:
            count += len(os.listdir(f"/proc/{pid}/task")) if os.stat(f"/proc/{pid}").st_uid == uid else 0
        except OSError:
            pass  # it ended while we looked
    return count


def set_limits(limits: dict, other_tasks: int) -> None:
    cpu, disk = int(limits["cpu_seconds"]), limits["disk_kib"] << 10
    wanted = {
        "RLIMIT_CPU": (cpu, cpu + 1),  # the first signal (SIGXCPU) can be caught, the second (SIGKILL) not
        "RLIMIT_AS": (limits["memory_mib"] << 20,) * 2,
        "RLIMIT_FSIZE": (disk, disk),
        "RLIMIT_NOFILE": (limits["files"],) * 2,
        "RLIMIT_NPROC": (limits["processes"] + other_tasks,) * 2,
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
        "RLIMIT_RTPRIO": (0, 0),
    }
    for name, pair in wanted.items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        pair = pair if hard == resource.RLIM_INFINITY else (min(pair[0], hard), min(pair[1], hard))
        resource.setrlimit(getattr(resource, name), pair)


def user_of_its_own() -> int:
    """Whom root's programs run as: a user that nobody else has, so that RLIMIT_NPROC, which counts by user,
    counts one server's alone. `nobody` where this user namespace knows no such user."""
    user = 2_000_000_000 + os.getpid()  # in a range that no distribution and no container manager gives out
    try:
        with open("/proc/self/uid_map") as file:
            ranges = [[int(n) for n in line.split()] for line in file]
    except OSError:
        return NOBODY
    return user if any(first <= user < first + count for first, _, count in ranges) else NOBODY


def drop_privileges(switch_user: int) -> None:
    """Give up every capability for good and, as root, become this user (0: none)."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails where it is not ours to drop
    if switch_user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(switch_user, switch_user, switch_user)
    call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


class Descriptors(NamedTuple):
    """The ends of pipes and of a socket that the program's side holds."""

    out: int
    err: int
    report: int
    receipt: int


class Server:
    """Runs programs one after the other; `in_force` says which protections each of them gets."""

    def __init__(self, mode: str, folder: str) -> None:
        self.namespaces, self.folder = mode == "namespaces", folder
        self.switch_user = user_of_its_own() if os.getuid() == 0 else 0
        tasks = tasks_of(self.switch_user or os.getuid())
        user_namespace = False
        if self.namespaces:
            self.own_pid_namespace, user_namespace = enter_namespaces(folder)
            self.switch_user = 0 if user_namespace else self.switch_user
            release = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2])
            if user_namespace and release >= (5, 14):  # counted per user namespace: launcher, server, keeper
                tasks = 3
        else:
            os.chmod(folder, 0o711)
        self.other_tasks = tasks
        kinds = ("network", "mount", "pid", "ipc", "uts")
        self.in_force = dict.fromkeys((f"{kind}_namespace" for kind in kinds), self.namespaces)
        self.in_force |= {"user_namespace": user_namespace, "landlock": not self.namespaces}
        self.in_force |= {"seccomp": True, "unprivileged_user": True, "rlimits": True}
        for keyword in WARM.split():
            __import__(keyword)
        gc.freeze()  # the forks then share these objects instead of copying them
        # Believe no claim: run a program, and give up the fewest protections with which it does not run here.
        doubtful = [name for name in ("unprivileged_user", "landlock", "seccomp") if self.in_force[name]]
        for gone in (names for count in range(4) for names in itertools.combinations(doubtful, count)):
            self.in_force |= {name: name not in gone for name in doubtful}
            held = self.in_force["seccomp"] and (self.namespaces or self.in_force["landlock"])
            if os.getuid() == 0 and not self.in_force["unprivileged_user"] and not held:
                continue  # root with nothing to hold it could signal every process and change every file
            if self.works():
                return
        raise OSError("a trivial program does not run in it")

    def works(self) -> bool:
        # A module that is not loaded yet: another user may be unable to read an interpreter in a user's home.
        limits = {"wall_seconds": 10, "cpu_seconds": 5, "memory_mib": 512, "output_kib": 64, "files": 32}
        outcome = self.run("import colorsys", limits | {"processes": 8, "disk_kib": 64})
        return outcome["status"] == "passed"

    def serve(self) -> None:
        while (request := receive()) is not None:
            try:
                send(self.run(request["source"], request["limits"], request["name"]))
            except OSError as error:  # out of processes or descriptors: not judged, and our state is unsound
                send({"status": "error", "stdout": "", "stderr": str(error), "seconds": 0.0})
                return

    def run(self, source: str, limits: dict, name: str = "__main__") -> dict:
        """Fork, watch, kill and judge one program. Returns the fields of `sandbox.Outcome` but `ok`."""
        start = time.monotonic()
        pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, the keeper's report
        ours, theirs = socket.socketpair()
        folder = "/tmp" if self.namespaces else tempfile.mkdtemp(dir=self.folder)
        if self.namespaces:
            call("unshare", CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            try:
                fds = Descriptors(pipes[0][1], pipes[1][1], pipes[2][1], theirs.fileno())
                (self.keep if self.namespaces else self.program)(source, name, limits, folder, fds)
            finally:
                os._exit(1)
        if self.namespaces:
            call("setns", self.own_pid_namespace, CLONE_NEWPID)  # so that the next unshare starts from here
        # Made after the fork, and read by the program's process only when the program has ended: while it
        # runs, no variable of its process holds it.
        nonce = os.urandom(16)
        ours.send(nonce)
        theirs.close()
        for _, write_end in pipes:
            os.close(write_end)
        stdout, stderr, report = (read_end for read_end, _ in pipes)
        texts = {stdout: bytearray(), stderr: bytearray()}
        verdict = watch(child, texts, start + limits["wall_seconds"], limits["output_kib"] << 10)
        if not self.namespaces:
            try:
                os.killpg(child, signal.SIGKILL)
            except OSError:
                pass  # it has ended, or never got its own group
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status, usage = os.wait4(child, 0)  # in a pid namespace: returns when every process in it is gone
        cpu = usage.ru_utime + usage.ru_stime
        seconds = time.monotonic() - start
        for fd, text in texts.items():
            os.set_blocking(fd, False)
            drain(fd, text, limits["output_kib"] << 10)
        note = os.read(report, 400)
        fields = note.split()
        if len(fields) == 2 and fields[0].isdigit():
            status, cpu, note = int(fields[0]), float(fields[1]), b""
        ours.setblocking(False)
        try:
            receipt = ours.recv(400)
        except OSError:
            receipt = b""
        ours.close()
        for fd in (stdout, stderr, report):
            os.close(fd)
        if not self.namespaces:
            shutil.rmtree(folder, ignore_errors=True)
        if note:
            verdict, texts[stderr] = "error", bytearray(note)
        elif verdict == "ended":
            verdict = judge(status, cpu, limits["cpu_seconds"], receipt, nonce)
        out, err = (bytes(text).decode("utf-8", "replace") for text in texts.values())
        return {"status": verdict, "stdout": out, "stderr": err, "seconds": seconds}

    def keep(self, source: str, name: str, limits: dict, folder: str, fds: Descriptors) -> None:
        """The first process of the program's pid namespace. Signals from inside cannot kill it."""
        try:
            die_with_parent()
            call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
            size = f"size={limits['disk_kib']}k,nr_inodes={64 + limits['disk_kib'] // 4},mode=1777"
            mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, size)
            program = os.fork()
            if program == 0:
                self.program(source, name, limits, folder, fds)
            for fd in (0, fds.out, fds.err, fds.receipt):
                os.close(fd)
            while True:
                pid, status, usage = os.wait4(-1, 0)
                if pid == program:
                    os.write(fds.report, f"{status} {usage.ru_utime + usage.ru_stime}".encode())
                    break
        except BaseException as error:
            os.write(fds.report, f"setup: {error}".encode()[:400])
        finally:
            os._exit(0)

    def program(self, source: str, name: str, limits: dict, folder: str, fds: Descriptors) -> None:
        """Confine this process, run the program in it, and hand in the receipt if it ended. Never returns."""
        # Bound now: the program may replace anything that is looked up later.
        leave, read, write, describe = os._exit, os.read, os.write, traceback.format_exception
        identity, this_process = os.getpid, os.getpid()
        memory_error, base_exception = MemoryError, BaseException
        try:
            try:
                self.confine(limits, folder, fds)
            except base_exception as error:
                for fd in (fds.report, REPORT_FD):  # where it is depends on how far we got
                    try:
                        write(fd, f"setup: {error}".encode()[:400])
                    except OSError:
                        pass
                leave(1)
            main = types.ModuleType(name)
            # As `__main__` too, whatever its name is: this file must not be found there.
            sys.modules["__main__"] = sys.modules[name] = main
            sys.argv, sys.path[:] = [""], [p for p in sys.path if p]
            try:
                exec(compile(source, "<program>", "exec", dont_inherit=True, optimize=0), main.__dict__)
                try:
                    sys.stdout.flush()
                except base_exception:
                    pass  # the program closed it: its own affair
                if identity() == this_process:  # not a child that the program forked
                    write(RECEIPT_FD, read(RECEIPT_FD, 16)[::-1])  # reversed: a blind echo is no receipt
                leave(0)
            except base_exception as error:  # also SystemExit: leaving early is not passing
                if isinstance(error, memory_error):
                    write(RECEIPT_FD, b"memory")
                try:
                    sys.stdout.flush()
                finally:
                    inner = error.__traceback__.tb_next if error.__traceback__ else None
                    write(2, "".join(describe(type(error), error, inner)).encode("utf-8", "replace")[-4000:])
        finally:
            leave(1)

    def confine(self, limits: dict, folder: str, fds: Descriptors) -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open("/dev/null", os.O_RDWR)
        for old, new in ((fds.receipt, 100), (fds.out, 101), (fds.err, 102), (fds.report, 103), (null, 0)):
            os.dup2(old, new)
        for old, new in ((101, 1), (102, 2), (100, RECEIPT_FD), (103, REPORT_FD)):
            os.dup2(old, new)
        os.closerange(REPORT_FD + 1, 65536)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.chdir(folder)
        os.environ.update(HOME=folder, TMPDIR=folder)
        switch_user = self.switch_user if self.in_force["unprivileged_user"] else 0
        if switch_user and not self.namespaces:
            os.chown(folder, self.switch_user, NOBODY)
        set_limits(limits, self.other_tasks)
        drop_privileges(switch_user)
        die_with_parent()  # after the change of user, which resets it
        if self.in_force["landlock"]:
            restrict_files(folder)
        if self.in_force["seccomp"]:
            install_filter(DENIED + ("" if self.namespaces else DENIED_PLAIN), plain=not self.namespaces)
        os.close(REPORT_FD)  # the program must not be able to claim that the sandbox failed


def judge(status: int, cpu: float, cpu_seconds: int, receipt: bytes, nonce: bytes) -> str:
    if status == 0 and receipt == nonce[::-1]:
        return "passed"
    if receipt == b"memory":
        return "memory"
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGXCPU or cpu >= cpu_seconds else "killed"
    return "failed"


def watch(child: int, texts: dict[int, bytearray], deadline: float, most: int) -> str:
    """Collect output until the child ends ("ended"), the deadline passes ("timeout"), or a stream holds more
    than `most` bytes ("output")."""
    poll = select.poll()
    for fd in texts:
        poll.register(fd, select.POLLIN)
    handle = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    if handle is not None:
        poll.register(handle, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            for fd, event in poll.poll((left if handle is not None else min(left, 0.02)) * 1000):
                if fd == handle:
                    return "ended"
                if event & select.POLLIN:
                    texts[fd] += os.read(fd, 65536)
                    if len(texts[fd]) > most:
                        del texts[fd][most:]
                        return "output"
                else:
                    poll.unregister(fd)  # closed by everyone who could write to it
            if handle is None and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return "ended"
        return "timeout"
    finally:
        if handle is not None:
            os.close(handle)


def drain(fd: int, text: bytearray, most: int) -> None:
    """Take what is still in a pipe, up to `most` bytes in all."""
    try:
        while len(text) < most and (chunk := os.read(fd, most - len(text))):
            text += chunk
    except BlockingIOError:
        pass


def read_exactly(count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        chunk = os.read(0, count - len(data))
        if not chunk:
            return None
        data += chunk
    return data


def receive() -> dict | None:
    """The next request, or None when the other side has gone."""
    head = read_exactly(4)
    body = read_exactly(struct.unpack("!I", head)[0]) if head is not None else None
    return None if body is None else json.loads(body)


def send(message: dict) -> None:
    data = json.dumps(message).encode()
    data = struct.pack("!I", len(data)) + data
    while data:
        data = data[os.write(0, data) :]


def main(arguments: Iterable[str]) -> None:
    mode, folder = arguments
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent()
    try:
        server = Server(mode, folder)
    except OSError as error:
        send({"why": str(error)})
        return
    send({"in_force": server.in_force})
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
