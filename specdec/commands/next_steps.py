"""Next steps: the commands that a run ends with, called as this one was."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from specdec.config import RunConfig
from specdec.questions.own import is_own

PUBLISHED = {"run": "failfast.py", "rank": "parse_log.py"}
ROOM = 92  # columns for a command and what it does
MODULES = {"replay": "specdec.replay", "report": "specdec.html_report"}


def next_lines(config: RunConfig) -> str:
    """What may come after a run, or a recording."""
    folder = shlex.quote(config.output.output_dir)
    if config.recording.record:
        steps = {f"{called('replay')} {folder} --grid paper": "any setting, without a model"}
    elif config.questions.shard:
        steps = {f"{called('rank')} {folder}": "once all shards are done"}
    else:
        steps = {f"{called('rank')} {folder} --wide": "all columns and differences"}
        if is_own(config.questions.dataset):
            steps[f"{called('recommend')} {folder}"] = "which drafter to serve"
        else:
            steps[f"{called('run')} --dataset_name FILE.jsonl"] = "questions of your own"
    width = max(map(len, steps))
    width = 0 if width + max(map(len, steps.values())) > ROOM else width
    lines = [f"{command.ljust(width)}  {what}" for command, what in steps.items()]
    return "Next: " + "\n      ".join(lines)


def called(verb: str) -> str:
    """A verb as it can be typed here: of the checkout's own files, where they were started, or of what is installed."""
    started = Path(sys.argv[0])
    if started.name not in PUBLISHED.values():
        return f"failfast {verb}"
    if verb in PUBLISHED:
        return f"{python()} {shlex.quote(str(started.parent / PUBLISHED[verb]))}"
    if verb in MODULES:
        return f"{python()} -m {MODULES[verb]}"
    return f"{called('run')} {verb}"


def python() -> str:
    """The interpreter, in as few words as find it again."""
    if shutil.which("python") == sys.executable:
        return "python"
    inside = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if inside.startswith("..") else inside)
