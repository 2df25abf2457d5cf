"""EAGLE-3 drafters: every draft of every round is what a second implementation writes without a cache, the text is the
target's own, and replays equal live runs, in all three layouts and both backends.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from families import save_model
from heads import ToyHead, draft_of, features_of, loaded_head, save_head, taught, toy_head
from live import assert_replays, recorded, run_live
from toys import TOO_CLOSE, clear_answers, greedy_tokens, random_ids, run_twice, toy_model, weaken_attention

from specdec.config import RunConfig
from specdec.decoding.loop import speculate
from specdec.decoding.sampled import SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.target import Target
from specdec.drafters.eagle3 import Eagle3Drafter, Eagle3Dynamic, Eagle3Static
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.models import eagle3_network
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.models.graph.weights import unsupported
from specdec.models.lm import CachedLM
from specdec.session import Session, open_session
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

pytestmark = pytest.mark.slow
NUM_TOKENS = 24
PROMPTS = (1, 2, 9, 30)
VARIANTS = {
    "A": ("safeailab", {}),
    "A, own words": ("safeailab", {"draft_vocab_size": 40}),
    "A, the target's embedding, EAGLE-3.1": (
        "safeailab",
        {"has_embedding": False, "fc_norm": True, "norm_output": True},
    ),
    "A, of another size": ("safeailab", {"size": 48}),
    "B, own words": ("speculators", {"draft_vocab_size": 50, "norm_before_residual": True, "norm_before_fc": True}),
    "B, of Qwen3": ("speculators", {"qwen3": True, "fc_norm": True, "norm_output": True}),
    "C": ("deepspec", {"taps": (0, 1, 1, 0, 1)}),
}
SPECS = [Eagle3Static(1), Eagle3Static(5), Eagle3Dynamic(0.5, 9, 3), Eagle3Dynamic(0.9, 6, 1)]


@pytest.fixture(scope="module", params=["qwen2-tied", "llama"])
def target(request: pytest.FixtureRequest, one_thread: None) -> torch.nn.Module:
    return made_target(request.param)


def made_target(architecture: str) -> torch.nn.Module:
    name, _, tied = architecture.partition("-")
    return weaken_attention(toy_model(name, 31, scale=4.0, tie=bool(tied)), 0.3)


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
def apt_head(variant: str, target: torch.nn.Module) -> ToyHead:
    """One that is right about every second question."""
    layout, how = VARIANTS[variant]
    texts = [[*prompt, *greedy] for prompt, greedy in questions(target)[::2]]
    return taught(toy_head(layout, target, 5, **how), target, texts * 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_draft_of_every_round_is_the_references(
    target: torch.nn.Module, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejected tokens included; graphs' padding, a cache that grows, and prompts in pieces are met."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr(Graphs, "run", run_twice)
    monkeypatch.setattr(eagle3_network, "INITIAL_CAPACITY", 8)
    monkeypatch.setattr(eagle3_network, "PADDED", (1, 2, 4, 16))
    monkeypatch.setattr(eagle3_network, "MAX_ROWS", 16)
    head, lengths, num_rejected = apt_head(variant, target), set(), 0
    for backend, engine in (("eager", CachedLM), ("graph", GraphLM)):
        lm = engine(target)
        network = loaded_head(head, lm, backend)
        for index, (prompt, greedy) in enumerate(questions(target)):
            spec = SPECS[(index + (backend == "graph")) % len(SPECS)]
            rounds = speculate(
                Target(lm), Eagle3Drafter(network, spec, ()), prompt, max_new_tokens=NUM_TOKENS, stop_ids=()
            )
            assert [token for turn in rounds for token in turn.emitted_tokens] == greedy
            text = prompt + greedy
            features = features_of(target, text, head.taps)
            for turn in rounds:
                want = draft_of(head, target, features, text[: turn.prefix_len], len(turn.confidences))
                assert turn.draft_tokens == [token for token, _ in want][: turn.draft_len]
                assert turn.confidences == pytest.approx([sure for _, sure in want], abs=1e-4)
                assert turn.num_denoise_passes == len(turn.confidences)
                lengths.add(turn.accepted_len)
                num_rejected += turn.draft_len - turn.accepted_len
    assert len(lengths) >= 3 and num_rejected > 10


@pytest.mark.parametrize(
    "architecture", ["qwen2", "qwen2-tied", "llama", "mistral", "qwen3", "qwen3_moe", "phi3", "gemma3_text"]
)
def test_forty_answers_are_plain_decodings(
    architecture: str, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a head that knows half of them, in both backends by turns, where the graph backend runs the target."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 16))
    target = made_target(architecture)
    asked = clear_answers(target, [random_ids(seed, 1 + seed % 37) for seed in range(48)], 40, 12)
    layout, how = list(VARIANTS.values())[len(architecture) % len(VARIANTS)]
    head = taught(toy_head(layout, target, 5, **how), target, [[*one, *two] for one, two in asked[::2]], epochs=4)
    models = [engine(target) for engine in (CachedLM, CachedLM if unsupported(target.config) else GraphLM)]
    networks = [loaded_head(head, lm, backend) for lm, backend in zip(models, ("eager", "graph"), strict=True)]
    accepted = []
    for index, (prompt, greedy) in enumerate(asked):
        drafter = Eagle3Drafter(networks[index % 2], SPECS[index % len(SPECS)], ())
        rounds = speculate(Target(models[index % 2]), drafter, prompt, max_new_tokens=12, stop_ids=())
        assert [token for turn in rounds for token in turn.emitted_tokens] == greedy, index
        accepted += [turn.accepted_len for turn in rounds]
    assert len(asked) == 40 and len(set(accepted)) >= 3


def test_a_prompt_of_one_token_has_no_row_yet(target: torch.nn.Module) -> None:
    lm = CachedLM(target)
    drafter = Eagle3Drafter(loaded_head(toy_head("safeailab", target, 5), lm), Eagle3Static(4), ())
    rounds = speculate(Target(lm), drafter, [7], max_new_tokens=9, stop_ids=())
    assert [turn.draft_len for turn in rounds][:2] == [0, 4] and rounds[0].num_forward_passes == 0


def test_a_draft_ends_with_a_stop_token(target: torch.nn.Module) -> None:
    lm = CachedLM(target)
    network = loaded_head(apt_head("A", target), lm)
    prompt, greedy = questions(target)[2]
    whole = speculate(Target(lm), Eagle3Drafter(network, Eagle3Static(6), ()), prompt, max_new_tokens=20, stop_ids=())
    stop = next(turn for turn in whole if turn.draft_len > 2).draft_tokens[1]
    cut = speculate(Target(lm), Eagle3Drafter(network, Eagle3Static(6), {stop}), prompt, max_new_tokens=20, stop_ids=())
    assert any(turn.stop_reason == "stop_token" and turn.draft_tokens[-1] == stop for turn in cut)
    assert [token for turn in cut for token in turn.emitted_tokens] == greedy[:20]


def test_words_that_the_target_never_writes_are_never_drafted(target: torch.nn.Module) -> None:
    lm, head = CachedLM(target, 40, (3, 7)), toy_head("safeailab", target, 5)
    drafter = Eagle3Drafter(loaded_head(head, lm), Eagle3Static(9), ())
    rounds = speculate(Target(lm), drafter, random_ids(3, 9, vocab_size=40), max_new_tokens=60, stop_ids=())
    drafted = {token for turn in rounds for token in turn.draft_tokens}
    assert len(drafted) > 5 and max(drafted) < 40 and not drafted & {3, 7}


def test_it_drafts_the_most_probable_tokens_where_the_target_samples(target: torch.nn.Module) -> None:
    lm, sampler = CachedLM(target), Sampler(Warp(0.8), "x")
    drafter = Eagle3Drafter(loaded_head(apt_head("B, own words", target), lm), Eagle3Static(4), ())
    prompt = random_ids(4, 12)
    first = speculate(SampledTarget(lm, sampler), drafter, prompt, max_new_tokens=20, stop_ids=())
    assert all(draft == 1.0 or draft is not None for turn in first for draft in turn.draft_probabilities or [])


# ---- traces -----------------------------------------------------------------------------------------------------

BUDGET = 30
SETTINGS = [
    *map(Eagle3Static, (1, 2, 3, 5, 8, 12)),
    *(Eagle3Dynamic(tau, 12, step) for tau, step in ((0.0, 4), (0.3, 3), (0.6, 1), (0.9, 2), (1.0, 5))),
    Eagle3Dynamic(0.5, 7, 10),
]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Session:
    folder, target = tmp_path_factory.mktemp("family"), made_target("llama")
    save_model(folder / "target", target)
    save_head(folder / "head", apt_head("B, own words", target))
    return open_session(
        RunConfig.of(
            target_model_name=str(folder / "target"),
            eagle3_dir=str(folder / "head"),
            drafters=("plain", "eagle3_sf", "eagle3_df"),
            device="cpu",
            max_new_tokens=BUDGET,
            draft_len=(12,),
            max_draft_len=(12,),
            record=True,
            record_batch=7,
        )
    )


@pytest.fixture(scope="module")
def traces(session: Session, tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    """Prompts of known and unknown texts, one of a single token; each through its file."""
    prompts = [prompt for prompt, _ in questions(session.target().lm.model)]
    return recorded(session, prompts, tmp_path_factory.mktemp("traces"))


def test_replay_equals_live_in_every_round_of_every_setting(session: Session, traces: list[Trace]) -> None:
    reasons, accepted = set(), set()
    for spec in SETTINGS:
        for trace in traces:
            live, replayed = run_live(session, trace, spec), replay(trace, spec)
            # Twelve steps of a toy's sharp weights carry a rounding far; the tokens are equal all the same.
            assert_replays(replayed, live, 1e-3)
            for turn in live.rounds:
                reasons.add(turn.stop_reason)
                accepted.add(turn.accepted_len)
    assert reasons >= {"length", "low_confidence", "max_len", "none"} and len(accepted) >= 4


def test_a_longer_draft_than_was_recorded_is_named(traces: list[Trace]) -> None:
    with pytest.raises(UserError, match="eagle3 of question 1 are 12 tokens long"):
        replay(traces[3], Eagle3Static(13))


def test_names_are_read_back() -> None:
    for spec in (*SPECS, *SETTINGS):
        assert parse_name(spec.name) == spec
    assert (Eagle3Static(7).name, Eagle3Dynamic(0.45, 60, 10).name) == ("eagle3_sf_7", "eagle3_df_0.45_60_10")


def test_what_is_written_after_a_text_that_fills_the_cache(target: torch.nn.Module, monkeypatch) -> None:
    """Its steps stand beyond it."""
    head, text = apt_head("A", target), random_ids(3, 30)
    written = []
    for capacity in (len(text) - 1, 64):
        monkeypatch.setattr(eagle3_network, "INITIAL_CAPACITY", capacity)
        network = loaded_head(head, CachedLM(target))
        network.read_text(features_of(target, text, head.taps)[:-1], text[1:])
        written.append(network.write_on([5, len(text) - 2], 6))
    assert written[0] == written[1] and len(written[0][1]) == 6
