"""DFlash drafters and their kin: every draft of every round is what a second implementation writes without a cache, the
text is the target's own, and replays equal live runs, for every kind of head and in both backends.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from dflash_heads import (
    FULL,
    SLIDING,
    ToyDflash,
    draft_of,
    features_of,
    loaded_dflash,
    save_dflash,
    taught,
    toy_dflash,
)
from families import edit_config, save_model
from live import assert_replays, recorded, run_live
from toys import TOO_CLOSE, clear_answers, greedy_tokens, random_ids, run_twice, toy_model, weaken_attention

from specdec.commands import replay as replay_command
from specdec.commands import run as failfast
from specdec.config import RunConfig
from specdec.decoding.loop import speculate
from specdec.decoding.sampled import SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.target import Target
from specdec.drafters.base import Setup
from specdec.drafters.dflash import DflashDrafter, DflashDynamic, DflashStatic
from specdec.drafters.families import parse_name
from specdec.latency.pricing import Pricing
from specdec.latency.profile import LatencyProfile
from specdec.models import dflash_network
from specdec.models.dflash import default_taps
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.models.graph.weights import unsupported
from specdec.models.lm import CachedLM
from specdec.ranking.oracle import TraceJudges
from specdec.records.record import find_records, load_record
from specdec.runs.run_file import describe_run
from specdec.runs.shards import EVERYTHING
from specdec.session import Session, open_session
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

pytestmark = pytest.mark.slow
NUM_TOKENS = 24
PROMPTS = (1, 2, 9, 30)
ENGINES = {"eager": CachedLM, "graph": GraphLM}
CAPPED = {"output_multiplier": 0.5, "final_logit_softcapping": 30.0, "input_embedding_scale": 1.5}
MARKOV = {"markov_rank": 8, "markov_head_type": "vanilla"}
SPARK = {**MARKOV, "enable_confidence_head": True, "confidence_head_with_markov": True}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "DFlash": ("DFlashDraftModel", {}),
    "sliding layers": ("DFlashDraftModel", {"kinds": (SLIDING, SLIDING, FULL), "window": 4}),
    "sliding, not causal": ("DFlashDraftModel", {"kinds": (SLIDING, FULL), "window": 5, "causal": False}),
    "scaled": ("DFlashDraftModel", {"extra": CAPPED, "taps": (1,)}),
    "JetSpec": ("DFlashDraftModel", {"causal": True}),
    "anchor first": ("DFlashDraftModel", {"extra": {"sample_from_anchor": True}, "has_tables": True}),
    "DSpark": ("Qwen3DSparkModel", {"extra": SPARK, "has_tables": True}),
    "DSpark without confidences": ("Qwen3DSparkModel", {"extra": MARKOV, "has_tables": True}),
    "DSpark, gated": (
        "Qwen3DSparkModel",
        {"extra": {**SPARK, "markov_head_type": "gated"}, "has_tables": True},
    ),
    "DSpark, recurrent": (
        "Qwen3DSparkModel",
        {"extra": {**SPARK, "markov_head_type": "rnn"}, "has_tables": True},
    ),
    "DFlash2": ("DFlash2DraftModel", {"kinds": (SLIDING, FULL), "window": 5}),
}
SPECS = [DflashStatic(1), DflashStatic(6), DflashDynamic(0.5, 60, 2), DflashDynamic(0.9, 4, 1)]


def made_target(architecture: str) -> torch.nn.Module:
    name, _, tied = architecture.partition("-")
    return weaken_attention(toy_model(name, 31, scale=4.0, tie=bool(tied), num_layers=3), 0.3)


@pytest.fixture(scope="module")
def targets(one_thread: None) -> list[torch.nn.Module]:
    return [made_target("qwen2-tied"), made_target("llama")]


@pytest.fixture(scope="module")
def target(targets: list[torch.nn.Module]) -> torch.nn.Module:
    return targets[1]


@cache
def questions(target: torch.nn.Module) -> list[tuple[list[int], list[int]]]:
    """Prompts and what the target writes after them, without a close call."""
    made = []
    for length in PROMPTS:
        for seed in range(100 * length, 100 * length + 20):
            prompt = random_ids(seed, length)
            greedy, gap = greedy_tokens(target, prompt, max_new_tokens=NUM_TOKENS, stop_ids=())
            if gap > TOO_CLOSE:
                made.append((prompt, greedy))
                break
    return made


@cache
def apt_head(variant: str, target: torch.nn.Module) -> ToyDflash:
    """One that is right about some questions now and then."""
    architecture, how = VARIANTS[variant]
    texts = [[*prompt, *greedy] for prompt, greedy in questions(target)[1:]]
    return taught(toy_dflash(architecture, target, 5, **how), target, texts)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_draft_of_every_round_is_the_references(
    targets: list[torch.nn.Module], variant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rejected tokens included; graphs' padding, a cache that grows, and prompts in pieces are met. Kinds of heads take
    turns with two targets."""
    target = targets[list(VARIANTS).index(variant) % 2]
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr(Graphs, "run", run_twice)
    for name, value in (("INITIAL_CAPACITY", 8), ("LEAST_SPAN", 4), ("PADDED", (1, 2, 4, 16)), ("MAX_ROWS", 16)):
        monkeypatch.setattr(dflash_network, name, value)
    head, lengths, num_rejected = apt_head(variant, target), set(), 0
    for backend, engine in ENGINES.items():
        lm = engine(target)
        network = loaded_dflash(tmp_path, head, lm, backend)
        for index, (prompt, greedy) in enumerate(questions(target)):
            spec = SPECS[(index + (backend == "graph")) % len(SPECS)]
            drafter = DflashDrafter(network, spec, Setup(()))
            rounds = speculate(Target(lm), drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=())
            assert [token for turn in rounds for token in turn.emitted_tokens] == greedy
            text = prompt + greedy
            features = features_of(target, text, head.taps)
            for turn in rounds:
                want = draft_of(head, target, features, text[: turn.prefix_len])[: turn.draft_len]
                assert turn.draft_tokens == [token for token, _ in want]
                assert turn.confidences == pytest.approx([sure for _, sure in want], abs=1e-4)
                assert turn.num_denoise_passes == turn.num_forward_passes == (turn.draft_len > 0)
                lengths.add(turn.accepted_len)
                num_rejected += turn.draft_len - turn.accepted_len
    assert len(lengths) >= 3 and num_rejected > 10


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2-tied", "llama", "llama-tied", "mistral", "qwen3"])
def test_forty_answers_are_plain_decodings(
    architecture: str, one_thread: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a head that knows half of them, in both backends by turns, where both run the architecture."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    target = made_target(architecture)
    asked = clear_answers(target, [random_ids(seed, 1 + seed % 37) for seed in range(48)], 40, 12)
    kind, how = list(VARIANTS.values())[sum(map(ord, architecture)) % len(VARIANTS)]
    head = taught(toy_dflash(kind, target, 5, **how), target, [[*one, *two] for one, two in asked[::2]])
    engines = [CachedLM, CachedLM if unsupported(target.config) else GraphLM]
    models = [engine(target) for engine in engines]
    networks = [loaded_dflash(tmp_path, head, lm, name) for name, lm in zip(ENGINES, models, strict=True)]
    accepted = []
    for index, (prompt, greedy) in enumerate(asked):
        drafter = DflashDrafter(networks[index % 2], SPECS[index // 2 % len(SPECS)], Setup(()))
        rounds = speculate(Target(models[index % 2]), drafter, prompt, max_new_tokens=12, stop_ids=())
        assert [token for turn in rounds for token in turn.emitted_tokens] == greedy, index
        accepted += [turn.accepted_len for turn in rounds]
    assert len(asked) == 40 and sum(accepted) > 0 and len(set(accepted)) >= 2


def test_a_prompt_of_one_token_has_no_context_yet_and_is_drafted_for(target: torch.nn.Module, tmp_path: Path) -> None:
    lm, head = CachedLM(target), toy_dflash("DFlashDraftModel", target, 5)
    drafter = DflashDrafter(loaded_dflash(tmp_path, head, lm), DflashStatic(4), Setup(()))
    rounds = speculate(Target(lm), drafter, [7], max_new_tokens=9, stop_ids=())
    assert [turn.draft_len for turn in rounds][:2] == [4, 4]
    want = draft_of(head, target, torch.zeros(0, 2 * head.size), [7])
    assert rounds[0].draft_tokens == [token for token, _ in want][:4]


def test_a_draft_ends_with_a_stop_token_and_with_its_budget(target: torch.nn.Module, tmp_path: Path) -> None:
    lm = CachedLM(target)
    network = loaded_dflash(tmp_path, toy_dflash("DFlashDraftModel", target, 6), lm)
    prompt, greedy = questions(target)[2]
    whole = speculate(
        Target(lm), DflashDrafter(network, DflashStatic(5), Setup(())), prompt, max_new_tokens=20, stop_ids=()
    )
    stop = next(turn for turn in whole if turn.draft_len > 2).draft_tokens[1]
    for spec in (DflashStatic(5), DflashDynamic(0.0, 60, 10), DflashDynamic(1.0, 60, 2)):
        drafter = DflashDrafter(network, spec, Setup({stop}))
        cut = speculate(Target(lm), drafter, prompt, max_new_tokens=20, stop_ids=())
        assert any(turn.stop_reason == "stop_token" and turn.draft_tokens[-1] == stop for turn in cut)
        assert all(stop not in turn.draft_tokens[:-1] for turn in cut)
        assert [token for turn in cut for token in turn.emitted_tokens] == greedy[:20]
        left = [len(prompt) + 20 - 1 - turn.prefix_len for turn in cut]
        assert all(turn.draft_len <= budget for turn, budget in zip(cut, left, strict=True))


def test_words_that_the_target_never_writes_are_never_drafted(target: torch.nn.Module, tmp_path: Path) -> None:
    for architecture, how in (VARIANTS["DFlash"], VARIANTS["DSpark"], VARIANTS["DFlash2"]):
        lm, head = CachedLM(target, 40, (3, 7)), toy_dflash(architecture, target, 5, **{**how, "mask_id": 9})
        drafter = DflashDrafter(loaded_dflash(tmp_path, head, lm), DflashStatic(6), Setup(()))
        rounds = speculate(Target(lm), drafter, random_ids(3, 9, vocab_size=40), max_new_tokens=40, stop_ids=())
        drafted = {token for turn in rounds for token in turn.draft_tokens}
        assert len(drafted) > 5 and max(drafted) < 40 and not drafted & {3, 7, 9}


@pytest.mark.parametrize(
    ("spec", "sure", "want"),
    [
        (DflashStatic(9), [0.1, 0.9, 0.2], (3, "length")),
        (DflashDynamic(0.5, 9, 1), [0.9, 0.4, 0.9], (2, "low_confidence")),
        (DflashDynamic(0.5, 9, 2), [0.9, 0.8, 0.4], (3, "max_len")),
        (DflashDynamic(0.5, 9, 2), [0.9, 0.4, 0.8], (2, "low_confidence")),
        (DflashDynamic(0.5, 9, 2), [0.9, 0.8, 0.4, 0.9, 0.9], (4, "low_confidence")),
        (DflashDynamic(0.5, 9, 10), [0.1, 0.8], (2, "max_len")),
    ],
)
def test_which_slots_are_verified(spec: DflashStatic, sure: list[float], want: tuple[int, str]) -> None:
    assert spec.cut(sure) == want


def test_taps_where_a_checkpoint_names_none() -> None:
    assert default_taps(36, 5) == [1, 9, 17, 25, 33]  # those of Qwen3-8B-DFlash-b16
    assert default_taps(64, 5) == [1, 16, 31, 46, 61] and default_taps(28, 1) == [14]


# ---- traces -----------------------------------------------------------------------------------------------------

BUDGET = 30
SETTINGS = [
    *map(DflashStatic, (1, 2, 3, 4, 5)),
    *(DflashDynamic(tau, 12, step) for tau, step in ((0.0, 4), (0.3, 3), (0.6, 1), (0.9, 2), (1.0, 5))),
    DflashDynamic(0.5, 3, 10),
]


@pytest.fixture(scope="module", params=["sliding layers", "DSpark", "DFlash2"])
def session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, target: torch.nn.Module
) -> Session:
    folder = tmp_path_factory.mktemp("family")
    save_model(folder / "target", target)
    save_dflash(folder / "head", apt_head(request.param, target))
    return open_session(
        RunConfig.of(
            target_model_name=str(folder / "target"),
            dflash_dir=str(folder / "head"),
            drafters=("plain", "dflash_sf", "dflash_df"),
            device="cpu",
            max_new_tokens=BUDGET,
            draft_len=(5,),
            record=True,
            record_batch=7,
        )
    )


def test_a_run_says_the_block_of_its_head(session: Session) -> None:
    models = describe_run(session, [], EVERYTHING, [])["models"]
    sizes = {title: model["block_size"] for title, model in models.items()}
    assert sizes == {"target": None, "DFlash head": session.options["dflash_block"]} and sizes["DFlash head"] > 1


@pytest.fixture(scope="module")
def traces(session: Session, tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    """Prompts of known and unknown texts, one of a single token; each through its file."""
    prompts = [prompt for prompt, _ in questions(session.target().lm.model)]
    return recorded(session, prompts, tmp_path_factory.mktemp("traces"))


def test_replay_equals_live_in_every_round_of_every_setting(session: Session, traces: list[Trace]) -> None:
    reasons, accepted = set(), set()
    for spec in SETTINGS:
        for trace in traces[1:] if spec.chain_len({}) > 2 else traces[:1]:
            live, replayed = run_live(session, trace, spec), replay(trace, spec)
            assert_replays(replayed, live, 1e-4)
            for turn in live.rounds:
                reasons.add(turn.stop_reason)
                accepted.add(turn.accepted_len)
    assert reasons >= {"length", "low_confidence", "max_len", "none"} and len(accepted) >= 2


def test_they_are_priced_where_a_profile_knows_them_and_beat_no_ceiling(traces: list[Trace]) -> None:
    target = {"T": 10.0}, {"T": {1: 10.0, 8: 12.0}}
    known, unknown = (LatencyProfile("P", 5.0, *target, {}, family_pass_ms=own) for own in ({"dflash": 2.0}, {}))
    for trace in traces:
        judges = TraceJudges(trace, Pricing((known,), "T"))
        for spec in SETTINGS[::3]:
            record = replay(trace, spec)
            (price,) = Pricing((known,), "T").prices(record).values()
            assert price.draft_ms == 2.0 * sum(turn.draft_len > 0 for turn in record.rounds)
            assert Pricing((unknown,), "T").prices(record) == {}
            (ceiling,) = judges.ceilings(record).values()
            assert ceiling.total_ms == pytest.approx(price.total_ms) and ceiling.share <= 1 + 1e-9
            assert min(ceiling.over_ms, ceiling.under_ms, ceiling.passes_ms) > -1e-6


def test_names_are_read_back() -> None:
    for spec in (*SPECS, *SETTINGS):
        assert parse_name(spec.name) == spec
    assert (DflashStatic(7).name, DflashDynamic(0.45, 60, 10).name) == ("dflash_sf_7", "dflash_df_0.45_60_10")


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, target: torch.nn.Module) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    save_model(folder / "target", target)
    for name, (architecture, how) in VARIANTS.items():
        save_dflash(folder / name, toy_dflash(architecture, target, 5, **how))
    return folder


def _run(folder: Path, head: Path, out: Path, *more: str) -> int:
    return failfast.main(
        [
            *("--target_model_name", str(folder / "target"), "--dflash_dir", str(head), "--output_dir", str(out)),
            *("--device", "cpu", "--num_questions", "1", "--max_new_tokens", "8", "--latency_profile", "none"),
            *("--drafters", "plain", "dflash_sf", "dflash_df", "--spec_len", "5", *more),
        ]
    )


def _edited(head: Path, own: dict[str, Any], **changes: Any) -> None:
    config = json.loads((head / "config.json").read_text())
    if own:
        changes["dflash_config"] = {**config["dflash_config"], **own}
    edit_config(head, **changes)


REFUSALS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "size": ("DFlash", {}, {"hidden_size": 64}, "another target than .*: hidden size 64, not 32"),
    "layers": ("DFlash", {}, {"num_target_layers": 36}, "36 layers, not 3"),
    "taps": ("DFlash", {"target_layer_ids": [1, 9]}, {}, "the output of layer 9, and there are the layers 0 to 2"),
    "last tap": ("DFlash", {"target_layer_ids": [1, 2]}, {}, "the target's last layer, 2"),
    "no taps": ("DFlash", {"target_layer_ids": []}, {}, r"does not describe a DFlash head .*to read: \[\]"),
    "vocabulary": ("DFlash", {}, {"vocab_size": 99}, "vocabulary 99, not 64"),
    "verifier": ("DSpark", {}, {"target_model_name_or_path": "Qwen/Qwen3-8B"}, "names its target, 'Qwen/Qwen3-8B'"),
    "mask": ("DFlash", {"mask_token_id": 64}, {}, "has the mask 64, and its table 64 rows"),
    "no mask": ("DFlash", {"mask_token_id": None}, {}, "does not describe a DFlash head .*no mask_token_id"),
    "block": ("DFlash", {"block_size": 1}, {}, "has blocks of 1"),
    "longer": ("DFlash", {"block_size": 4}, {}, "dflash_sf_5 asks for more than the 3 drafts of the"),
    "missing": ("DFlash", {}, {"num_hidden_layers": 3, "layer_types": None}, "has no tensor layers.2.input_layernorm"),
    "surplus": ("DFlash", {}, {"num_hidden_layers": 1, "layer_types": None}, "has no place here, layers.1"),
    "parts": ("DFlash2", {}, {"architectures": ["DFlashDraftModel"]}, "has no place here, candidate_selector"),
    "shape": ("DFlash", {}, {"intermediate_size": 96}, r"mlp.gate_proj.weight is \[48, 32\]"),
    "layer types": ("DFlash", {}, {"layer_types": [FULL]}, "does not describe a DFlash head"),
    "kind of Markov head": ("DSpark", {}, {"markov_head_type": "lstm"}, "Markov head of the kind 'lstm'"),
    "gate": ("DSpark", {}, {"markov_head_type": "gated"}, "has no tensor markov_head.gate_proj.weight"),
    "ungated": ("DSpark, gated", {}, {"markov_head_type": "vanilla"}, "has no place here, markov_head.gate_proj"),
    "no Markov": ("DSpark", {}, {"markov_rank": 0}, "confidence head over a Markov head, and no Markov head"),
    "causal": ("DFlash", {"causal_head": True, "causal": False}, {}, "says both that its blocks are causal"),
    "dflare": ("DFlash", {}, {"model_arch": "dflare"}, "is a DFlare head"),
    "domino": ("DFlash", {"projector_type": "domino"}, {}, "is a Domino head"),
    "kind": ("DFlash", {}, {"architectures": ["Qwen3DFlyModel"]}, "is not that of a DFlash head"),
    "biases": ("DFlash", {}, {"attention_bias": True}, "has biases"),
    "a head of no size": ("DFlash", {}, {"head_dim": 0}, "'head_dim' is 0, not a size"),
    "embeddings of nothing": ("scaled", {"input_embedding_scale": 0}, {}, "does not describe .*input_embedding_scale"),
    "logits of nothing": ("scaled", {"output_multiplier": 0}, {}, "does not describe .*output_multiplier"),
    "a window of nothing": (
        "sliding layers",
        {},
        {"sliding_window": 0},
        "sliding_window 0, not a whole number from 1",
    ),
    "groups": ("DFlash2", {"conv_group_size": 7}, {}, "does not describe a DFlash head"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_does_not_fit_is_one_line(
    folders: Path, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: torch.nn.Module
) -> None:
    variant, own, changes, message = REFUSALS[what]
    architecture, how = VARIANTS[variant]
    head = save_dflash(tmp_path / "head", toy_dflash(architecture, target, 5, **how))
    _edited(head, own, **changes)
    assert _refused(folders, head, tmp_path, capsys, message)


def _refused(folder: Path, head: Path, out: Path, capsys: pytest.CaptureFixture[str], message: str) -> bool:
    with pytest.raises(SystemExit) as status:
        raise SystemExit(_run(folder, head, out / "out"))
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert status.value.code == 2
    assert re.search(message, shown), shown
    return not list(out.rglob("*.pickle"))


def test_a_cut_file_is_one_line(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: torch.nn.Module
) -> None:
    head = save_dflash(tmp_path / "head", toy_dflash("DFlashDraftModel", target, 5))
    file = head / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert _refused(folders, head, tmp_path, capsys, "is not a whole file of tensors")


@pytest.mark.parametrize("variant", ["JetSpec", "anchor first"])
def test_live_recorded_and_replayed_by_commands(
    folders: Path, variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(folders, folders / variant, tmp_path / "live") == 0
    assert _run(folders, folders / variant, tmp_path / "traced", "--record") == 0
    chosen = ["--drafters", "plain", "dflash_sf", "dflash_df", "--spec_len", "5", "--latency_profile", "none"]
    out = ["--output_dir", str(tmp_path / "replayed"), "--workers", "1"]
    assert replay_command.main([str(tmp_path / "traced"), *chosen, *out]) == 0
    live, again = (
        {one.drafter_name: [turn.draft_tokens for turn in one.rounds] for one in map(load_record, find_records(folder))}
        for folder in (tmp_path / "live", tmp_path / "replayed")
    )
    assert set(live) == {"plain", "dflash_sf_5", "dflash_df_0.45_60_10"} and live == again
    capsys.readouterr()
    # A block has a draft less than tokens, unless it begins at the anchor.
    longest, status = str(ToyDflash.block_size), 2 if variant == "JetSpec" else 0
    asked = [str(tmp_path / "traced"), "--drafters", "dflash_sf", "--spec_len", longest, "--latency_profile", "none"]
    for done in (
        lambda: replay_command.main([*asked, "--workers", "1"]),
        lambda: _run(folders, folders / variant, tmp_path / "longest", "--spec_len", longest),
    ):
        assert done() == status
        error = capsys.readouterr().err.strip().splitlines()[-1:]
        assert not status or re.search(
            f"dflash_sf_{longest} asks for more than the {int(longest) - 1} drafts", error[0]
        )
    assert _run(folders, folders / variant, tmp_path / "not", "--verify", "trace") == 2
    assert "reads the target's hidden states, which no trace holds" in capsys.readouterr().err


def test_a_target_that_samples_judges_fixed_tokens(target: torch.nn.Module, tmp_path: Path) -> None:
    lm, sampler = CachedLM(target), Sampler(Warp(0.8), "x")
    drafter = DflashDrafter(loaded_dflash(tmp_path, apt_head("DSpark", target), lm), DflashStatic(4), Setup(()))
    rounds = speculate(SampledTarget(lm, sampler), drafter, random_ids(4, 12), max_new_tokens=20, stop_ids=())
    assert all(len(turn.draft_probabilities or []) == 0 or turn.draft_len for turn in rounds)
