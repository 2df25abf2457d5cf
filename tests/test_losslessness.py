"""The measurement of losslessness: every kind of drafter is in it, texts are equal, and drafts are accepted and not."""

from __future__ import annotations

import pytest

from experiments import losslessness
from experiments.losslessness import NUM_TOKENS, over_target, specs
from specdec.drafters.families import kinds
from specdec.errors import UserError


def test_no_kind_of_drafter_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {spec.kind for spec in specs()} == set(kinds())
    monkeypatch.setattr(losslessness, "OVER_ONE", losslessness.OVER_ONE[1:])
    with pytest.raises(UserError, match="no drafter here is of the kind plain"):
        specs()


@pytest.mark.slow
def test_every_drafter_over_every_head_leaves_the_text_as_it_is(one_thread: None) -> None:
    counts = over_target("Phi-3-mini-4k", 2)
    assert len(counts) > len(kinds())
    for drafter, counted in counts.items():
        assert counted["texts"] == counted["exact"] == 2, drafter
        assert counted["rounds"] + counted["accepted"] in range(2 * NUM_TOKENS - 2, 2 * NUM_TOKENS + 1), drafter
    assert sum(one["accepted"] > 0 for one in counts.values()) > len(counts) / 2
