"""Lockdown: this process may compute, use the files that are open, and end. The kernel refuses everything else.

A list of allowed system calls, loaded as a seccomp filter: what is not on it, known today or not, fails with "operation
not permitted". It opens no file, so that what a program imports must be there before. Standard library only.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

# System calls allowed, as (x86-64, ARM64) numbers; -1: there is none. From the kernel's unistd tables.
ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "fstat": (5, 80), "brk": (12, 214),
    "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, -1), "times": (100, 153), "getrusage": (98, 165), "poll": (7, -1),
    "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72), "futex": (202, 98), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "exit": (60, 93), "exit_group": (231, 94), "rseq": (334, 293),
}  # fmt: skip
MAPPERS = {"mmap": (9, 222), "mprotect": (10, 226)}  # allowed, but for memory that holds instructions
WAIT, KILL_CALL = (61, 260), (62, 129)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, audit architecture
SECCOMP = (317, 277)
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
EXECUTABLE = 4  # PROT_EXEC
FIRST_NEW = 424  # "unknown" from here on: the C library falls back to an older call, which is on the list or is not


def instructions(column: int, architecture: int, child: int = 0) -> list[tuple[int, int, int, int]]:
    """The filter as classic BPF: (code, jump if true, jump if false, operand). `child` may be ended and waited for."""
    program = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    program += [(LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]  # x32's numbers
    waiting = (WAIT,) if child else ()
    for numbers in (*ALLOWED.values(), *waiting):
        if numbers[column] >= 0:
            program += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ALLOW)]
    for numbers in MAPPERS.values():
        program += [(EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, ARGUMENTS_AT + 8 * 2)]
        program += [(ANY_BIT, 0, 1, EXECUTABLE), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    if child:
        program += [(EQUAL, 0, 6, KILL_CALL[column]), (LOAD, 0, 0, ARGUMENTS_AT), (EQUAL, 0, 3, child)]
        program += [(LOAD, 0, 0, ARGUMENTS_AT + 8), (EQUAL, 0, 1, signal.SIGKILL), (RETURN, 0, 0, ALLOW)]
        program += [(RETURN, 0, 0, EPERM)]
    return [*program, (AT_LEAST, 0, 1, FIRST_NEW), (RETURN, 0, 0, ENOSYS), (RETURN, 0, 0, EPERM)]


def lock_in(child: int = 0) -> bool:
    """Install the filter for good, in every thread; False where this system has none."""
    if not is_known_machine():
        return False
    column, architecture = MACHINES[os.uname().machine]
    code = [struct.pack("HBBI", *one) for one in instructions(column, architecture, child)]
    buffer = ctypes.create_string_buffer(b"".join(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer)))
    library = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, with_filter, all_threads = 38, 1, 1
    if library.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    place = ctypes.c_void_p(ctypes.addressof(program))
    return library.syscall(SECCOMP[column], with_filter, all_threads, place) == 0


def is_known_machine() -> bool:
    return sys.platform == "linux" and os.uname().machine in MACHINES


def end_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def limit(seconds: int, mebibytes: int) -> None:
    """Processor time, memory and file size of this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
