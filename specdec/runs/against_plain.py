"""Against plain: compares a drafter's output with plain decoding's and asks the target about their first difference.

The one place where losslessness is judged, for records (`AgainstPlain`) and for any two texts (`diverging`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.models.lm import CachedLM
from specdec.records.divergence import BUG, EXACT, TIE, Divergence, first_difference
from specdec.records.record import Record, load_record
from specdec.session import Session

FEW_TOKENS = 11  # of a prefix, run in one pass to see how far rounding goes
# What decides a text, beside the drafter.
_SAME_TEXT = ("target_sha256", "prompt_sha256", "dtype", "target_weights", "device", "backend", "stop_ids", "decoding")


class AgainstPlain:
    """Judges the records of a run by plain decoding's of the same question, made by this run or an earlier one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._plain_path = Path()
        self._plain: Record | None = None

    def judged(self, record: Record, path: Path) -> Record:
        """`record`, which goes to `path`, with its divergence.

        Unchanged if it has one, if its tokens were sampled, if plain decoding has no record beside it yet, or if the
        texts differ and no target is loaded that could say why.
        """
        if record.divergence is not None or record.drafter_name == PLAIN or record.is_sampled:
            return record
        plain = self._plain_beside(record, path)
        if plain is None:
            return record
        if record.output_tokens == plain.output_tokens:
            return replace(record, divergence=Divergence(EXACT))
        if self._session.config.decoding.verify == "trace":
            return record
        texts = record.output_tokens, plain.output_tokens
        return replace(record, divergence=diverging(self._session.target().lm, record.prompt_ids, *texts))

    def _plain_beside(self, record: Record, path: Path) -> Record | None:
        plain_path = path.parent.parent / PLAIN / path.name
        if plain_path != self._plain_path or self._plain is None:  # another task may write it meanwhile
            self._plain_path, self._plain = plain_path, _load(plain_path)
        if self._plain is None:
            return None
        plain, own = self._plain.identity.settings, record.identity.settings
        return self._plain if all(plain.get(key) == own.get(key) for key in _SAME_TEXT) else None


def diverging(
    lm: CachedLM, prompt_ids: Sequence[int], tokens: Sequence[int], plain_tokens: Sequence[int]
) -> Divergence:
    """How two answers to a prompt differ first, and whether the target `lm` tells the two tokens apart there."""
    position = first_difference(tokens, plain_tokens)
    if position is None:
        return Divergence(EXACT)
    if position >= min(len(tokens), len(plain_tokens)):
        return Divergence(BUG, position)
    single_V, whole_V = _next_logits(lm, [*prompt_ids, *plain_tokens[:position]])
    best, second = single_V.topk(2).values.tolist()
    shortfall = best - min(single_V[tokens[position]].item(), single_V[plain_tokens[position]].item())
    unit = torch.finfo(lm.model.dtype).eps * single_V.max().abs().item()
    rounding_V = (single_V - whole_V).nan_to_num()  # of an id that is never predicted: infinities
    noise = 2 * rounding_V.abs().max().item() + unit
    return Divergence(TIE if shortfall <= noise else BUG, position, best - second, shortfall, noise)


def _next_logits(lm: CachedLM, prefix_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 logits after a prefix, in a pass of its last token and in a pass of many: they differ by rounding."""
    lm.rollback(0)
    if len(prefix_ids) > 1:
        lm.forward(prefix_ids[:-1], keep=[])
        lm.commit(len(prefix_ids) - 1)
    single_V = lm.forward(prefix_ids[-1:])[-1].float().clone()
    lm.rollback(max(0, len(prefix_ids) - FEW_TOKENS))
    whole_V = lm.forward(prefix_ids[lm.length :])[-1].float()
    return single_V, whole_V


def _load(path: Path) -> Record | None:
    try:
        return load_record(path) if path.exists() else None
    except UserError:  # its own job will say so
        return None
