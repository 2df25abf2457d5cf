"""Round: one draft-verify-accept turn, and its entry in `stats_each_round`: the published keys in their published
meaning, then ours.

Not the loop that makes rounds (`decoding/loop.py`), not the record that holds them (`record.py`). docs/fidelity.md says
what each published key means.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specdec.errors import UserError
from specdec.records import fields

PASSES = "num_prefill_passes", "num_denoise_passes", "num_commit_passes"
PROBABILITY_KEYS = ("target_probabilities", "draft_probabilities")
TREE_KEYS = ("draft_parents", "accepted_path")


@dataclass(frozen=True)
class Round:
    """One draft-verify-accept turn. Token ids are ints, times are milliseconds."""

    prefix_len: int  # prompt + output tokens before this round (the key of that name: output tokens alone)
    draft_tokens: list[int]
    confidences: list[float]  # as the stop rule in force records them: not one per drafted token in general
    num_prefill_passes: int
    num_denoise_passes: int
    num_commit_passes: int
    stop_reason: str
    accepted_len: int
    next_token: int | None  # correction or bonus; None when the cut fell inside the accepted draft
    draft_ms: float
    verify_ms: float
    # Of each drafted token, where the target samples: under the target's warped distribution (after the first rejected
    # token: given that one), and what the drafter gave it as it chose it (None: it cost no pass). None: greedy.
    target_probabilities: list[float] | None = None
    draft_probabilities: list[float | None] | None = None
    # The window that the rule asked for; the budget, a stop token or a text without a match may have left less of it.
    asked_len: int = 0
    # The target's argmax at every drafted position, given the draft; None where nobody asked the target for those after
    # the first rejected token (a replay, a target that samples). No comparison counts it.
    target_tokens: list[int] | None = field(default=None, compare=False)
    # The CPU time of this process in the round, all threads together: beside the wall clock it says how busy the
    # machine was. None where nothing ran, and in records of before.
    cpu_ms: float | None = field(default=None, compare=False)
    # Where the draft is a tree and not a chain: each token's parent, an index into the draft or -1 for the last known
    # token, and the accepted tokens' indices, from the first on.
    draft_parents: list[int] | None = None
    accepted_path: list[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked_len", max(self.asked_len, self.draft_len))

    @property
    def is_tree(self) -> bool:
        return self.draft_parents is not None

    @property
    def draft_len(self) -> int:
        """Tokens that were verified; of a tree, its nodes."""
        return len(self.draft_tokens)

    @property
    def accepted_nodes(self) -> Sequence[int]:
        """The indices of the accepted tokens, from the first on."""
        return range(self.accepted_len) if self.accepted_path is None else self.accepted_path

    @property
    def accepted_tokens(self) -> list[int]:
        return [self.draft_tokens[node] for node in self.accepted_nodes]

    @property
    def refused_nodes(self) -> Sequence[int]:
        """The indices of the tokens that the target did not take when it wrote its own: of a chain those after the
        accepted ones, of a tree those after the last accepted one alone, not those on other branches."""
        if self.draft_parents is None:
            return range(self.accepted_len, self.draft_len)
        last = self.accepted_nodes[-1] if self.accepted_nodes else -1
        return [node for node, parent in enumerate(self.draft_parents) if parent == last]

    @property
    def num_reached(self) -> int:
        """How many places of the text were guessed at, one after the other, all before the last one rightly."""
        return self.accepted_len + (len(self.refused_nodes) > 0)

    @property
    def num_forward_passes(self) -> int:
        """Passes of the drafter, whatever their kind."""
        return self.num_prefill_passes + self.num_denoise_passes + self.num_commit_passes

    @property
    def emitted_tokens(self) -> list[int]:
        """What this round adds to the output: the accepted draft tokens, then the correction or bonus."""
        tail = [] if self.next_token is None else [self.next_token]
        return self.accepted_tokens + tail

    @property
    def num_emitted(self) -> int:
        """How many tokens that are."""
        return self.accepted_len + (self.next_token is not None)

    @property
    def correction_token(self) -> int | None:
        """The target's token at a place for which others were drafted, else None."""
        return self.next_token if self.refused_nodes else None

    @property
    def bonus_token(self) -> int | None:
        """The target's token at a place for which nothing was drafted, else None: after a wholly accepted (or empty)
        draft, or a whole branch of a tree."""
        return None if self.refused_nodes else self.next_token

    @property
    def is_cut(self) -> bool:
        """Whether the output ends inside the accepted draft: by its stop token, or at the budget."""
        return self.next_token is None

    @property
    def acceptance_rate(self) -> float:
        """Accepted / drafted tokens; 0.0 for an empty draft."""
        return self.accepted_len / self.draft_len if self.draft_tokens else 0.0

    def to_builtins(self, prompt_len: int) -> dict[str, Any]:
        """The entry of `stats_each_round`: the published keys, then ours; probabilities in sampled rounds only, parents
        and path of trees only.

        Under the published keys the last token of a round is always the target's: where the output ends inside the
        accepted draft, its last token is said to be that and not to be drafted. `is_cut`, ours, says that it was.
        """
        probabilities = {key: getattr(self, key) for key in PROBABILITY_KEYS if getattr(self, key) is not None}
        draft = self.draft_tokens[:-1] if self.is_cut else self.draft_tokens
        *accepted, own = self.emitted_tokens
        known = self.target_tokens if self.target_tokens is not None else [*accepted, own]
        return (
            probabilities
            | self._branches()
            | {
                "target_tokens": known[: len(draft)],
                "prefix_len": self.prefix_len - prompt_len,
                "spec_len": self.asked_len,
                "~draft_proposal": list(draft),
                "accepted_len": len(accepted),
                "acceptance_rate": len(accepted) / self.asked_len if self.asked_len else 0.0,
                "num_forward_passes": self.num_forward_passes,
                "final_token": own,
                "bonus_token": None if self.refused_nodes else own,
                "is_cut": self.is_cut,
                "confidences": [float(confidence) for confidence in self.confidences],
                **{key: getattr(self, key) for key in PASSES},
                "stop_reason": self.stop_reason,
                "draft_ms": float(self.draft_ms),
                "verify_ms": float(self.verify_ms),
                **({} if self.cpu_ms is None else {"cpu_ms": float(self.cpu_ms)}),
            }
        )

    def _branches(self) -> dict[str, list[int]]:
        """Parents and path of a tree, of which a last accepted token that is said not to be drafted is the last."""
        branches = {key: getattr(self, key) for key in TREE_KEYS if getattr(self, key) is not None}
        return {key: list(nodes[:-1] if self.is_cut else nodes) for key, nodes in branches.items()}

    @classmethod
    def from_builtins(cls, data: Any, prompt_len: int) -> "Round":
        """The inverse of `to_builtins`; UserError names what is missing, wrong or inconsistent."""
        draft = fields.take(data, "~draft_proposal", fields.is_tokens)
        accepted_len = fields.take(data, "accepted_len", fields.is_count)
        own = fields.take(data, "final_token", fields.is_count)
        if accepted_len > len(draft):
            raise UserError(f"accepted_len {accepted_len} is more than the {len(draft)} drafted")
        is_cut = fields.take(data, "is_cut", fields.is_flag)
        made = cls(
            prefix_len=fields.take(data, "prefix_len", fields.is_count) + prompt_len,
            draft_tokens=[*draft, own] if is_cut else list(draft),
            accepted_len=accepted_len + is_cut,
            next_token=None if is_cut else own,
            asked_len=fields.take(data, "spec_len", fields.is_count),
            target_tokens=list(fields.take(data, "target_tokens", fields.is_tokens)),
            **own_fields(data),
            **_branches_of(data, accepted_len, len(draft), is_cut),
        )
        made.check_probabilities()
        made.check_targets()
        fields.require_equal(made.to_builtins(prompt_len), data)
        return made

    def check_probabilities(self) -> None:
        """UserError unless there is one per drafted token, where there are any."""
        for key in PROBABILITY_KEYS:
            if getattr(self, key) is not None and len(getattr(self, key)) != self.draft_len:
                raise UserError(f"{key}: not one per drafted token")

    def check_targets(self) -> None:
        """UserError where the target's tokens are not those that were emitted, as far as these go."""
        emitted, known = self.emitted_tokens, self.target_tokens or []
        least = min(len(emitted), self.draft_len - self.is_cut)
        if known[: len(emitted)] != emitted[: len(known)] or len(known) < least:
            raise UserError("target_tokens does not agree with the rest")


def _branches_of(data: Any, accepted_len: int, num_drafted: int, is_cut: bool) -> dict[str, Any]:
    """Parents and path of a tree, {} of a chain; UserError where they are none or do not fit the rest."""
    if not any(key in data for key in TREE_KEYS):
        return {}
    parents, path = (list(fields.take(data, key, fields.is_indices)) for key in TREE_KEYS)
    if len(parents) != num_drafted or any(parent >= node for node, parent in enumerate(parents)):
        raise UserError("draft_parents: not one before each drafted token")
    if not all(0 <= node < num_drafted for node in path) or [parents[node] for node in path] != [-1, *path][:-1]:
        raise UserError("accepted_path: not from parent to child")
    if len(path) != accepted_len:
        raise UserError("accepted_path does not agree with accepted_len")
    if is_cut:  # its last token was drafted too, after the path
        parents, path = [*parents, [-1, *path][-1]], [*path, num_drafted]
    return {"draft_parents": parents, "accepted_path": path}


def own_fields(data: Any) -> dict[str, Any]:
    """The keys of an entry that are ours alone, in every version, as fields of a Round. UserError."""
    return {
        "confidences": list(fields.take(data, "confidences", fields.is_confidences)),
        **{key: fields.take(data, key, fields.is_count) for key in PASSES},
        "stop_reason": fields.take(data, "stop_reason", fields.is_str),
        "draft_ms": fields.take(data, "draft_ms", fields.is_ms),
        "verify_ms": fields.take(data, "verify_ms", fields.is_ms),
        **{key: fields.take(data, key, fields.is_probabilities) for key in PROBABILITY_KEYS if key in data},
        **({"cpu_ms": fields.take(data, "cpu_ms", fields.is_ms)} if "cpu_ms" in data else {}),
    }


def totals(entries: Sequence[dict[str, Any]], budget: int) -> dict[str, Any]:
    """The published totals of a record, from its `stats_each_round`."""
    accepted, asked = (sum(entry[key] for entry in entries) for key in ("accepted_len", "spec_len"))
    return {
        "num_target_tokens": budget,
        "num_speculation_rounds": len(entries),
        "total_num_forward_passes": sum(entry["num_forward_passes"] for entry in entries),
        "accepted_tokens": accepted,
        "drafted_tokens": asked,
        "rejected_tokens": sum(len(entry["~draft_proposal"]) for entry in entries) - accepted,
        "acceptance_rate": accepted / asked if asked else 0.0,
        "total_output_tokens": accepted + len(entries),
    }


def with_cpu_times(rounds: Sequence[Round], cpu_s: Sequence[float]) -> list[Round]:
    """The rounds with the CPU time that passed in each, by a clock in seconds that was read whenever the loop's was."""
    spent = [1e3 * (after - before) for before, after in zip(cpu_s[::3], cpu_s[2::3], strict=True)]
    return [replace(turn, cpu_ms=ms) for turn, ms in zip(rounds, spent, strict=True)]
