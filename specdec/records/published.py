"""Published: pickles of the published FailFast program (arXiv 2512.20573), read as records for what they hold.

They name neither question nor drafter: the place does, pickles/TARGET/DATASET/QUESTION/DRAFTER/BUDGET.pickle. They hold
no times, no confidences and no kinds of pass, and their output goes on after the stop token and over the budget to the
end of the last round. None is ever written here, nor taken for a record of ours (`Identity.origin`).
"""

from pathlib import Path
from typing import Any

from specdec.errors import UserError
from specdec.records import fields
from specdec.records.identity import PUBLISHED, Identity
from specdec.records.rounds import Round, totals

_OURS = {"schema_version", "identity"}  # every version of ours has them
_TOTALS = ("num_speculation_rounds", "accepted_tokens", "drafted_tokens", "rejected_tokens", "total_output_tokens")
_LAYOUT = "keep it at .../TARGET/DATASET/QUESTION/DRAFTER/BUDGET.pickle, whose names say what it is of"


def is_published(data: Any) -> bool:
    """Whether a pickle's value is laid out as the published program's: its keys, and none of ours."""
    keys = data.keys() if isinstance(data, dict) else set()
    return keys >= {"stats_each_round", "orig_model_inputs"} and not keys & _OURS


def record_fields(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of the Record that such a pickle gives. UserError names what is missing, wrong or inconsistent."""
    prompt_ids = fields.take(data, "orig_model_inputs", fields.is_tokens)
    budget = fields.take(data, "num_target_tokens", fields.is_count)
    entries = fields.take(data, "stats_each_round", fields.is_list)
    rounds = [_round(index, entry, len(prompt_ids)) for index, entry in enumerate(entries)]
    found = totals(entries, budget)
    fields.require_equal({key: found[key] for key in _TOTALS}, data)
    return {
        "identity": _identity(path, budget),
        "provenance": {"program": "the published FailFast program"},
        "prompt_ids": prompt_ids,
        "raw_data": fields.take(data, "raw_data", fields.is_dict),
        "output_text": "",
        "prefill_ms": 0.0,
        "rounds": rounds,
    }


def _identity(path: Path, budget: int) -> Identity:
    parts = path.resolve().parts[-5:-1]
    if len(parts) < 4 or not (parts[2].isascii() and parts[2].isdigit()):
        raise UserError(f"a pickle of the published program: {_LAYOUT}")
    target, dataset, question, drafter = parts
    return Identity(target, dataset, int(question), drafter, budget, origin=PUBLISHED)


def _round(index: int, data: Any, prompt_len: int) -> Round:
    try:
        draft = fields.take(data, "~draft_proposal", fields.is_tokens)
        accepted_len = fields.take(data, "accepted_len", fields.is_count)
        known = fields.take(data, "target_tokens", fields.is_tokens)
        asked_len = fields.take(data, "spec_len", fields.is_count)
        num_passes = fields.take(data, "num_forward_passes", fields.is_count)
        if accepted_len > len(draft) or len(draft) > asked_len:
            raise UserError(f"accepted_len {accepted_len} of {len(draft)} drafted of spec_len {asked_len}")
        made = Round(
            prefix_len=prompt_len + fields.take(data, "prefix_len", fields.is_count),
            draft_tokens=list(draft),
            confidences=[],
            num_prefill_passes=0,
            num_denoise_passes=num_passes,  # of whatever kind
            num_commit_passes=0,
            stop_reason="not recorded",
            accepted_len=accepted_len,
            next_token=fields.take(data, "final_token", fields.is_count),
            draft_ms=0.0,
            verify_ms=0.0,
            asked_len=asked_len,
            target_tokens=list(known),
        )
        made.check_targets()
        fields.require_equal({"bonus_token": made.bonus_token}, data)
    except UserError as error:
        raise UserError(f"round {index}: {error}") from None
    return made
