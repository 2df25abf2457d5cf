"""Runs an inference server that writes down, inside its own process, the moment of each token.

    python timed_server.py transformers|llama FILE [ARGUMENT OF THE SERVER ...]

FILE gets a line "begin" for each answer, then the time (perf_counter, which all processes of a machine share) of each
of its tokens. Nothing else of the server is changed. Not a test; needs nothing of the project.
"""

from __future__ import annotations

import functools
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

Note = Callable[[object], None]


def time_transformers(note: Note) -> None:
    """A token is known when a forward pass has ended; the one over the prompt begins an answer."""
    from transformers import PreTrainedModel

    forward = PreTrainedModel.__call__

    @functools.wraps(forward)
    def timed(self: PreTrainedModel, *arguments: object, **keywords: object) -> object:
        output, ids = forward(self, *arguments, **keywords), keywords.get("input_ids")
        if hasattr(self, "lm_head") and ids is not None:
            if ids.shape[1] > 1:
                note("begin")
            note(time.perf_counter())
        return output

    PreTrainedModel.__call__ = timed


def time_llama(note: Note) -> None:
    """A token is known when it has been chosen."""
    from llama_cpp import Llama

    generate = Llama.generate

    @functools.wraps(generate)
    def timed(self: Llama, *arguments: object, **keywords: object) -> Iterator[int]:
        note("begin")
        for token in generate(self, *arguments, **keywords):
            note(time.perf_counter())
            yield token

    Llama.generate = timed


def main() -> None:
    kind, path, *arguments = sys.argv[1:]
    with Path(path).open("w", encoding="utf-8") as file:
        serve(kind, arguments, lambda what: print(what, file=file, flush=True))


def serve(kind: str, arguments: list[str], note: Note) -> None:
    if kind == "transformers":
        time_transformers(note)
        sys.argv = ["transformers", "serve", *arguments]
        (program,) = entry_points(group="console_scripts", name="transformers")
        program.load()()
    else:
        time_llama(note)
        sys.argv = ["llama_cpp.server", *arguments]
        runpy.run_module("llama_cpp.server", run_name="__main__")


if __name__ == "__main__":
    main()
