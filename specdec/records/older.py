"""Older: records of schema 1, which spelled published keys in a meaning of its own, as records of today.

There `prefix_len` held the prompt as well, `spec_len` was the draft's length, `target_tokens` what the round emitted,
`final_token` None after a wholly accepted draft, `num_target_tokens` the output's length. What such a record does not
hold stays unknown: the asked window (the draft's length stands for it), the target's tokens after the first rejected.
Not the keys of today (`rounds.py`), and not the published program's own pickles (`published.py`).
"""

from typing import Any

from specdec.errors import UserError
from specdec.records import fields
from specdec.records.rounds import Round, own_fields, totals

VERSION = 1


def renewed(data: dict[str, Any], version: int) -> dict[str, Any]:
    """A record of schema 1 in the keys of `version`; UserError names what is missing, wrong or inconsistent."""
    prompt_len = len(fields.take(data, "orig_model_inputs", fields.is_tokens))
    identity = fields.take(data, "identity", fields.is_dict)
    budget = fields.take(identity, "max_new_tokens", fields.is_count)
    turns = [_round(index, entry) for index, entry in enumerate(fields.take(data, "stats_each_round", fields.is_list))]
    fields.require_equal(_totals(turns), data)
    entries = [turn.to_builtins(prompt_len) for turn in turns]
    return data | {"schema_version": version, "stats_each_round": entries} | totals(entries, budget)


def _round(index: int, data: Any) -> Round:
    try:
        final = fields.take(data, "final_token", fields.is_token_or_none)
        bonus = fields.take(data, "bonus_token", fields.is_token_or_none)
        made = Round(
            prefix_len=fields.take(data, "prefix_len", fields.is_count),
            draft_tokens=list(fields.take(data, "~draft_proposal", fields.is_tokens)),
            accepted_len=fields.take(data, "accepted_len", fields.is_count),
            next_token=bonus if final is None else final,
            **own_fields(data),
        )
        if made.accepted_len > made.draft_len:
            raise UserError(f"accepted_len {made.accepted_len} is more than the {made.draft_len} drafted")
        if not made.emitted_tokens or (made.is_cut and made.accepted_len < made.draft_len):
            raise UserError("final_token is missing")
        made.check_probabilities()
        fields.require_equal(_entry(made), data)
    except UserError as error:
        raise UserError(f"round {index}: {error}") from None
    return made


def _entry(turn: Round) -> dict[str, Any]:
    """What the published keys of such a round said, all of which follow from the others."""
    return {
        "target_tokens": turn.emitted_tokens,
        "spec_len": turn.draft_len,
        "acceptance_rate": turn.acceptance_rate,
        "num_forward_passes": turn.num_forward_passes,
        "final_token": turn.correction_token,
        "bonus_token": turn.bonus_token,
    }


def _totals(turns: list[Round]) -> dict[str, Any]:
    accepted, drafted = sum(turn.accepted_len for turn in turns), sum(turn.draft_len for turn in turns)
    num_output_tokens = sum(len(turn.emitted_tokens) for turn in turns)
    return {
        "num_target_tokens": num_output_tokens,
        "num_speculation_rounds": len(turns),
        "total_num_forward_passes": sum(turn.num_forward_passes for turn in turns),
        "accepted_tokens": accepted,
        "drafted_tokens": drafted,
        "rejected_tokens": drafted - accepted,
        "acceptance_rate": accepted / drafted if drafted else 0.0,
        "total_output_tokens": num_output_tokens,
    }
