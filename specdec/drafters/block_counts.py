"""Block counts: the passes that the published program (arXiv 2512.20573) makes for the same drafts of a block-diffusion
model. Counts alone, from what a record holds of its rounds; no draft and no price.

It differs from ours in what it runs again, never in what it drafts. docs/fidelity.md shows it run beside ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.records.rounds import Round

_PUBLISHED_BLOCK = 32


def published_passes(rounds: Sequence[Round], settings: Mapping[str, Any]) -> list[int]:
    """Passes a round. `settings`: those of the record's identity, for the block and whether caches are reused.

    It keeps the outputs of one pass: of the last block committed in a draft, else of the prefix's whole blocks. It
    takes them for the prefix's if there are as many as the prefix needs, and else runs the whole prefix again.
    """
    size = int(settings.get("block_size", _PUBLISHED_BLOCK))
    keeps = settings.get("reuse_drafter_kvs", True)
    kept_len, found = 0, []
    for turn in rounds:
        # A prefix of exactly one block is not run at all.
        whole = turn.prefix_len // size * size if turn.prefix_len > size else 0
        num_prefills = int(whole > 0 and not (keeps and kept_len == whole))
        num_own = turn.num_denoise_passes + turn.num_commit_passes
        found.append(num_prefills + num_own + _tests_late(turn, size) if turn.num_forward_passes else 0)
        kept_len = size if turn.num_commit_passes else whole
    return found


def _tests_late(turn: Round, size: int) -> bool:
    """Whether a static draft ends with a block's first token, which no denoising pass makes known: its end is looked
    for after denoising passes alone, so that one more is run."""
    is_all = turn.stop_reason == "length" and turn.draft_len == turn.asked_len
    return is_all and (turn.prefix_len + turn.draft_len - 1) % size == 0
