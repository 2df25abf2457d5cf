"""Work: the jobs of a run, one after the other, each saved as soon as it is done. `reporter.py` says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from specdec.commands.next_steps import next_lines
from specdec.commands.reporter import Reporter
from specdec.questions.sets import Problem
from specdec.records.places import put_record
from specdec.records.record import Record, save_text
from specdec.runs.left_out import leave_out_later
from specdec.runs.run_file import TRACES, RunFile
from specdec.runs.stop import StopRequest
from specdec.views.record_text import record_text

if TYPE_CHECKING:
    from specdec.runs.against_plain import AgainstPlain
    from specdec.runs.jobs import Job
    from specdec.session import Session

log = logging.getLogger("failfast")


def run_jobs(session: Session, jobs: Sequence[Job], report: Reporter, run_file: RunFile, stop: StopRequest) -> None:
    """Work through the jobs, each record saved as soon as it is made, and rank them.

    The next turn of a question is asked after the answer of the first drafter, which is plain decoding unless it is
    left out; all drafters are given that answer.
    """
    from specdec.runs.against_plain import AgainstPlain
    from specdec.runs.jobs import TooLong, next_jobs

    against_plain, count = AgainstPlain(session), len(session.specs)
    num_jobs = sum(len(job.problem.turns) for job in jobs)
    with logging_redirect_tqdm(), tqdm(total=num_jobs, desc="question x drafter", disable=None) as bar:
        for at in range(0, len(jobs), count):
            group = list(jobs[at : at + count])
            while group:
                records = []
                for job in group:
                    stop.check()
                    records.append(_run_one(session, job, against_plain, report, run_file, stop))
                    bar.update()
                report.end_question()
                try:
                    group = next_jobs(session, group[0], records[0].output_text)
                    run_file.ask(group)
                except TooLong as error:
                    later = group[0].problem.turns[1:]
                    leave_out_later(run_file, later, error.reason)
                    bar.update(count * len(later))
                    group = []
    report.finish()


def _run_one(
    session: Session, job: Job, against_plain: AgainstPlain, report: Reporter, run_file: RunFile, stop: StopRequest
) -> Record:
    """The job's record, made, saved and reported.

    Another task may have finished a job since they were planned; nothing is computed twice if that can be seen.
    """
    from specdec.runs.jobs import finished, run_job

    run_file.job = (job.problem.question_id, job.spec.name)
    found = finished(job, session.config)
    record = against_plain.judged(found or run_job(session, job, stop.check), job.path)
    run_file.num_found += found is not None
    run_file.num_computed += found is None
    if record is not found:
        put_record(record, job.path)  # before it is graded, which can fail
    if session.config.recording.with_traces and job.spec == session.specs[0]:
        _record_beside(session, job.problem, record, stop)
    entry = report.entry(record)
    if record is not found:
        texts = [session.text_of(turn.emitted_tokens) for turn in record.rounds]
        save_text(job.path, record_text(record, entry, texts))
    report.add(record, entry)
    return record


def _record_beside(session: Session, problem: Problem, record: Record, stop: StopRequest) -> None:
    """The trace of a question that was just decoded, unless it is there already: the ceiling is reckoned from it."""
    from specdec.runs.recording import plan_traces, record_trace
    from specdec.traces.trace import save_trace

    (job,) = plan_traces(session, [problem.alone()])
    if job.is_needed:
        stop.check()
        save_trace(record_trace(session, job, stop.check, record.output_tokens), job.path)


def record_traces(session: Session, problems: Sequence[Problem], run_file: RunFile, stop: StopRequest) -> None:
    """A trace per question, each saved as soon as it is made; what is stored already is not made again."""
    from specdec.runs.jobs import TooLong
    from specdec.runs.recording import next_traces, plan_traces, record_trace
    from specdec.traces.trace import save_trace

    jobs = plan_traces(session, problems)
    left = list(jobs)
    with logging_redirect_tqdm(), tqdm(total=sum(len(one.turns) for one in problems), disable=None) as bar:
        while left:
            stop.check()
            job = left.pop(0)
            run_file.job = (job.problem.question_id, TRACES)
            trace = record_trace(session, job, stop.check) if job.stored is None or job.is_needed else job.stored
            if job.is_needed:
                save_trace(trace, job.path)
            run_file.num_found += not job.is_needed
            run_file.num_computed += job.is_needed
            bar.update()
            log.info("%s: %s", job.problem.title.capitalize(), "recorded" if job.is_needed else "has its trace")
            try:
                left[:0] = next_traces(session, job, trace.output_text)
            except TooLong as error:
                leave_out_later(run_file, job.problem.turns[1:], error.reason)
    others = "; the others had their traces" if run_file.num_found else ""
    num_traces = run_file.num_found + run_file.num_computed
    print(f"Recorded {run_file.num_computed} of {num_traces} questions{others}. They are in:")
    print(jobs[0].path.parent.parent)
    print(next_lines(session.config))
