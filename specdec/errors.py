"""The one exception for mistakes a user can make, and what a program does about it.

Not for bugs, which keep their tracebacks.
"""

import difflib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

# Packages that only some commands need -> the extra of this project that brings them along.
EXTRAS = {"matplotlib": "plot", "prometheus_client": "serve"}


# Commands as messages name them -> verbs of `failfast`; longer names first.
_VERBS = {
    "failfast.py --record": "record",
    "python -m specdec.calibrate": "calibrate",
    "parse_log.py": "rank",
    "failfast.py": "run",
}


# What reading a document of another form raises: another type, no such key, a number too large for a float, a division
# by 0, objects nested too deep.
MALFORMED = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError)


class UserError(Exception):
    """A mistake in the input: one line that says what is wrong and what to do.

    Drivers print it on stderr and exit with status 2.
    """


@contextmanager
def user_error(task: str, advice: str = "") -> Iterator[None]:
    """What the system refuses inside becomes the user's error: "cannot TASK: no space left on device; ADVICE"."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot {task}: {_reason(error)}{advice and f'; {advice}'}") from None


def _reason(error: OSError) -> str:
    """In words: a folder in the place of a file has the system say of a right name that it "is a directory"."""
    return "it is a folder, not a file" if isinstance(error, IsADirectoryError) else str(error.strerror or error)


# What the hub's many exceptions mean, by the names of their types and by what they say; the first that fits.
_HUB_REASONS = {
    "it is gated: accept its terms on its page, then log in with 'hf auth login'": ("GatedRepo", "is a gated dataset"),
    "there is no such repository, or it is private": ("RepositoryNotFound", "DatasetNotFound", "doesn't exist", "404 "),
    "no network, or the hub is down": ("Connect", "Timeout", "LocalEntryNotFound", "Offline", "ProxyError", "SSLError"),
}


def hub_reason(error: BaseException, name: str, known: Iterable[str] = ()) -> str:
    """Why `name` could not be fetched from the hub, in words, with the nearest of the `known` names if it is none.

    The hub wraps its exceptions: those that caused this one are looked at as well, the innermost last.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    said = [f"{type(one).__name__}: {one}" for one in causes]
    reasons = (why for why, signs in _HUB_REASONS.items() if any(sign in text for text in said for sign in signs))
    found = next(reasons, None) or " ".join(said[0].split())[:200]
    near = [] if name in known else difflib.get_close_matches(name, list(known), 1)
    return f"{found}; did you mean {near[0]}?" if near else found


def require_package(name: str) -> None:
    """Raise UserError where a package of EXTRAS is not installed; it is not imported."""
    if find_spec(name) is None:
        raise UserError(f"this needs the package {name}: pip install 'failfast-benchmark[{EXTRAS[name]}]'")


def as_called(program: str, message: str) -> str:
    """Advice that names commands as they are published, with verbs for who has called the program by one."""
    if program.startswith("failfast "):
        for published, verb in _VERBS.items():
            message = message.replace(published, f"failfast {verb}")
    return message


def exit_status(program: str, work: Callable[[], None]) -> int:
    """Do `work` and return the program's exit status: 0, or 2 after one line on stderr.

    A reader that has gone away (`| head`) is not a mistake; an output that cannot be written is one. A character that a
    terminal has not is spelled out.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
        sys.stdout.flush()
    except UserError as error:
        print(f"{program}: error: {as_called(program, ' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"{program}: error: {_reason(error)} ({error.filename or 'output'})", file=sys.stderr)
        return 2
    return 0
