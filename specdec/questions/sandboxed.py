"""Runs inside the sandbox: locks this process in, then executes the program that stands on standard input.

Started by `sandbox.py` as a file, never imported by the program; standard library only. After `lock_in` the kernel
refuses, with "operation not permitted", whatever would reach outside of this process or change a file.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

NO_SANDBOX = 97
# System calls refused, as (x86-64, ARM64) numbers; -1: there is none. From the kernel's unistd tables.
REFUSED = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "io_uring_setup": (425, 425),
    "fork": (57, -1), "vfork": (58, -1), "clone": (56, 220), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "pidfd_open": (434, 434), "ptrace": (101, 117),
    "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "process_vm_writev": (311, 271), "process_vm_readv": (310, 270), "prlimit64": (302, 261), "setrlimit": (160, 164),
    "unlink": (87, -1), "unlinkat": (263, 35), "rmdir": (84, -1), "rename": (82, -1), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, -1), "mkdirat": (258, 34), "creat": (85, -1), "truncate": (76, 45),
    "link": (86, -1), "linkat": (265, 37), "symlink": (88, -1), "symlinkat": (266, 36), "mknod": (133, -1),
    "mknodat": (259, 33), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utimensat": (280, 88),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "fsopen": (430, 430), "move_mount": (429, 429), "open_tree": (428, 428),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "add_key": (248, 217), "keyctl": (250, 219), "request_key": (249, 218), "reboot": (169, 142),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "swapon": (167, 224), "swapoff": (168, 225),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "memfd_create": (319, 279), "ioperm": (173, -1), "iopl": (172, -1), "fallocate": (285, 47),
}  # fmt: skip
UNKNOWN = {"clone3": 435, "openat2": 437}  # the C library falls back to what is filtered
OPENERS = {"open": ((2, -1), 1), "openat": ((257, 56), 2)}  # numbers, and which argument holds the flags
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, audit architecture
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data


def instructions(column: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """The filter as classic BPF: (code, jump if true, jump if false, operand)."""
    program = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    program += [(LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]  # x32's numbers
    for numbers in REFUSED.values():
        if numbers[column] >= 0:
            program += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, EPERM)]
    for number in UNKNOWN.values():
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ENOSYS)]
    for numbers, argument in OPENERS.values():
        if numbers[column] >= 0:
            program += [(EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, ARGUMENTS_AT + 8 * argument)]
            program += [(ANY_BIT, 0, 1, WRITING), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    return [*program, (RETURN, 0, 0, ALLOW)]


def lock_in() -> bool:
    """Install the filter for good; False where this system has none."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return False
    code = [struct.pack("HBBI", *one) for one in instructions(*MACHINES[platform.machine()])]
    buffer = ctypes.create_string_buffer(b"".join(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, set_seccomp, with_filter = 38, 22, 2
    if prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return prctl(set_seccomp, with_filter, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0


def limit(seconds: int, mebibytes: int) -> None:
    """Processor time, memory and file size of this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Run the program; on its success alone, the secret that stood before it goes to standard output."""
    secret, _, program = sys.stdin.buffer.read().decode().partition("\n")
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    limit(int(sys.argv[1]), int(sys.argv[2]))
    if not lock_in():
        os._exit(NO_SANDBOX)
    exec(compile(program, "<answer>", "exec"), {"__name__": "__main__"})
    os.write(answers, secret.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
