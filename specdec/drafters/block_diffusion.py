"""Block-diffusion drafters of the Fast-dLLM v2 kind: static drafts, FailFast, and the cost-aware policy.

`decoding/denoising.py` fills blocks and `decoding/stopping.py` ends drafts; `block_chains.py` has what a trace keeps of
it all. Here is what a user chooses, and the drafter over a model.

Sources: FailFast (arXiv 2512.20573), Algorithm 1 and Appendix E.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from specdec.decoding.chains import Chain
from specdec.decoding.cost_aware import Advice, CostAwareWindow
from specdec.decoding.denoising import Denoising
from specdec.decoding.stopping import FailFastWindow, FixedWindow, Rule, Window
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup, Spec, number_text
from specdec.drafters.block_drafter import BlockSettings, DllmDrafter
from specdec.drafters.flags import (
    DRAFT_LEN,
    DRAFT_STEP,
    LENGTHS,
    MAX_DRAFT_LEN,
    PROBABILITIES,
    TAU,
    Flag,
    Options,
    positive_int,
    values,
)
from specdec.errors import UserError
from specdec.models.checkpoints import Role
from specdec.records.rounds import Round

DLLM_DRAFTER = Role(
    "dLLM drafter", "--dllm_dir", "dllm_drafter", "Efficient-Large-Model/Fast_dLLM_v2_1.5B", is_block_diffusion=True
)
PUBLISHED_WINDOW = 10  # what a name without a window means
PUBLISHED_RULE: Rule = "published"  # and without a rule

UNMASK_THRESHOLD = Flag("unmask_threshold", "dLLM unmask thresholds", (0.05,), ("drafter_thresholds",), PROBABILITIES)
FIRST_WINDOW = Flag("first_window", "FailFast's first windows", (PUBLISHED_WINDOW,), ("sweep_first_window",), LENGTHS)
RULE = Flag(
    "failfast_rule",
    "Algorithm 1 as published, or as its text reads",
    PUBLISHED_RULE,
    more={"choices": ("published", "strict")},
)
BLOCK_SIZE = Flag("block_size", "dLLM block", 32, more={"type": positive_int})
SMALL_BLOCK_SIZE = Flag("small_block_size", "dLLM sub-block", 8, more={"type": positive_int})
REUSE_DRAFTS = Flag("reuse_drafts", "continue a draft from last round's rejected tail (Appendix E)")
NO_KVS = Flag("disable_reusing_drafter_kvs", "start every dLLM draft from an empty cache")


@dataclass(frozen=True)
class BlockSpec(Spec):
    """What all of them have in common."""

    unmask_threshold: float

    role = DLLM_DRAFTER

    @abstractmethod
    def window(self, budget: int, advice: Advice | None = None) -> Window:
        """The rule that ends a draft of which at most `budget` tokens are of use."""

    @property
    def chains_name(self) -> str:
        return f"dllm_{number_text(self.unmask_threshold)}"

    def drafter(self, setup: Setup) -> Drafter:
        lm = setup.lm
        if setup.sampler is not None:
            from specdec.decoding.sampled import SampledLM

            lm = SampledLM(lm, setup.sampler)
        return DllmDrafter(lm, self, settings_of(setup))

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        from specdec.drafters.block_chains import RecordedDllm

        chains = trace.chains_of(self)
        blocks = chains.identity
        options = {**setup.options, **{name: blocks[name] for name in ("block_size", "small_block_size")}}
        recorded = Setup(trace.stop_ids, options, mask_id=blocks["mask_id"], advice=setup.advice)
        return RecordedDllm(trace, chains, self, settings_of(recorded))

    @classmethod
    def block_len(cls, options: Options) -> int:
        return int(options.get(BLOCK_SIZE.name, BLOCK_SIZE.default))

    def check_context(self, options: Options, context_len: int) -> None:
        (block_size,) = values(options, BLOCK_SIZE)
        if block_size > context_len:
            raise UserError(f"--block_size {block_size}: the models hold {context_len} positions")

    def chain_settings(self, setup: Setup) -> dict[str, Any]:
        block_size, small = values(setup.options, BLOCK_SIZE, SMALL_BLOCK_SIZE)
        return {"mask_id": setup.mask_id, "block_size": block_size, "small_block_size": small}

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        return {"reuse_drafter_kvs": not setup.options.get(NO_KVS.name, NO_KVS.default)}


@dataclass(frozen=True)
class DllmStatic(BlockSpec):
    """A block-diffusion drafter that always drafts `draft_len` tokens."""

    draft_len: int

    kind = "dllm_sf"
    title = "dLLM, static"
    hue = "#009E73"
    marker = "^"
    switch = "run_dllm_sf"
    is_static_baseline = True

    @property
    def name(self) -> str:
        return f"dllm_{number_text(self.unmask_threshold)}_sf_{self.draft_len}"

    @property
    def label(self) -> str:
        return f"dLLM {number_text(self.unmask_threshold)}, static {self.draft_len}"

    @classmethod
    def sweep(cls, options: Options) -> list[Spec]:
        thresholds, lengths = values(options, UNMASK_THRESHOLD, DRAFT_LEN)
        return [cls(threshold, length) for threshold in thresholds for length in lengths]

    def chain_len(self, options: Options) -> int:
        return self.draft_len

    def window(self, budget: int, advice: Advice | None = None) -> Window:
        return FixedWindow(min(self.draft_len, budget))


@dataclass(frozen=True)
class FailFast(BlockSpec):
    """FailFast: Algorithm 1's tau, N_max and N over a block-diffusion drafter."""

    tau: float
    max_draft_len: int
    draft_step: int
    first_window: int = PUBLISHED_WINDOW
    rule: Rule = PUBLISHED_RULE

    kind = "failfast"
    title = "FailFast"
    hue = "#0072B2"
    marker = "o"
    is_headline = True

    @property
    def name(self) -> str:
        numbers = f"{number_text(self.tau)}_{self.max_draft_len}_{self.draft_step}"
        window = "" if self.first_window == PUBLISHED_WINDOW else f"_w{self.first_window}"
        rule = "" if self.rule == PUBLISHED_RULE else f"_{self.rule}"
        return f"dllm_{number_text(self.unmask_threshold)}_df_{numbers}{window}{rule}"

    @property
    def label(self) -> str:
        unmask = "" if self.unmask_threshold == 0.05 else f" {number_text(self.unmask_threshold)}"
        window = "" if self.first_window == PUBLISHED_WINDOW else f", first window {self.first_window}"
        rule = "" if self.rule == PUBLISHED_RULE else f", {self.rule}"
        lengths = f"N_max {self.max_draft_len}, N {self.draft_step}"
        return f"FailFast{unmask} τ {number_text(self.tau)}, {lengths}{window}{rule}"

    @classmethod
    def sweep(cls, options: Options) -> list[Spec]:
        thresholds, taus, longest, steps = values(options, UNMASK_THRESHOLD, TAU, MAX_DRAFT_LEN, DRAFT_STEP)
        windows, rule = values(options, FIRST_WINDOW, RULE)
        return [
            cls(threshold, tau, most, step, window, rule)
            for threshold in thresholds
            for tau in taus
            for most in longest
            for step in steps
            for window in windows
        ]

    def chain_len(self, options: Options) -> int:
        """For the published rule in general N_max + N.

        With an N below the sub-block the passes may run further ahead of the window than that.
        """
        if self.rule == "strict":
            return self.max_draft_len
        size, block_size = self.first_window, options.get(BLOCK_SIZE.name, BLOCK_SIZE.default)
        # A window grows while fewer than N_max confidences are recorded; the first token of a block has none.
        while size < self.max_draft_len + 1 + size // block_size:
            size += self.draft_step
        return size

    def window(self, budget: int, advice: Advice | None = None) -> Window:
        return FailFastWindow(self.first_window, self.tau, self.draft_step, self.max_draft_len, self.rule)

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        reuse_drafts = setup.options.get(REUSE_DRAFTS.name, REUSE_DRAFTS.default)
        return {**super().kept_settings(setup), "reuse_drafts": reuse_drafts}

    def token_confidences(self, turn: Round, settings: Mapping[str, Any]) -> list[float | None]:
        """The published rule records every masked position of every pass: the passes are gone through again."""
        if self.rule != PUBLISHED_RULE or "block_size" not in settings:
            return super().token_confidences(turn, settings)
        from specdec.drafters.block_chains import confidences_again

        window = FailFastWindow(self.first_window, self.tau, self.draft_step, self.max_draft_len, self.rule)
        sizes = settings["block_size"], settings["small_block_size"]
        return confidences_again(turn, window, Denoising(self.unmask_threshold, *sizes, -1, frozenset()))


@dataclass(frozen=True)
class CostAware(BlockSpec):
    """A block-diffusion drafter that goes on while it pays: `pricing` ("TARGET@PROFILE") says what a pass and a
    verification cost, at most `max_draft_len` tokens are drafted."""

    max_draft_len: int
    pricing: str

    kind = "cost_aware"
    title = "cost-aware"
    hue = "#D55E00"
    marker = "v"
    is_default = False
    is_policy = True
    needs_advice = True

    @property
    def name(self) -> str:
        return f"{self.chains_name}_ca_{self.max_draft_len}_{self.pricing}"

    @property
    def label(self) -> str:
        return f"cost-aware, N_max {self.max_draft_len}, {self.pricing}"

    @classmethod
    def sweep(cls, options: Options) -> list[Spec]:
        """`options` hold, as "pricings", what the profiles of the run price."""
        thresholds, longest = values(options, UNMASK_THRESHOLD, MAX_DRAFT_LEN)
        pricings = options.get("pricings", ())
        return [cls(threshold, most, pricing) for threshold in thresholds for most in longest for pricing in pricings]

    def chain_len(self, options: Options) -> int:
        return self.max_draft_len

    def window(self, budget: int, advice: Advice | None = None) -> Window:
        if advice is None:
            raise ValueError(f"{self.name} without advice")
        return CostAwareWindow(advice, min(self.max_draft_len, budget))

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        learnt = {} if setup.advice is None else {"advice_sha256": setup.advice.digest}
        return {**super().kept_settings(setup), **learnt}


def settings_of(setup: Setup) -> BlockSettings:
    """What a run's flags say of blocks."""
    names = (BLOCK_SIZE, SMALL_BLOCK_SIZE, REUSE_DRAFTS, NO_KVS)
    block_size, small_block_size, reuse_drafts, no_kvs = values(setup.options, *names)
    return BlockSettings(
        mask_id=-1 if setup.mask_id is None else setup.mask_id,  # -1: of a model that is never run
        stop_ids=setup.stop_ids,
        block_size=block_size,
        small_block_size=small_block_size,
        reuse_kvs=not no_kvs,
        reuse_drafts=reuse_drafts,
        advice=setup.advice,
    )


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One chain per prefix and unmask threshold; what two thresholds share is run once."""
    from specdec.decoding.block_recorder import DllmRecorder
    from specdec.models.pages import PagedLM

    settings = settings_of(recording.setup)
    recorder = DllmRecorder(PagedLM(recording.setup.lm, settings.block_size), recording.text, recording.batch)
    lengths = {float(name.removeprefix("dllm_")): length for name, length in wanted.items()}
    made = recorder.record(lengths, settings.denoising(0.0))
    return {f"dllm_{number_text(threshold)}": chains for threshold, chains in made.items()}


def _parse(words: Sequence[str]) -> Spec | None:
    match list(words):
        case ["dllm", threshold, "sf", draft_len]:
            return DllmStatic(float(threshold), int(draft_len))
        case ["dllm", threshold, "df", tau, longest, step, *more]:
            return partial(FailFast, float(threshold), float(tau), int(longest), int(step))(**_window_and_rule(more))
        case ["dllm", threshold, "ca", longest, *pricing] if pricing:
            return CostAware(float(threshold), int(longest), "_".join(pricing))
    return None


def _window_and_rule(words: Sequence[str]) -> dict[str, Any]:
    """Of a name's last words: `_window_and_rule(["w9", "strict"]) == {"first_window": 9, "rule": "strict"}`."""
    found: dict[str, Any] = {}
    rest = list(words)
    if rest and rest[0].startswith("w"):
        found["first_window"] = int(rest.pop(0)[1:])
    if rest == ["strict"]:
        found["rule"] = rest.pop()
    if rest:
        raise ValueError(f"{rest} is neither a window nor a rule")
    return found


def _check(options: Options) -> None:
    block_size, small = values(options, BLOCK_SIZE, SMALL_BLOCK_SIZE)
    if block_size < 2:
        raise UserError("--block_size 1 is plain AR decoding: a block needs at least 2 positions")
    if block_size % small:
        raise UserError(f"--small_block_size {small} does not divide --block_size {block_size}")


FAMILY = Family(
    "block_diffusion",
    (DllmStatic, FailFast, CostAware),
    _parse,
    (
        *(DRAFT_LEN, UNMASK_THRESHOLD, FIRST_WINDOW, TAU, MAX_DRAFT_LEN, DRAFT_STEP),
        *(RULE, BLOCK_SIZE, SMALL_BLOCK_SIZE, REUSE_DRAFTS, NO_KVS),
    ),
    record,
    _check,
)
