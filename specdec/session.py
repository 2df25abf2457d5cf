"""Session: the models of one run, found and checked before any weight is loaded, then loaded on first use.

It decides which checkpoint plays which part, and decodes questions: `decode` is the one way to do that.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from specdec.config import RunConfig
from specdec.decoding.cost_aware import Advice
from specdec.decoding.loop import Drafter, Verifier, speculate
from specdec.decoding.sampled import SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.target import Target
from specdec.drafters.base import Setup, Spec
from specdec.drafters.earlier import NOTHING, Earlier
from specdec.drafters.families import settled_options, stated_options
from specdec.drafters.flags import Options
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.models.checkpoints import IN_DTYPE, TARGET, ModelSource, Role, fingerprint
from specdec.models.heads import HeadRole, HeadSource, find_models
from specdec.models.lm import device_clock
from specdec.models.load import (
    backend_title,
    check_network,
    most_threads,
    resolve_backend,
    resolve_device,
    resolve_dtype,
    threads_for,
)
from specdec.models.loaded import LoadedModels
from specdec.models.room import kept_as
from specdec.models.token_text import TokenBytes, token_bytes_of
from specdec.models.tokens import (
    Messages,
    check_same_tokens,
    encode_prompt,
    load_tokenizer,
    mask_id,
    predicted_tokens,
    stop_ids,
)
from specdec.records.identity import GREEDY, SAMPLED
from specdec.records.rounds import Round, with_cpu_times
from specdec.traces.calibration import advice_of, tree_costs

log = logging.getLogger("failfast")


@dataclass
class Session:
    """What `open_session` found. `sources` holds the target and the drafters that the run needs."""

    config: RunConfig
    device: torch.device
    dtype: torch.dtype
    sources: dict[Role, ModelSource]
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    mask_ids: dict[Role, int]
    backend: str = "eager"
    pricing: Pricing = Pricing()
    _advices: dict[Spec, Advice | None] = field(default_factory=dict, repr=False)

    @cached_property
    def specs(self) -> list[Spec]:
        """Every configuration of the run."""
        return self.config.drafters.specs(self.pricing.engines(self.config.models.target_name))

    @cached_property
    def models(self) -> LoadedModels:
        """The run's models, loaded when they are first asked for."""
        is_told = self.config.models.num_threads is not None
        most_nodes = max(spec.most_nodes for spec in self.specs)
        return LoadedModels(self.sources, self.device, self.dtype, self.backend, self.predicted, is_told, most_nodes)

    @cached_property
    def fingerprints(self) -> dict[Role, str]:
        """SHA-256 of each model's files (not of those whose weights are not needed and may not be there)."""
        return {role: fingerprint(source) for role, source in self.sources.items() if self.config.needs_weights(role)}

    def memory_bytes(self, num_positions: int) -> dict[str, tuple[int, int]]:
        """Model title -> bytes of its weights and of a KV cache of `num_positions`; not of a target that a trace
        stands for."""
        size, is_needed = self.dtype.itemsize, self.config.decoding.verify == "target"
        return {
            role.title: (source.weight_bytes(size), source.kv_values_per_token * num_positions * size)
            for role, source in self.sources.items()
            if is_needed or role is not TARGET
        }

    @property
    def backend_title(self) -> str:
        """What runs the models, in words."""
        return backend_title(self.backend, self.device)

    @property
    def num_threads(self) -> int:
        """The CPU threads of a pass."""
        return torch.get_num_threads()

    @property
    def dtype_name(self) -> str:
        """What flags, records and results call the dtype: "float32"."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def options(self) -> Options:
        """The flags of the drafters' families; where none is given, what their checkpoints say."""
        return settled_options(self.config.drafters.options, configs_of(self.sources))

    @cached_property
    def predicted(self) -> tuple[int, tuple[int, ...]]:
        """What all models of the run predict, by the target's tokenizer and table: see `predicted_tokens`."""
        return predicted_tokens(self.tokenizer, self.sources[TARGET].vocab_size)

    def encode(self, prompt: str | Messages, what: str = "a prompt") -> list[int]:
        """The token ids of a prompt, or of a conversation. Raises UserError, calling it `what`, for one that a model of
        the run cannot read."""
        prompt_ids = encode_prompt(self.tokenizer, prompt, thinking=self.config.questions.thinking)
        if not prompt_ids:
            raise UserError(f"{what} has no token: check the chat template")
        self.require_readable(prompt_ids, what)
        return prompt_ids

    def require_readable(self, ids: Sequence[int], what: str) -> None:
        """Raise UserError for an id that the embedding table of a model of the run does not have."""
        last = max(ids)
        for role, source in self.sources.items():
            if last >= source.vocab_size:
                raise UserError(
                    f"{what} has the token {last} ({self.text_of([last])!r}), and the embedding table of {role.title} "
                    f"{source.name!r} has {source.vocab_size} rows: was it resized with the tokenizer?"
                )

    @property
    def context_len(self) -> int:
        """Positions that every model of the run can handle."""
        return min(source.context_len for source in self.sources.values())

    def decode(
        self,
        spec: Spec,
        prompt_ids: Sequence[int],
        *,
        sampler: Sampler | None = None,
        target: Verifier | None = None,
        drafter: Drafter | None = None,
        earlier: Earlier = NOTHING,
        check_stop: Callable[[], None] = lambda: None,
    ) -> list[Round]:
        """One answer under one drafter, round by round; times wait for the device.

        `sampler` (`self.sampler`): draws the tokens; None: greedy. `target`: another than the run's own, to verify by.
        `drafter`: another than the spec's. `earlier`: what was asked before. `check_stop` may raise, between the calls
        of a round.
        """
        cpu_s: list[float] = []

        def clock() -> float:
            check_stop()
            now = device_clock(self.device)
            cpu_s.append(time.process_time())
            return now

        rounds = speculate(
            self.target(sampler) if target is None else target,
            self.drafter(spec, sampler, earlier) if drafter is None else drafter,
            prompt_ids,
            max_new_tokens=self.config.decoding.max_new_tokens,
            stop_ids=self.stop_ids,
            clock=clock,
        )
        return with_cpu_times(rounds, cpu_s)

    def sampler(self, dataset: str, question_id: int, spec: Spec) -> Sampler | None:
        """What draws a question's tokens under one drafter, whatever is run before or beside it; None: greedy."""
        decoding = self.config.decoding
        if not decoding.is_sampled:
            return None
        warp = Warp(decoding.temperature, decoding.top_k, decoding.top_p)
        return Sampler(warp, f"{self.config.questions.seed} {dataset} {question_id} {spec.name}")

    def target(self, sampler: Sampler | None = None) -> Target:
        """The target. Raises UserError where a program that knows greedy decoding only is told to sample."""
        if sampler is not None:
            return SampledTarget(self.models.of(TARGET), sampler)
        if self.config.decoding.is_sampled:
            raise UserError("this program decodes greedily: leave out --temperature")
        return Target(self.models.of(TARGET))

    def features_of(self, ids: Sequence[int], taps: Sequence[int]) -> torch.Tensor | None:
        """The outputs of the target's layers `taps` for a text, [L, F]."""
        after = ids[-1:]  # of a prompt the last token is not run
        return Target(self.models.of(TARGET)).start([*ids, *after], taps)

    def drafter(self, spec: Spec, sampler: Sampler | None = None, earlier: Earlier = NOTHING) -> Drafter:
        """A drafter over the model of its part, which all specs of that part share; greedy without a `sampler`, or
        where --draft_sampling says so."""
        is_drawn = spec.can_draw and self.config.decoding.draft_sampling == "sample"
        setup = self.setup(spec, lm=self.model_of(spec), sampler=sampler if is_drawn else None)
        return spec.drafter(replace(setup, earlier=earlier))

    def setup(self, spec: Spec, *, lm: Any = None, sampler: Sampler | None = None) -> Setup:
        """What the run gives a drafter of `spec`, with or without its model."""
        costs = tree_costs(spec, self.pricing.profiles)
        return replace(self._unlearnt(spec), lm=lm, sampler=sampler, advice=self._advice(spec), costs=costs)

    def _unlearnt(self, spec: Spec) -> Setup:
        """The same without a model, a sampler and what a policy has learnt."""
        mask = None if spec.model_role is None else self.mask_ids.get(spec.model_role)
        return Setup(self.stop_ids, self.options, mask_id=mask)

    def model_of(self, spec: Spec) -> Any:
        """The model, or the head over the target, of a drafter's part, loaded; None for a drafter without one."""
        return None if spec.model_role is None else self.models.of(spec.model_role)

    def results_identity(self, spec: Spec) -> dict[str, Any]:
        """Everything about models and settings that decides what a configuration's results are."""
        setup, decoding, models = self.setup(spec), self.config.decoding, self.config.models
        return {
            "target_sha256": self.fingerprints.get(TARGET),
            "dtype": self.dtype_name,
            "device": self.device.type,
            "decoding": SAMPLED if decoding.is_sampled else GREEDY,
            "stop_ids": sorted(self.stop_ids),
            "seed": self.config.questions.seed,
            **vars(spec),
            # Left out of eager and of greedy records, and of weights in the dtype: all are older than the choice.
            **({} if self.backend == "eager" else {"backend": self.backend}),
            **({} if models.target_weights == IN_DTYPE else {"target_weights": models.target_weights}),
            **(self._sampling(spec) if decoding.is_sampled else {}),
            **self.chains_identity(spec),
            **spec.kept_settings(setup),
        }

    def chains_identity(self, spec: Spec) -> dict[str, Any]:
        """What decides what a drafter would write after a prefix of a text."""
        model = {} if spec.model_role is None else {"drafter_sha256": self.fingerprints.get(spec.model_role)}
        return model | spec.chain_settings(self._unlearnt(spec))

    def _sampling(self, spec: Spec) -> dict[str, Any]:
        names = ("temperature", "top_k", "top_p") + (("draft_sampling",) if spec.can_draw else ())
        return {name: getattr(self.config.decoding, name) for name in names}

    def _advice(self, spec: Spec) -> Advice | None:
        """What a policy that has learnt knows. Raises UserError for a calibration that does not fit."""
        if spec not in self._advices:
            calibration, profiles = self.config.drafters.calibration, self.pricing.profiles
            self._advices[spec] = advice_of(spec, calibration, profiles, self.chains_identity(spec))
        return self._advices[spec]

    def text_of(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """What tokens say, for people; a character that is not whole shows as U+FFFD."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=skip_special))

    def token_bytes(self) -> TokenBytes:
        """What the target's token ids stand for."""
        return token_bytes_of(json.loads(self.tokenizer.backend_tokenizer.to_str()))


def open_session(config: RunConfig) -> Session:
    """Find the models that `config` needs and check that they fit each other; loads no weights. Raises UserError."""
    device, priced, needs_costs = resolve_device(config.models.device), config.pricing, config.drafters.needs_costs
    dtype, names = resolve_dtype(config.models.dtype, device), config.model_names
    config.require_states()
    sources = find_models(names, config.needs_weights)
    sources[TARGET] = kept_as(sources[TARGET], config.models.target_weights, dtype)
    tokenizer, masks = load_tokenizer(sources[TARGET]), dict[Role, int]()
    heads = [role for role in sources if isinstance(role, HeadRole)]  # which have no tokenizer
    for role in sorted(sources.keys() - {TARGET, *heads}, key=lambda role: role.title):
        drafter_tokenizer = load_tokenizer(sources[role])
        if role.is_block_diffusion:
            masks[role] = mask_id(sources[role], drafter_tokenizer)
        check_same_tokens(tokenizer, drafter_tokenizer, ignore_ids=[masks[role]] if role in masks else [])
    session = Session(
        config=config,
        device=device,
        dtype=dtype,
        sources=sources,
        tokenizer=tokenizer,
        stop_ids=stop_ids(sources[TARGET], tokenizer),
        mask_ids=masks,
        backend=backend_of(config, device, dtype, sources),
        pricing=Pricing.load(priced.latency_profile, priced.latency_target) if needs_costs else Pricing(),
    )
    _check_models(session)
    most = most_threads()  # asked first, for it is what torch takes by itself
    largest = max(source.num_parameters for source in sources.values())
    num_threads = threads_for(config.models.num_threads, device, largest, most)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return session


def _check_models(session: Session) -> None:
    """Raise UserError where a model cannot be made, or cannot read what the target writes; say which settings of the
    run are not those of a checkpoint."""
    num_predicted, asked = session.predicted[0], session.config.drafters.options
    for role, source in session.sources.items():
        if isinstance(source, HeadSource):
            source.head.check(source, session.sources[TARGET])
        elif session.config.needs_weights(role) or session.config.output.dry_run:
            check_network(source)
        if source.vocab_size < num_predicted:
            raise UserError(
                f"{role.title} {source.name!r} has an embedding table of {source.vocab_size} rows, and the target "
                f"writes tokens up to {num_predicted - 1}: choose a drafter of the target's family"
            )
    for name, stated in stated_options(configs_of(session.sources)).items():
        if asked.get(name) not in (None, stated):
            log.warning("--%s %s, though the drafter's config.json says %s", name, asked[name], stated)


def configs_of(sources: Mapping[Role, ModelSource]) -> dict[Role, dict[str, Any]]:
    """What the config.json of each model says."""
    return {role: source.config for role, source in sources.items()}


def backend_of(config: RunConfig, device: torch.device, dtype: torch.dtype, sources: Mapping[Role, ModelSource]) -> str:
    """What runs the models that this run loads; a target that a trace stands for is not among them."""
    loaded = [one for role, one in sources.items() if role is not TARGET or config.decoding.verify == "target"]
    options = settled_options(config.drafters.options, configs_of(sources))
    block_size = max(kind.block_len(options) for kind in config.drafters.part_kinds)
    reason = only_eager(config)
    return resolve_backend(config.models.engine, device, dtype, loaded, block_size=block_size, only_eager=reason)


def only_eager(config: RunConfig) -> str | None:
    """Why the graph backend cannot do what is asked, whatever the models."""
    if config.recording.record or config.recording.with_traces:
        return "traces are recorded by passes over many rows (specdec/models/pages.py), which it does not run"
    return "it has no sub-block cache" if config.drafters.options.get("use_block_cache") else None
