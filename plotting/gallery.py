"""The gallery: every figure, from one folder of results, and a page that shows them. `make gallery` makes that folder.

python -m plotting.gallery results/gallery --out docs/gallery
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plotting import (
    acc_pro_len_cdf,
    acc_rate_over_time,
    calibration,
    cli,
    concavity_intuition,
    consecutive_easy_cdf,
    difficulty_intuition,
    frequency_insights_dataset,
    latency_breakdown_by_model,
    microbenchmark_maxlen,
    microbenchmark_thresholds,
    modelled_vs_measured,
    oracle_gap,
    pareto,
    pretty_table,
    theoretical_analysis,
    threshold_insights_dataset,
    visualize_trajectory,
)
from specdec.commands.flags import StrictParser
from specdec.errors import UserError, exit_status

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAPER = DOCS / "reference" / "failfast_paper.json"
FAILFAST, AR, DLLM = "dllm_0.05_df_0.45_60_10", "ar_None_sf_8", "dllm_0.05_sf_8"
SEVERAL = (
    *("ar_None_sf_4", AR, "ar_None_sf_15", "dllm_0.05_sf_4", DLLM, "dllm_0.05_sf_12", "dllm_0.05_sf_25"),
    *("dllm_0.9_sf_8", "dllm_0.05_df_0.2_60_10", FAILFAST, "dllm_0.05_df_0.45_20_10", "dllm_0.05_df_0.9_60_10"),
)
QUESTION = "13"
REPLAYED, TRACES, LIVE, PROFILE = "{}/replayed", "{}/traces", "{}/live", "{}/profile/this_machine.json"
GPU = "{docs}/results/2026-11-27-gpu-engine.json"
NO_LOOPS, REFERENCE = "--without_degenerate", ("--reference", "{docs}/reference/failfast_paper.json")
FIRST = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15")


@dataclass(frozen=True)
class Picture:
    """One figure of the gallery: its command, whose "{}" is the folder of results and "{docs}" that of
    this project's documents, and what it says in a line."""

    command: Callable[[Sequence[str]], int]
    arguments: tuple[str, ...]
    caption: str
    suffix: str = ".png"

    @property
    def name(self) -> str:
        return self.command.__module__.rpartition(".")[2]


PICTURES = (
    Picture(
        acc_rate_over_time.main,
        (REPLAYED, "--drafters", AR, FAILFAST, "--question_ids", QUESTION),
        "One answer from left to right: the rate at which each round's draft is accepted, and what was drafted.",
    ),
    Picture(
        visualize_trajectory.main,
        (REPLAYED, "--drafters", FAILFAST, "--question_ids", QUESTION),
        "The same answer, token by token.",
    ),
    Picture(
        difficulty_intuition.main,
        (REPLAYED, "--drafters", FAILFAST, "--question_ids", *FIRST),
        "Where texts are easy and where the target had to correct the draft.",
    ),
    Picture(
        acc_pro_len_cdf.main,
        (REPLAYED, "--drafters", AR, DLLM, FAILFAST),
        "How long drafts are, and how much of them is accepted.",
    ),
    Picture(
        consecutive_easy_cdf.main,
        (REPLAYED, "--drafters", AR, DLLM, FAILFAST),
        "How many tokens come in a row that the target need not correct.",
    ),
    Picture(
        frequency_insights_dataset.main,
        (REPLAYED, NO_LOOPS),
        "Speedup and acceptance over the static draft length.",
    ),
    Picture(
        threshold_insights_dataset.main,
        (REPLAYED, NO_LOOPS, *REFERENCE),
        "Speedup, acceptance and passes over the unmask threshold; in grey the paper's 32B target on MATH.",
    ),
    Picture(
        microbenchmark_thresholds.main,
        (REPLAYED, NO_LOOPS, *REFERENCE),
        "FailFast's speedup over tau; in grey the paper's.",
    ),
    Picture(
        microbenchmark_maxlen.main,
        (REPLAYED, NO_LOOPS, *REFERENCE),
        "FailFast's speedup over N_max; in grey the paper's.",
    ),
    Picture(
        concavity_intuition.main,
        (REPLAYED, NO_LOOPS, *REFERENCE),
        "What more passes buy: acceptance over passes per round; in grey the paper's.",
    ),
    Picture(
        theoretical_analysis.main,
        (REPLAYED, NO_LOOPS),
        "Speculative decoding in closed form, and its sawtooth for block drafting, beside what was reached.",
    ),
    Picture(
        pareto.main,
        (REPLAYED, NO_LOOPS),
        "Acceptance length over passes per round, with lines of equal speedup.",
    ),
    Picture(
        oracle_gap.main,
        (REPLAYED, NO_LOOPS, "--trace_dir", "{}", "--drafters", *SEVERAL),
        "How near each setting comes to the clairvoyant, and where the rest of its time is lost.",
    ),
    Picture(
        latency_breakdown_by_model.main,
        (
            *(REPLAYED, NO_LOOPS, "--drafters", AR, DLLM, FAILFAST),
            *("--latency_target", "Qwen2.5-7B-Instruct", "Qwen2.5-14B-Instruct", "Qwen2.5-32B-Instruct"),
        ),
        "Where the modelled time of an answer goes, as if for three targets.",
    ),
    Picture(
        calibration.main,
        (TRACES, "--chains", "ar", "dllm_0.05", "dllm_0.9"),
        "Whether drafters' confidences mean what they say.",
    ),
    Picture(
        modelled_vs_measured.main,
        (LIVE, GPU, "--latency_profile", PROFILE, "--latency_target", "bundled"),
        "The latency model against the clock: the bundled models on the CPU that drew the gallery, and real shapes "
        "with the paper's acceptance on a GPU.",
    ),
    Picture(
        pretty_table.main,
        (REPLAYED, NO_LOOPS, "--drafters", *SEVERAL),
        "A ranking as a table; `--out table.tex` gives it for LaTeX.",
        ".md",
    ),
)
# Taken in a browser (tests/browser/), not drawn here.
REPORT = {
    "report.png": "The ranking and its figures.",
    "report_trajectory.png": "One question under two drafters, side by side.",
}
HEAD = """# Gallery

Every figure of `plotting/`, drawn by `make gallery` from the bundled models on the 48 bundled questions (at most 256
tokens; the paper's 64 settings replayed from one recording, and a live run of 12 questions for what is measured). The
bundled models are small and their questions short: this shows what the figures look like and how the drafters of this
repository behave, not the paper's results, whose published numbers are the grey lines (`docs/reference/`).
"""


def draw(results: str, folder: Path) -> list[str]:
    """Make every picture; the names of the files. Raises UserError with the first that fails."""
    made = []
    for picture in PICTURES:
        out = folder / f"{picture.name}{picture.suffix}"
        arguments = [one.replace("{}", results).replace("{docs}", str(DOCS)) for one in picture.arguments]
        status = picture.command([*arguments, "--out", str(out)])
        if status:
            raise UserError(f"{picture.name} could not be drawn: the line above says why")
        made.append(out.name)
    return made


def page(folder: Path) -> str:
    """The gallery's Markdown: each picture under its caption, then what a browser shows of the report."""
    parts = [HEAD]
    for picture in PICTURES:
        name = f"{picture.name}{picture.suffix}"
        shown = f"![{picture.caption}]({name})" if picture.suffix == ".png" else f"[{name}]({name})"
        parts.append(f"## {picture.name}\n\n{picture.caption}\n\n{shown}\n")
    shots = [f"![{caption}]({name})\n\n{caption}\n" for name, caption in REPORT.items() if (folder / name).exists()]
    if shots:
        parts += ["## The HTML report\n\n`python -m specdec.html_report` writes it.\n", *shots]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which)."""

    def work() -> None:
        parser = StrictParser(prog="plotting.gallery", description=__doc__)
        parser.add_argument("results", metavar="RESULTS", help="the folder that make gallery fills")
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the pictures")
        options = parser.parse_args(arguments)
        draw(options.results, options.out)
        cli.write(options.out / "README.md", page(options.out).encode())

    return exit_status("plotting.gallery", work)


if __name__ == "__main__":
    sys.exit(main())
