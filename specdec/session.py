"""Session: the models of a run, found and checked before any weight is loaded, then loaded on first use.

It decides which checkpoint plays which part and builds targets and drafters from them; it runs nothing.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from specdec.config import RunConfig
from specdec.decoding.cost_aware import Advice, advice_of
from specdec.decoding.sampled import SampledArDrafter, SampledLM, SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.target import Target
from specdec.drafters.live import ArDrafter, BlockSettings, DllmDrafter, Drafter, NoDrafter
from specdec.drafters.specs import CostAware, DllmStatic, DrafterSpec, FailFast
from specdec.errors import UserError
from specdec.latency.profile import load_profiles
from specdec.models.checkpoints import AR_DRAFTER, DLLM_DRAFTER, TARGET, ModelSource, Role, fingerprint
from specdec.models.lm import CachedLM
from specdec.models.load import load_lm, resolve_device, resolve_dtype, resolve_engine
from specdec.models.token_text import TokenBytes, token_bytes_of
from specdec.models.tokens import check_same_tokens, load_tokenizer, mask_id, stop_ids
from specdec.records.identity import GREEDY, SAMPLED
from specdec.records.record import Record
from specdec.runs.sources import find_sources, needs_weights, role_of


@dataclass
class Session:
    """What `open_session` found. `sources` holds the target and the drafters that the run needs."""

    config: RunConfig
    device: torch.device
    dtype: torch.dtype
    sources: dict[Role, ModelSource]
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    mask_id: int | None
    engine: str = "eager"
    _loaded: dict[Role, CachedLM] = field(default_factory=dict, repr=False)
    _advices: dict[DrafterSpec, Advice] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprints(self) -> dict[Role, str]:
        """SHA-256 of each model's files (not of those whose weights are not needed and may not be there)."""
        return {role: fingerprint(source) for role, source in self.sources.items() if needs_weights(self.config, role)}

    def memory_bytes(self, num_positions: int) -> dict[str, tuple[int, int]]:
        """Model title -> bytes of its weights and of a KV cache of `num_positions`; not of a target that a trace
        stands for."""
        size, is_needed = self.dtype.itemsize, self.config.verify == "target"
        return {
            role.title: (source.num_parameters * size, source.kv_values_per_token * num_positions * size)
            for role, source in self.sources.items()
            if is_needed or role is not TARGET
        }

    @property
    def context_len(self) -> int:
        """Positions that every model of the run can handle."""
        return min(source.context_len for source in self.sources.values())

    def sampler(self, dataset: str, question_id: int, spec: DrafterSpec) -> Sampler | None:
        """What draws one question's tokens under one drafter, whatever is run before or beside it; None: greedy."""
        config = self.config
        if not config.is_sampled:
            return None
        warp = Warp(config.temperature, config.top_k, config.top_p)
        return Sampler(warp, f"{config.seed} {dataset} {question_id} {spec.name}")

    def target(self, sampler: Sampler | None = None) -> Target:
        """The target. Raises UserError where a program that knows greedy decoding only is told to sample."""
        if sampler is not None:
            return SampledTarget(self._lm(TARGET), sampler)
        if self.config.is_sampled:
            raise UserError("this program decodes greedily: leave out --temperature")
        return Target(self._lm(TARGET))

    def drafter(self, spec: DrafterSpec, sampler: Sampler | None = None) -> Drafter:
        """A drafter over the model of its part, which all specs of that part share; greedy without a `sampler`, or
        where --draft_sampling says so."""
        role = role_of(spec)
        if role is None:
            return NoDrafter()
        lm, is_drawn = self._lm(role), sampler is not None and self.config.draft_sampling == "sample"
        if is_drawn:
            lm = SampledLM(lm, sampler)
        if role is AR_DRAFTER:
            return (SampledArDrafter if is_drawn else ArDrafter)(lm, spec, self.stop_ids)
        return DllmDrafter(lm, spec, replace(self.block_settings, advice=self._advice(spec)))

    @property
    def block_settings(self) -> BlockSettings:
        return BlockSettings(
            mask_id=self.mask_id,
            stop_ids=self.stop_ids,
            block_size=self.config.block_size,
            small_block_size=self.config.small_block_size,
            reuse_kvs=not self.config.disable_reusing_drafter_kvs,
            reuse_drafts=self.config.reuse_drafts,
        )

    def results_identity(self, spec: DrafterSpec) -> dict[str, object]:
        """Everything about models and settings that decides what a configuration's results are."""
        identity = {
            "target_sha256": self.fingerprints.get(TARGET),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "decoding": SAMPLED if self.config.is_sampled else GREEDY,
            "stop_ids": sorted(self.stop_ids),
            "seed": self.config.seed,
            **vars(spec),
        }
        if self.engine != "eager":  # left out of eager records, which are older than the choice
            identity["engine"] = self.engine
        role = role_of(spec)
        if self.config.is_sampled:  # left out of greedy records, likewise
            names = ("temperature", "top_k", "top_p") + (() if role is None else ("draft_sampling",))
            identity |= {name: getattr(self.config, name) for name in names}
        if role is not None:
            identity["drafter_sha256"] = self.fingerprints.get(role)
        if role is DLLM_DRAFTER:
            identity |= {
                "mask_id": self.mask_id,
                "block_size": self.config.block_size,
                "small_block_size": self.config.small_block_size,
                "reuse_drafter_kvs": not self.config.disable_reusing_drafter_kvs,
            }
        if isinstance(spec, FailFast):
            identity["reuse_drafts"] = self.config.reuse_drafts
        if isinstance(spec, CostAware) and self.config.calibration is not None:
            identity["advice_sha256"] = self._advice(spec).digest
        return identity

    def _advice(self, spec: DrafterSpec) -> Advice | None:
        """What the cost-aware policy knows. Raises UserError for a calibration that does not fit."""
        if not isinstance(spec, CostAware):
            return None
        if spec not in self._advices:
            identity = self.results_identity(DllmStatic(spec.unmask_threshold, 1))
            profiles = load_profiles(self.config.latency_profile)
            self._advices[spec] = advice_of(spec, self.config.calibration, profiles, identity)
        return self._advices[spec]

    def round_texts(self, record: Record) -> list[str]:
        """The text that each round emitted, for people; a character split over rounds shows as U+FFFD."""
        return [self.tokenizer.decode(turn.emitted_tokens) for turn in record.rounds]

    def token_bytes(self) -> TokenBytes:
        """What the target's token ids stand for."""
        return token_bytes_of(json.loads(self.tokenizer.backend_tokenizer.to_str()))

    def _lm(self, role: Role) -> CachedLM:
        if role not in self._loaded:
            # A drafter's table may be padded beyond the target's: such ids must never be drafted.
            vocab_size = None if role is TARGET else self.sources[TARGET].vocab_size
            self._loaded[role] = load_lm(self.sources[role], self.device, self.dtype, vocab_size, self.engine)
            self._loaded[role].warm_up()
        return self._loaded[role]


def open_session(config: RunConfig) -> Session:
    """Find the models that `config` needs and check that they fit each other; loads no weights. Raises UserError."""
    device = resolve_device(config.device)
    sources = find_sources(config)
    tokenizer = load_tokenizer(sources[TARGET])
    mask = None
    for role in sorted(sources.keys() - {TARGET}, key=lambda role: role.title):
        drafter_tokenizer = load_tokenizer(sources[role])
        if role is DLLM_DRAFTER:
            mask = mask_id(sources[role], drafter_tokenizer)
        check_same_tokens(tokenizer, drafter_tokenizer, ignore_ids=[mask] if role is DLLM_DRAFTER else [])
    return Session(
        config=config,
        device=device,
        dtype=resolve_dtype(config.dtype, device),
        sources=sources,
        tokenizer=tokenizer,
        stop_ids=stop_ids(sources[TARGET], tokenizer),
        mask_id=mask,
        engine=resolve_engine(config, device, sources.values()),
    )
