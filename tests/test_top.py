"""The most probable tokens of rows of logits: those of a whole row's sort, also where rows are looked at in pieces."""

from __future__ import annotations

import pytest
import torch

from specdec.models.graph.top import PIECE, most_probable_of


@pytest.mark.parametrize("vocabulary", [5, 300, 6 * PIECE, 50 * PIECE, 50 * PIECE + 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 3, 20])
def test_they_are_those_of_a_whole_row(vocabulary: int, dtype: torch.dtype, count: int) -> None:
    logits_KV = 4 * torch.randn(7, vocabulary, generator=torch.Generator().manual_seed(vocabulary)).to(dtype)
    logits_KV[2, : vocabulary // 2] = -torch.inf
    tokens_KC, log_probs_KC = most_probable_of(logits_KV, count).unbind(-1)
    whole_KV = logits_KV.float().log_softmax(-1)
    assert torch.allclose(log_probs_KC.float(), whole_KV.topk(min(count, vocabulary)).values, atol=1e-5)
    assert torch.allclose(whole_KV.gather(1, tokens_KC.long()), log_probs_KC.float(), atol=1e-5)
    assert all(len(set(row)) == len(row) for row in tokens_KC.tolist())


def test_they_may_stand_in_one_piece_or_at_the_ends_of_rows() -> None:
    logits_KV = torch.zeros(2, 20 * PIECE + 1)
    logits_KV[0, 4 * PIECE : 4 * PIECE + 8] = torch.arange(1.0, 9.0)
    logits_KV[1, [0, PIECE - 1, PIECE, 20 * PIECE]] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    found = most_probable_of(logits_KV, 4)[:, :, 0].tolist()
    assert found == [[4 * PIECE + 7 - place for place in range(4)], [0, PIECE - 1, PIECE, 20 * PIECE]]


def test_what_is_no_number_shows() -> None:
    logits_KV = torch.randn(1, 100 * PIECE)
    logits_KV[0, 77] = torch.nan
    assert most_probable_of(logits_KV, 4)[0, 0, 1].isnan()
