"""Suffix decoding against ArcticInference's own tree: the drafts after every token of recorded and of random texts.

    python -m experiments.compare_suffix TRACE_DIR

Needs `arctic_inference.suffix_decoding`, of which the extension in its `csrc/suffix_decoding` is all that is built.
"""

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from profiling.common import parser_of, run_command
from specdec.drafters.earlier import Earlier
from specdec.drafters.suffix import Suffix, SuffixDrafter
from specdec.errors import UserError
from specdec.traces.trace import find_traces, load_trace

# Texts of a few different tokens say the same again and again, and have many ties.
VOCABULARIES = (1, 2, 3, 5, 20)
SETTINGS = (
    Suffix(),
    Suffix(factor=2.0, floor=0.0),
    Suffix(16, factor=1.5, offset=3.0, floor=0.3),
    Suffix(8, factor=4.0),
    Suffix(2, offset=1.0),
    Suffix(offset=2.5, max_draft_len=5),
    Suffix(earlier=True),
    Suffix(12, factor=2.0, floor=0.2, earlier=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.compare_suffix", __doc__)
    parser.add_argument("traces", help="folder of traces, whose texts are drafted")
    parser.add_argument("--num_random", type=int, default=1000, help="random texts (default: %(default)s)")
    return run_command(parser, lambda flags: measure(flags.traces, flags.num_random), arguments)


def measure(folder: str, num_random: int) -> dict[str, Any]:
    """How many drafts were compared, and how many differ."""
    if find_spec("arctic_inference") is None:
        raise UserError(
            "this needs the package arctic_inference: build its csrc/suffix_decoding and put it on the path"
        )
    traces = [load_trace(path) for path in find_traces(folder)]
    texts = [(trace.prompt_ids + trace.output_tokens, len(trace.prompt_ids)) for trace in traces]
    return {
        "what": "drafts of suffix decoding after every token, ours against arctic_inference's SuffixDecodingCache",
        "arctic_inference": version("arctic_inference"),
        "settings": [spec.name for spec in SETTINGS],
        "recorded": {"texts": len(texts), **compared(texts, SETTINGS)},
        "random": {"texts": num_random, **compared(random_texts(num_random), SETTINGS)},
    }


def random_texts(count: int) -> Iterator[tuple[list[int], int]]:
    """Texts of 2 to 90 tokens, every other one of them a part that comes again and again."""
    for seed in range(count):
        rng = random.Random(seed)
        tokens, length = range(rng.choice(VOCABULARIES)), rng.randint(2, 90)
        text = rng.choices(tokens, k=length)
        if seed % 2:
            text = (rng.choices(tokens, k=rng.randint(1, 12)) * length)[:length]
            text[rng.randrange(length)] = tokens[0]
        yield text, rng.randint(1, length - 1)


def compared(texts: Iterable[tuple[list[int], int]], specs: Sequence[Suffix]) -> dict[str, int]:
    """Drafts that were compared, those of them that have tokens, and those that differ in tokens or in their score.

    `texts`: each with the length of its prompt; the answers before it are what a drafter with `earlier` reads.
    """
    from arctic_inference.suffix_decoding import SuffixDecodingCache

    found = {"drafts": 0, "with_tokens": 0, "different": 0}
    caches = {spec: SuffixDecodingCache(spec.max_depth, -1 if spec.earlier else 0) for spec in specs}
    answers: list[list[int]] = []
    for text, prompt_len in texts:
        earlier = Earlier(read=answers.copy)
        for spec in specs:
            for ours, theirs in zip(
                _ours(text, prompt_len, spec, earlier),
                _theirs(text, prompt_len, spec, (caches[spec], len(answers))),
                strict=True,
            ):
                found["drafts"] += 1
                found["with_tokens"] += bool(theirs[0])
                found["different"] += ours != theirs
        answers.append(text[prompt_len:])
    return found


Drafted = tuple[list[int], float]  # tokens and score


def _ours(text: list[int], prompt_len: int, spec: Suffix, earlier: Earlier) -> Iterator[Drafted]:
    """After every prefix of a text that holds its prompt."""
    drafter = SuffixDrafter(spec, (), earlier)
    for end in range(prompt_len, len(text) + 1):
        guess = drafter.guess(text[:end])
        yield guess.tokens, float(guess.score)


def _theirs(text: list[int], prompt_len: int, spec: Suffix, where: tuple[Any, int]) -> Iterator[Drafted]:
    """The same of the package. `where`: its cache, and the number of the request."""
    cache, number = where
    limits = {"max_spec_tokens": spec.max_draft_len, "max_spec_factor": spec.factor}
    limits |= {"max_spec_offset": spec.offset, "min_token_prob": spec.floor}
    cache.start_request(number, text[:prompt_len])
    for end in range(prompt_len, len(text) + 1):
        if end > prompt_len:
            cache.add_active_response(number, text[end - 1 : end])
        draft = cache.speculate(number, text[:end], **limits)
        yield list(draft.token_ids), draft.score
    cache.stop_request(number)


if __name__ == "__main__":
    sys.exit(main())
