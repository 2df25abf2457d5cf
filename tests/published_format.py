"""A reader of the published program's pickles, from the format's description alone. It knows nothing of ours.

The description: a record is a dict. `orig_model_inputs`: the prompt's ids. `raw_data`: the question, a dict.
`num_target_tokens`: how many tokens may be written. `stats_each_round`: a dict a round, in order.
`total_output_tokens`, `num_speculation_rounds`, `total_num_forward_passes`, `accepted_tokens`: sums over the rounds.
`drafted_tokens`: the sum of the windows. `rejected_tokens`: drafted tokens that were not accepted. `acceptance_rate`:
accepted_tokens / drafted_tokens.
A round: `prefix_len`: output tokens before it. `spec_len`: the window. `~draft_proposal`: the drafted ids, at most
`spec_len`. `target_tokens`: what the target would have written at each of these places; after the first that differs
they mean nothing. `accepted_len`: drafted ids before the first that differs. `acceptance_rate`: accepted_len /
spec_len. `final_token`: the token after them, always the target's. `bonus_token`: the same where all were accepted,
else None.
"""

from typing import Any


class PublishedReader:
    """Reads a record as a program for the published format would, or fails as it would."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.output_tokens: list[int] = []
        self.words: list[str] = []
        assert all(type(token) is int for token in data["orig_model_inputs"]) and type(data["raw_data"]) is dict
        rounds = data["stats_each_round"]
        for entry in rounds:
            self._read(entry)
        assert len(rounds) == data["num_speculation_rounds"]
        assert len(self.output_tokens) == data["total_output_tokens"]
        accepted, drafted = (sum(entry[key] for entry in rounds) for key in ("accepted_len", "spec_len"))
        assert (accepted, drafted) == (data["accepted_tokens"], data["drafted_tokens"])
        assert data["acceptance_rate"] == (accepted / drafted if drafted else 0.0)
        assert data["rejected_tokens"] == sum(len(entry["~draft_proposal"]) for entry in rounds) - accepted
        assert data["total_num_forward_passes"] == sum(entry["num_forward_passes"] for entry in rounds)
        assert type(data["num_target_tokens"]) is int

    def _read(self, entry: dict[str, Any]) -> None:
        draft, accepted_len, final = entry["~draft_proposal"], entry["accepted_len"], entry["final_token"]
        assert entry["prefix_len"] == len(self.output_tokens)
        assert len(draft) <= entry["spec_len"]
        pairs = zip(draft, entry["target_tokens"], strict=False)
        assert next((at for at, (ours, own) in enumerate(pairs) if ours != own), len(draft)) == accepted_len
        if accepted_len < len(draft):
            assert (entry["target_tokens"][accepted_len], entry["bonus_token"]) == (final, None)
        else:
            assert entry["bonus_token"] == final
        assert entry["acceptance_rate"] == (accepted_len / entry["spec_len"] if entry["spec_len"] else 0.0)
        # Shown to people: every token has a text, the last one too.
        self.words += [f"{token:d}" for token in (*draft, final)]
        self.output_tokens += [*draft[:accepted_len], final]
