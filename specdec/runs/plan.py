"""Plan: what a run or a recording would do, how long it takes, the memory that it needs and what it has to download.

It loads no weights and downloads none.
"""

from collections import Counter
from collections.abc import Sequence

from specdec.config import RunConfig
from specdec.latency.pricing import Pricing
from specdec.latency.profile import STAND_INS
from specdec.models.downloads import missing_bytes
from specdec.questions.sets import Problem
from specdec.records.places import place_of
from specdec.runs.jobs import Job, fitting_prompt
from specdec.runs.recording import wanted_chains
from specdec.runs.resume import trace_paths
from specdec.session import Session


def describe_run_plan(session: Session, problems: Sequence[Problem], jobs: Sequence[Job]) -> str:
    """Configurations with rounds at most, traces where they are made as well, time, memory, downloads. `jobs`: none
    where only traces are made."""
    config = session.config
    has_traces = config.recording.record or config.recording.with_traces
    lines = [*(run_lines(session, jobs) if jobs else []), *(trace_lines(session, problems) if has_traces else [])]
    num_positions = config.decoding.max_new_tokens + max(len(fitting_prompt(session, one)) for one in problems)
    return "\n".join([*lines, *memory_lines(session, num_positions), *download_lines(session)])


def run_lines(session: Session, jobs: Sequence[Job]) -> list[str]:
    """What would be decoded, and how long that takes."""
    budget = session.config.decoding.max_new_tokens
    by_drafter = Counter(job.spec.name for job in jobs if session.config.output.overwrite or place_of(job.path) is None)
    lines = [f"{name}: {count} questions, at most {count * budget} rounds" for name, count in by_drafter.items()]
    num_to_run = by_drafter.total()
    others = "; the others have a record (settings not compared)" if num_to_run < len(jobs) else ""
    return [*lines, f"to run: {num_to_run} of {len(jobs)}{others}", time_line(session.config, num_to_run)]


def trace_lines(session: Session, problems: Sequence[Problem]) -> list[str]:
    """What would be recorded, and how long the target takes for its texts."""
    config = session.config
    paths = list(trace_paths(config, problems))
    num_missing = len(paths) if config.output.overwrite else sum(not path.is_file() for path in paths)
    others = "; the others have a trace (settings not compared)" if num_missing < len(paths) else ""
    lines = [f"chains of {name}: {count} tokens from every prefix" for name, count in wanted_chains(session).items()]
    lines.append(f"to record: {num_missing} of {len(paths)} questions{others}")
    time = [time_line(config, num_missing), "chains: their time comes on top"] if config.recording.record else []
    return [*lines, *time]


def memory_lines(session: Session, num_positions: int) -> list[str]:
    """The memory of each model, and of all."""
    memory, lines = session.memory_bytes(num_positions), []
    for title, (weights, cache) in memory.items():
        lines.append(f"{title}: {_size(weights)} of weights, {_size(cache)} of KV cache at {num_positions} tokens")
    total = sum(weights + cache for weights, cache in memory.values())
    return [*lines, f"memory on {session.device}: about {_size(total)} and what the activations need"]


def download_lines(session: Session) -> list[str]:
    """A line a model whose weights are not here; none where all are."""
    lines = []
    for role in session.config.loaded_roles:
        source = session.sources[role]
        size = missing_bytes(source)
        shown = "size not known without the hub" if size is None else _size(size)
        lines += [] if size == 0 else [f"to download: {role.title} {source.name}, {shown}"]
    return lines


def time_line(config: RunConfig, num_jobs: int) -> str:
    """How long the jobs take by the first profile that knows the target itself, if each decodes its whole budget as
    slowly as plain decoding does; or that no profile says."""
    priced, target = config.pricing, config.models.target_name
    pricing = Pricing.load(priced.latency_profile, priced.latency_target)
    known = {} if target in STAND_INS or priced.latency_target is not None else pricing.entries(target)
    for profile, entry in known.values():
        ms, budget = profile.target_ms_per_token[entry], config.decoding.max_new_tokens
        hours = num_jobs * budget * ms / 3.6e6
        shown = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
        return f"time: about {shown} by {profile.title}, if all {budget} tokens were written at plain's {ms:g} ms each"
    return "time: cannot be said: no --latency_profile is of this target on this machine"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
