"""What the passes of heads cost over a target's shape, and what it costs the target to hand them its hidden states.

`profile_engine.py` asks; `shaped_heads.py` makes the heads. A pass is timed from the target's features on the device to
tokens on the host, as drafting makes it: what the last verification left is taken in first. What trees cost is taken
from whole rounds (`given_acceptance.py`), since much of it is not a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from profiling.bench import timed_in_turn
from profiling.common import attempt
from profiling.given_acceptance import GivenRounds
from profiling.shaped_heads import make_head
from specdec.models.checkpoints import ModelSource
from specdec.models.dflash_trees import DflashTrees

if TYPE_CHECKING:
    from profiling.profile_engine import Bench
    from specdec.models.eagle3_trees import Eagle3Trees
    from specdec.models.lm import CachedLM

NEW_ROWS = 6  # rows of features that a verification leaves: about what the published drafters have accepted
CHAIN = 7  # tokens of an EAGLE-3 draft
# Of trees: with one node more than 63, 127 or 255 a verification takes the next longer pass.
NODES = (16, 63, 64, 127, 128, 255, 256)
LEVEL, SLOT_TOP_K = 10, 32  # nodes of a tree's level; candidates of a slot
VERIFIED = 16  # tokens of the verification that taps are set against
Calls = dict[str, Callable[[], object]]


def measure_heads(kinds: Sequence[str], target: ModelSource, lm: CachedLM, bench: Bench) -> dict[str, Any]:
    """`heads`: of each kind its passes, in ms, beside the least that reading its weights takes, and verifications with
    its taps and without (or why it failed); `family_pass_ms` and `trees`: what a profile prices them by."""
    found: dict[str, Any] = {"heads": {}, "family_pass_ms": {}, "trees": {"round_ms": {}, "pass_ms": {}}}
    for kind in kinds:
        made = found["heads"][kind] = attempt(partial(_measure_head, kind, target, lm, bench))
        if "pass_ms" in made:
            found["family_pass_ms"][kind] = made.pop("pass_ms")
            found["trees"]["pass_ms"][kind] = {str(nodes): one["pass_ms"] for nodes, one in made["trees"].items()}
            rounds_ms = {str(nodes): one["round_ms"] for nodes, one in made["trees"].items()}
            found["trees"]["round_ms"] = rounds_ms | found["trees"]["round_ms"]
    return found


def _measure_head(kind: str, target: ModelSource, lm: CachedLM, bench: Bench) -> dict[str, Any]:
    head = make_head(kind, target, lm, bench.settings.engine)
    head.warm_up()
    costs = DflashCosts(head) if isinstance(head, DflashTrees) else Eagle3Costs(head)
    passes = costs.measured(bench)
    pass_ms = costs.pass_ms(passes)
    passes |= _with_taps(lm, head.taps, bench)
    trees = {nodes: tree_rounds(lm, head, name, bench) for name, nodes in costs.trees.items()}
    return {"taps": list(head.taps), "passes": passes, "pass_ms": pass_ms, "trees": trees}


def tree_rounds(lm: CachedLM, head: Any, drafter_name: str, bench: Bench) -> dict[str, Any]:
    """Real rounds of which `NEW_ROWS` tokens are kept: what drafting takes, by pass, and what the rest does, in ms."""
    from profiling.profile_engine import begin_text

    prompt_ids, given = begin_text(lm, bench.contexts[0])[: bench.contexts[0]], GivenRounds(lm, head, drafter_name)
    for _ in range(2):  # the first records passes, and does not count
        total_ms, rounds = given.decode(prompt_ids, NEW_ROWS, NEW_ROWS * bench.repeats)
    timed = [(made.draft_ms, made.verify_ms) for made in rounds]
    beside_ms = (total_ms - sum(map(sum, timed))) / len(rounds)  # what is under neither clock
    return {
        "pass_ms": median(made.draft_ms / max(made.num_forward_passes, 1) for made in rounds),
        "round_ms": median(verifying for _, verifying in timed) + beside_ms,
        "parts_ms": given.parts_ms(total_ms, rounds),
    }


def _with_taps(lm: CachedLM, taps: Sequence[int], bench: Bench) -> dict[str, dict[str, float]]:
    """A verification and what is kept of it, with taps and without, by turns."""
    from profiling.profile_engine import begin_text

    context = bench.contexts[0]
    tokens = begin_text(lm, context)[context:][:VERIFIED]

    def verified(asked: Sequence[int]) -> object:
        lm.predict(tokens, taps=asked)
        lm.commit(NEW_ROWS)
        kept = lm.features
        lm.rollback(context)
        return kept

    calls: Calls = {"verification": partial(verified, ()), "verification_with_taps": partial(verified, taps)}
    found = timed_in_turn(lm, calls, 4 * bench.repeats)
    without_ms = found["verification"]["ms"]
    found["verification_with_taps"]["over_none"] = found["verification_with_taps"]["ms"] / without_ms
    return found


def _fails(call: Callable[[], object]) -> bool:
    """Whether a pass does not run at all: it is said, and left out."""
    return "failed" in attempt(lambda: {"made": call()})


class _HeadCosts:
    """A head after a text, and calls that leave it there. `trees`: drafters of trees, by name, and their nodes."""

    trees: ClassVar[dict[str, int]]

    def __init__(self, head: Any) -> None:
        self.head, self.lm = head, head.target
        width = len(head.taps) * head.head.layer["hidden_size"]
        how: dict[str, Any] = {"device": head.device, "dtype": self.lm.model.dtype}
        self.text = torch.randn(1024, width, **how)
        self.rows = self.text[:NEW_ROWS]

    def measured(self, bench: Bench) -> dict[str, dict[str, float]]:
        """Medians of the passes, each beside its limit."""
        context = bench.contexts[0]
        self.begin(context)

        def from_here(call: Callable[[], object]) -> object:
            self.head.length = context
            return call()

        calls: Calls = {name: partial(from_here, call) for name, (_, call) in self.calls().items()}
        runs = {name: call for name, call in calls.items() if not _fails(call)}
        found = timed_in_turn(self.lm, runs, bench.repeats)
        for name in runs:
            limit_ms = bench.limit_ms(self.calls()[name][0], 0)
            found[name] |= {"limit_ms": limit_ms, "over_limit": found[name]["ms"] / limit_ms}
        return found

    def begin(self, context: int) -> None:
        raise NotImplementedError

    def calls(self) -> dict[str, tuple[float, Callable[[], object]]]:
        """By name: the bytes of weights that it reads, and the call."""
        raise NotImplementedError


class DflashCosts(_HeadCosts):
    head: DflashTrees
    trees: ClassVar = {f"dflash_tree_{nodes}": nodes for nodes in NODES}

    def begin(self, context: int) -> None:
        self.head.clear()
        for begin in range(0, context, len(self.text)):
            self.head.read(self.text[: context - begin])

    def calls(self) -> dict[str, tuple[float, Callable[[], object]]]:
        weights, most = self.head.num_weight_bytes, max(self.trees.values())
        paths = {"block_of_paths": (weights, self.paths)} if self.head.finds_paths(SLOT_TOP_K, most) else {}
        return {
            "block": (weights, self.block),
            "block_alone": (weights, self.answer),
            "block_of_candidates": (weights, self.candidates),
            **paths,
        }

    def block(self) -> object:
        self.head.read(self.rows)
        return self.answer()

    def answer(self) -> object:
        return self.lm.on_host(self.head.draft([1], [self.head.length])[0])

    def candidates(self) -> object:
        self.head.read(self.rows)
        return self.head.candidates([1], [self.head.length], SLOT_TOP_K)

    def paths(self) -> object:
        self.head.read(self.rows)
        at = [1], [self.head.length], self.head.head.num_drafts
        return self.head.paths(*at, SLOT_TOP_K, max(self.trees.values()), ())

    def pass_ms(self, passes: dict[str, dict[str, float]]) -> float:
        return passes["block"]["ms"]


class Eagle3Costs(_HeadCosts):
    head: Eagle3Trees
    trees: ClassVar = {f"eagle3_tree_8_{LEVEL}_{nodes}": nodes for nodes in NODES if nodes <= 64}
    first_level: list[int]  # what a level is timed with: the tokens that go on after the text

    def begin(self, context: int) -> None:
        self.head.prepare(LEVEL, 2)
        self.head.clear()
        for begin in range(0, context, len(self.text)):
            rows = self.text[: context - begin]
            root = self.head.take_root(rows, [1] * len(rows), LEVEL)
            self.first_level = root[0, :, 0].astype(int).tolist()

    def calls(self) -> dict[str, tuple[float, Callable[[], object]]]:
        weights = self.head.num_weight_bytes
        return {
            "extend": (weights, self.extend),
            "step": (weights, self.head.step),
            "draft": (CHAIN * weights, self.draft),
            "level": (weights, self.level),
        }

    def extend(self) -> object:
        return self.head.extend(self.rows, [1] * NEW_ROWS)

    def draft(self) -> object:
        return [self.extend(), *(self.head.step() for _ in range(CHAIN - 1))]

    def level(self) -> object:
        self.head.forget_nodes()
        return self.head.grow(self.first_level, [-1] * LEVEL, LEVEL)

    def pass_ms(self, passes: dict[str, dict[str, float]]) -> float:
        """Of a draft's mean pass, the one that takes features in among them."""
        return passes["draft"]["ms"] / CHAIN
