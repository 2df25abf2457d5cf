"""The loop: draft, verify, accept, record. Imports no model library; plain decoding is this loop
with a drafter that proposes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from specdec.decoding.stopping import Draft, cut_after_stop
from specdec.decoding.target import Verification
from specdec.decoding.trees import ROOT, depths, is_chain
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from specdec.decoding.target import Features


Known = TypeVar("Known")


class Drafter(Protocol):
    """One drafting strategy over one question at a time. It sees of the target no more than its `taps`: the layers,
    from 0, whose outputs it reads."""

    taps: Sequence[int] = ()

    def reset(self, features: Features | None = None) -> None:
        """Forget the last question. `features`: the taps of the new prompt but for its last token, [L, F], on the
        device; None for a drafter without taps. It runs no network: that is for `propose`, under the clock."""
        return

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        """Draft at most `budget` tokens, of a tree levels, to follow `prefix_ids` (prompt and output so far)."""

    def observe(self, verification: Verification) -> None:
        """Learn what the target made of the last draft; `verification.features` are the taps of what it keeps."""
        return


class Verifier(Protocol):
    """A target, live or recorded: the text that must come out."""

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> Features | None: ...
    def verify(self, draft: Draft) -> Verification: ...


def speculate(
    target: Verifier,
    drafter: Drafter,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Round]:
    """Decode one answer; the emitted tokens of the rounds, joined, are the output.

    `clock` returns seconds and should wait for the device; it is read thrice a round: before and after drafting, and
    after verifying. The drafter may propose at most the tokens that are still wanted, less the one that the target adds
    itself; of a tree, levels.
    """
    ids, end = list(prompt_ids), len(prompt_ids) + max_new_tokens
    rounds: list[Round] = []
    drafter.reset(target.start(prompt_ids, drafter.taps))
    while len(ids) < end and not (rounds and ids[-1] in stop_ids):
        begin = clock()
        draft = drafter.propose(ids, end - len(ids) - 1)
        drafted = clock()
        verification = target.verify(draft)
        verified = clock()
        drafter.observe(verification)
        times_ms = 1e3 * (drafted - begin), 1e3 * (verified - drafted)
        rounds.append(_accept(draft, verification, (len(ids), end), stop_ids, times_ms))
        ids += rounds[-1].emitted_tokens
    return rounds


def _accept(
    draft: Draft,
    verification: Verification,
    places: tuple[int, int],
    stop_ids: Collection[int],
    times_ms: tuple[float, float],
) -> Round:
    """The round's record, cut after the first stop token and at the budget: the only place of that. `places`: where the
    prefix and the budget end.

    Tokens drafted after the cut count neither as drafted nor as accepted: of a tree all nodes, on any branch, that are
    deeper than the last token of the output, for which they are no guesses.
    """
    (prefix_len, end), path = places, verification.accepted_path
    emitted = [*(draft.tokens[node] for node in path), verification.next_token]
    num_kept = min(len(cut_after_stop(emitted, stop_ids)), end - prefix_len)
    is_cut = num_kept < len(emitted)
    nodes = _not_after(draft, path[:num_kept]) if is_cut else range(len(draft.tokens))
    judged = verification.probabilities  # None: greedy, which says nothing of single tokens
    return Round(
        prefix_len=prefix_len,
        draft_tokens=_of(nodes, draft.tokens),
        confidences=draft.confidences if draft.parents is None else _of(nodes, draft.confidences),
        num_prefill_passes=draft.passes.prefill,
        num_denoise_passes=draft.passes.denoise,
        num_commit_passes=draft.passes.commit,
        stop_reason=draft.stop_reason,
        accepted_len=num_kept if is_cut else verification.accepted_len,
        next_token=None if is_cut else verification.next_token,
        draft_ms=times_ms[0],
        verify_ms=times_ms[1],
        target_probabilities=None if judged is None else _of(nodes, judged),
        draft_probabilities=None if judged is None else _of(nodes, draft.token_confidences),
        asked_len=draft.asked_len,
        target_tokens=verification.greedy,
        **_branches(draft, nodes, path[:num_kept]),
    )


def _of(nodes: Sequence[int], known: Sequence[Known]) -> list[Known]:
    """What is known of these tokens of a draft; of some drafts it is nothing."""
    if isinstance(nodes, range):  # the first ones
        return list(known[: nodes.stop])
    return [known[node] for node in nodes if node < len(known)]


def _not_after(draft: Draft, path: Sequence[int]) -> Sequence[int]:
    """The tokens of a draft that are no deeper than a path of it that the output ends with; that path's last, after
    which nothing of them stands, as the last."""
    if draft.parents is None:
        return range(len(path))
    levels = enumerate(depths(draft.parents))
    return [*(node for node, depth in levels if depth <= len(path) and node != path[-1]), path[-1]]


def _branches(draft: Draft, nodes: Sequence[int], path: Sequence[int]) -> dict[str, Any]:
    """What the record of a tree says beside a chain's: parents and path among the `nodes` that are left of it."""
    if draft.parents is None:
        return {}
    if isinstance(nodes, range):  # all, in their own order
        parents, kept = draft.parents, list(path)
    else:
        places = {ROOT: ROOT, **{node: place for place, node in enumerate(nodes)}}
        parents, kept = [places[draft.parents[node]] for node in nodes], [places[node] for node in path]
    return {} if is_chain(parents) else {"draft_parents": parents, "accepted_path": kept}
