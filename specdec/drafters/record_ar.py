"""Recording an AR drafter: its chains from every prefix of a text, many rows at a time.

Nothing is run twice: where the drafter is right about a token, its chain goes on as the next prefix's does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from specdec.decoding.chains import Chain, ar_chain
from specdec.models.lm import most_probable, unpacked
from specdec.models.pages import PagedLM, Row


@dataclass(frozen=True)
class Text:
    """A text along which chains are recorded: after its first `prompt_len`, `prompt_len` + 1, ... tokens."""

    ids: list[int]
    prompt_len: int
    num_prefixes: int

    @property
    def prefix_lens(self) -> range:
        return range(self.prompt_len, self.prompt_len + self.num_prefixes)


def record_ar(paged: PagedLM, text: Text, chain_len: int, stop_ids: frozenset[int], batch: int) -> list[Chain]:
    """One chain per prefix: `chain_len` tokens, or fewer up to a stop token. `batch`: rows of a single pass."""
    paged.clear()
    if not text.num_prefixes:
        return []
    last = text.prefix_lens[-1]
    pages, logits_KV = paged.add_trunk(text.ids[:last], keep=range(text.prompt_len - 1, last))
    firsts = dict(zip(text.prefix_lens, zip(*unpacked(most_probable(logits_KV)), strict=True), strict=True))
    own = {at: [first] for at, first in firsts.items() if at == last or first[0] != text.ids[at]}
    _write_on(paged, own, pages, chain_len, stop_ids, batch)
    chains: dict[int, list[tuple[int, float]]] = {}
    for at in reversed(text.prefix_lens):
        # Right about the first token: the rest is the chain of the next prefix, if the text goes on.
        goes_on = at not in own and firsts[at][0] not in stop_ids
        chains[at] = own.get(at) or [firsts[at], *(chains[at + 1][: chain_len - 1] if goes_on else [])]
    return [ar_chain(*map(list, zip(*chains[at], strict=True))) for at in text.prefix_lens]


def _write_on(
    paged: PagedLM,
    own: dict[int, list[tuple[int, float]]],
    pages: list[int],
    chain_len: int,
    stop_ids: frozenset[int],
    batch: int,
) -> None:
    """Extend every chain of `own` (prefix length -> tokens so far) token by token, all at once."""
    paths = {at: tuple(pages[:at]) for at in own}
    for length in range(1, chain_len):
        alive = [at for at, chain in own.items() if len(chain) == length and chain[-1][0] not in stop_ids]
        for group in in_groups(alive, batch):
            logits_KV = paged.forward([Row(paths[at], (own[at][-1][0],), (0,)) for at in group])
            pages_of = paged.commit(range(len(group)))
            found = unpacked(most_probable(logits_KV))
            for at, page, token, confidence in zip(group, pages_of, *found, strict=True):
                paths[at] += (page,)
                own[at].append((token, confidence))


def in_groups(items: Sequence, size: int) -> Iterator[Sequence]:
    """`items` in order, `size` at a time."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))
