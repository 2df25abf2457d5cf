"""PagedLM: rows run together over shared pages equal each row run alone, uncached."""

from __future__ import annotations

import random

import pytest
import torch
from reference import full_logits
from toys import random_ids, toy_model

from specdec.models.lm import CachedLM
from specdec.models.pages import PagedLM, Row

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.set_num_threads(1)
    return toy_model(request.param, seed=22, scale=2.0, tie=request.param == "qwen2")


@pytest.mark.parametrize("block_size", [1, 4, 32])
def test_rows_equal_the_uncached_model(model: torch.nn.Module, block_size: int) -> None:
    """Rows of different lengths after the trunk, and after blocks of their own that were committed before."""
    rng, trunk = random.Random(block_size), random_ids(5, 4 * block_size)
    paged = PagedLM(CachedLM(model), block_size)
    pages, logits_KV = paged.add_trunk(trunk, keep=range(len(trunk)))
    torch.testing.assert_close(logits_KV.double(), full_logits(model, trunk, block_size), **TOLERANCE)
    known = {tuple(pages[:length]): trunk[: length * block_size] for length in range(5)}
    for _ in range(3):
        rows = []
        for path in rng.sample(sorted(known), min(len(known), 6)):
            keep = tuple(sorted(rng.sample(range(block_size), rng.randint(1, block_size))))
            rows.append(Row(path, tuple(random_ids(rng.randrange(10**6), block_size)), keep))
        logits_KV = paged.forward(rows)
        expected = [full_logits(model, known[r.path] + list(r.tokens), block_size)[-block_size:] for r in rows]
        kept = [whole[list(row.keep)] for whole, row in zip(expected, rows, strict=True)]
        torch.testing.assert_close(logits_KV.double(), torch.cat(kept), **TOLERANCE)
        chosen = rng.sample(range(len(rows)), 3)
        for index, page in zip(chosen, paged.commit(chosen), strict=True):
            known[*rows[index].path, page] = known[rows[index].path] + list(rows[index].tokens)
    assert len(known) == 5 + 9


def test_pages_outgrow_their_first_room(model: torch.nn.Module) -> None:
    paged = PagedLM(CachedLM(model), 1)
    tokens = random_ids(6, 700)
    pages, _ = paged.add_trunk(tokens[:699], keep=[0])
    logits_KV = paged.forward([Row(tuple(pages), (tokens[699],), (0,)), Row((), (tokens[0],), (0,))])
    torch.testing.assert_close(logits_KV[0].double(), full_logits(model, tokens, 1)[-1], **TOLERANCE)
    torch.testing.assert_close(logits_KV[1].double(), full_logits(model, tokens[:1], 1)[-1], **TOLERANCE)
    paged.clear()
    assert paged.add_trunk(tokens[:2], keep=[0])[0] == [0, 1]


def test_a_trunk_is_whole_blocks(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="33 tokens are not a whole number of blocks of 32"):
        PagedLM(CachedLM(model), 32).add_trunk(random_ids(1, 33), keep=[0])
