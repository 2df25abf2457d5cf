"""Passes of small models by the kernels that only measured plans bring, as a large model's passes run. No test."""

from __future__ import annotations

from math import inf

import pytest

from specdec.models.graph import plans
from specdec.models.graph.graph_lm import TOKEN_COUNTS, GraphLM


def run_by_plans(monkeypatch: pytest.MonkeyPatch, *lms: GraphLM) -> None:
    """From here on attention of however few rows is cut as that of many, and where products are fused and a head's norm
    or a tree's angles are part of one, its tiles are whole heads."""
    from specdec.models.graph import kernels  # needs Triton

    monkeypatch.setattr(kernels, "FEW_ROWS", 0)
    monkeypatch.setattr(plans, "ATTENTION_PLANS", ((inf, plans.ATTENTION_PLANS[-1][1]),))
    for lm in lms:
        outer, inner = lm.weights.layers[0].qkv_NC.shape
        for rows in TOKEN_COUNTS:
            lm._fused.plans["heads", rows, outer, inner] = plans.Plan(lm.weights.head_size, 32, 3)
