"""The process that asks math-verify: a line of JSON [given, reference] in, a line "1" or "0" out.

It runs alone, with limits on processor time and memory, so that an answer on which sympy never ends costs this process
and not the program. It needs nothing of the project. Only TeX is read: math-verify's reader of plain expressions hands
text to sympy's `parse_expr`, which runs it as Python, and is never used.
"""

import json
import resource
import sys
from collections.abc import Callable
from functools import lru_cache

CPU_S = 3  # of processor time for an answer, on top of what was used before it: how busy the machine is does not count
MEMORY_MIB = 2048
DIGITS = 12  # decimals that must agree; math-verify's own 6 take 0.7500001 for 3/4


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, MEMORY_MIB << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    verdict = _judge()
    print("ready", flush=True)
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        given, reference = json.loads(line)
        print(int(verdict(given, reference)), flush=True)


def _judge() -> Callable[[str, str], bool]:
    """math-verify without its timeouts, which are signals, and its logging."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    tex = [LatexExtractionConfig()]

    @lru_cache(maxsize=4096)  # references come again and again
    def read(answer: str) -> list[object]:
        text = f"$\\boxed{{{answer}}}$"
        return parse(text, extraction_config=tex, fallback_mode="no_fallback", parsing_timeout=None)

    def verdict(given: str, reference: str) -> bool:
        try:
            ours, theirs = read(given), read(reference)
            rounding = {"float_rounding": DIGITS, "numeric_precision": 2 * DIGITS}
            return bool(ours and theirs and verify(theirs, ours, timeout_seconds=None, **rounding))
        except Exception:  # sympy fails in many types; what is not sure is not the same
            return False

    return verdict


if __name__ == "__main__":
    main()
