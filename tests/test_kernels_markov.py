"""The walk of Markov heads as kernels: slot for slot what torch's gives, and a head by it drafts the same.

On a GPU if there is one, else in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import test_dflash
import torch
from dflash_heads import loaded_dflash, toy_dflash
from kernel_toys import DEVICE, HALF, IS_GPU, dtype
from toys import random_ids, toy_model, weaken_attention

from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.base import Setup
from specdec.drafters.dflash import DflashDrafter, DflashDynamic, DflashStatic
from specdec.errors import UserError
from specdec.models import dflash_network, dflash_parts
from specdec.models.dflash_parts import MARKOV_KINDS, Markov
from specdec.models.dflash_trees import DflashTrees
from specdec.models.graph import markov as kernels
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.overlap import launch_options
from specdec.models.lm import most_probable

__all__ = ["dtype"]  # a fixture
SURE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
CLEAR = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.25}  # gaps that no rounding of logits closes
SPREAD = 6  # of what is added to logits: they stay below 32
HEADS = {"none": (False, False), "of states": (True, False), "of tokens too": (True, True)}
RANK = 256 if IS_GPU else 40
SIZES = [(8, (5, 24, 900, 1000)), (12, (3, 300, 3001, 3001)), (RANK, (2, 40, 700, 700))]
DSPARK = [variant for variant in test_dflash.VARIANTS if variant.startswith("DSpark")]
Asked = tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]


def asked(head: Markov, dtype: torch.dtype, seed: int, sizes: tuple[int, int, int, int]) -> Asked:
    """What a walk reads: weights, states, logits, of which the second table has rows to spare, and an anchor."""
    (slots, hidden_size, vocab_size, num_words), generator = sizes, torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.randn(*shape, generator=generator)).to(DEVICE, dtype)

    shapes = head.tensors(hidden_size, num_words, 1, {})
    w = {name: random(*shape, scale=shape[-1] ** -0.5) for name, shape in shapes.items()}
    w["markov_head.markov_w1.weight"] *= SPREAD * head.rank**0.5
    logits_BSV = random(1, slots, num_words)[..., :vocab_size]
    logits_BSV[:, :, vocab_size // 2] = -torch.inf
    return w, random(1, slots, hidden_size), logits_BSV, torch.tensor([seed % vocab_size], device=DEVICE)


def clear_walk(head: Markov, dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> tuple[Asked, torch.Tensor]:
    """A walk without a close call, and what torch makes of it."""
    for seed in range(200):
        given, gaps = asked(head, dtype, seed, sizes), list[float]()

        def chosen(logits_BV: torch.Tensor, gaps: list[float] = gaps) -> torch.Tensor:
            first, second = logits_BV[0].float().topk(2).values.tolist()
            gaps.append(first - second)
            return most_probable(logits_BV)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dflash_parts, "most_probable", chosen)
            want = head(*given)
        if min(gaps) > CLEAR[dtype]:
            return given, want
    raise AssertionError("every walk had a close call")


@pytest.mark.parametrize("kind", MARKOV_KINDS)
@pytest.mark.parametrize("confidences", HEADS)
@pytest.mark.parametrize(("rank", "sizes"), SIZES)
def test_tokens_and_confidences_are_torchs(
    dtype: torch.dtype, kind: str, confidences: str, rank: int, sizes: tuple[int, int, int, int]
) -> None:
    """Of vocabularies that are cut, and of sizes that are no powers of two."""
    head = Markov(rank, *HEADS[confidences], kind)
    given, want = clear_walk(head, dtype, sizes)
    got = head.by_kernels(*given)
    assert got.dtype == torch.float64 and torch.equal(got[..., 0], want[..., 0]) and len(want[0, :, 0].unique()) > 1
    assert got[..., 1].tolist()[0] == pytest.approx(want[..., 1].tolist()[0], abs=SURE[dtype])


@pytest.mark.parametrize("kind", MARKOV_KINDS)
def test_fewer_slots_are_the_first_of_more_and_kernels_that_overlap_change_no_bit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU of a size that keeps all of it busy: what did not wait would read what is not there yet."""
    sizes = (16, 576, 49152, 49152) if IS_GPU else (6, 24, 900, 900)
    head = Markov(256 if IS_GPU else 8, True, True, kind)
    w, hidden_BSC, logits_BSV, anchors_B = asked(head, HALF, 1, sizes)
    for _ in range(40 if IS_GPU else 1):
        whole = head.by_kernels(w, hidden_BSC, logits_BSV, anchors_B)
        for count in (1, 2, sizes[0] - 1):
            part = head.by_kernels(w, hidden_BSC[:, :count], logits_BSV[:, :count], anchors_B)
            assert torch.equal(part, whole[:, :count])
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "launch_options", lambda is_wanted: launch_options(False))
            assert torch.equal(head.by_kernels(w, hidden_BSC, logits_BSV, anchors_B), whole)


@pytest.mark.parametrize("confidences", HEADS)
@pytest.mark.parametrize("where", ["one logit", "a slot", "a row"])
def test_what_is_not_a_number_is_not_a_probability(confidences: str, where: str) -> None:
    """From the slot on where it is, and no token is outside the vocabulary; as torch's walk says it."""
    head = Markov(8, *HEADS[confidences])
    w, hidden_BSC, logits_BSV, anchors_B = asked(head, torch.float32, 3, (4, 24, 900, 900))
    if where == "a row":
        w["markov_head.markov_w1.weight"][anchors_B] = torch.nan
    else:
        logits_BSV[(0, 1, 5) if where == "one logit" else (0, 1)] = torch.nan
    got, first = head.by_kernels(w, hidden_BSC, logits_BSV, anchors_B)[0], 0 if where == "a row" else 1
    assert got[:, 1].isfinite().tolist()[: first + 1] == [True] * first + [False]
    assert head(w, hidden_BSC, logits_BSV, anchors_B)[0, first, 1].isnan()
    assert got[:, 0].min() >= 0 and got[:, 0].max() < 900


# ---- whole heads ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target() -> torch.nn.Module:
    return weaken_attention(toy_model("qwen3", 31, scale=4.0, hidden_size=64, num_layers=3), 0.3).to(DEVICE)


def spark(target: torch.nn.Module, variant: str, folder: Path, **changes: torch.Tensor) -> tuple[GraphLM, DflashTrees]:
    """A DSpark head in recorded passes, by kernels; `changes`: tensors that are others."""
    lm, (architecture, how) = GraphLM(target), test_dflash.VARIANTS[variant]
    head = toy_dflash(architecture, lm.model, 5, **how)
    head.tensors |= changes
    network = loaded_dflash(folder, head, lm, "graph")
    assert isinstance(network._walk, Markov)
    network._walk_of_one = network._walk.by_kernels
    return lm, network


@pytest.mark.parametrize("variant", DSPARK)
def test_a_head_by_them_drafts_the_same(target: torch.nn.Module, variant: str, tmp_path: Path) -> None:
    """Round for round, also where an answer ends within a block, and under FailFast's rule."""
    lm, network = spark(target, variant, tmp_path)
    drafted: list[list[list[int]]] = []
    sure: list[list[float]] = []
    for walk in (network._walk_of_one, network._walk):
        network._walk_of_one = walk
        network._allocate(2048)  # what was recorded is forgotten
        rounds = [
            turn
            for size, spec in ((2, DflashStatic(5)), (9, DflashStatic(2)), (30, DflashDynamic(0.5, 6, 2)))
            for turn in speculate(
                *(Target(lm), DflashDrafter(network, spec, Setup(())), random_ids(size, size)),
                max_new_tokens=14,
                stop_ids=(),
            )
        ]
        drafted.append([turn.draft_tokens for turn in rounds])
        sure.append([one for turn in rounds for one in turn.confidences])
    assert drafted[0] == drafted[1] and len(set(map(len, drafted[0]))) > 2
    assert sure[0] == pytest.approx(sure[1], abs=1e-4)


@pytest.mark.parametrize("variant", DSPARK)
def test_a_head_asked_for_fewer_drafts_writes_the_first_ones(
    target: torch.nn.Module, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dflash_network, "PADDED", (1, 16))
    _, network = spark(target, variant, tmp_path)
    network.warm_up()
    network.read(torch.randn(9, network._features_NF.shape[1], generator=torch.Generator().manual_seed(1)).to(DEVICE))
    whole = network.draft([5], [9])[0].clone()
    assert len(whole) == network.head.num_drafts
    for asked_for in (2, 5, len(whole), len(whole) + 2):
        part = network.draft([5], [9], asked_for)[0]
        assert len(part) >= min(asked_for, len(whole)) and torch.equal(part, whole[: len(part)])
    assert len(network.draft([5], [9], 1)[0]) == 1


def test_a_head_whose_tables_are_damaged_is_found_out(target: torch.nn.Module, tmp_path: Path) -> None:
    table = torch.full((target.config.vocab_size, 8), torch.nan)
    _, network = spark(target, "DSpark", tmp_path, **{"markov_head.markov_w2.weight": table})
    network.read(network._features_NF[:3])
    with pytest.raises(UserError, match="logits that are not finite numbers"):
        network.on_host(network.draft([5], [3])[0])
