"""The gallery: every figure, from one folder of results, and a page that shows them. `make gallery` makes that folder.

python -m plotting.gallery results/gallery --out docs/gallery
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from PIL import Image

from plotting import cli
from specdec.commands.flags import StrictParser, program_name, status_as
from specdec.errors import UserError

NUM_COLOURS = 256
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
TARGETS = ("--latency_target", "Qwen2.5-7B-Instruct", "Qwen2.5-14B-Instruct", "Qwen2.5-32B-Instruct")
FIRST = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15")


@dataclass(frozen=True)
class Picture:
    """One figure of the gallery: its command, whose arguments' "{}" is the folder of results and "{docs}" that of
    this project's documents, and what it says in a line. `variant`: of several by one command."""

    name: str
    arguments: tuple[str, ...]
    caption: str
    suffix: str = ".png"
    variant: str = ""

    @property
    def title(self) -> str:
        return "_".join(filter(None, (self.name, self.variant)))

    @property
    def file(self) -> str:
        return self.title + self.suffix


PICTURES = (
    Picture("acc_rate_over_time", (REPLAYED, "--drafters", AR, FAILFAST, "--question_ids", QUESTION),
            "One answer from left to right: the rate at which each round's draft is accepted, and what was drafted."),
    Picture("visualize_trajectory", (REPLAYED, "--drafters", FAILFAST, "--question_ids", QUESTION),
            "The same answer, token by token."),
    Picture("accepted_trajectory", (REPLAYED, "--drafters", FAILFAST, "--question_ids", QUESTION),
            "The same without what was rejected: the answer as it was kept."),
    Picture("difficulty_intuition", (REPLAYED, "--drafters", FAILFAST, "--question_ids", *FIRST),
            "Where texts are easy and where the target had to correct the draft."),
    Picture("acc_pro_len_cdf", (REPLAYED, "--drafters", AR, DLLM, FAILFAST),
            "How long drafts are, and how much of them is accepted."),
    Picture("acceptance_by_position", (REPLAYED, "--drafters", AR, DLLM, FAILFAST),
            "How often a draft's tokens are accepted by their place in it, and how many of a draft."),
    Picture("consecutive_easy_cdf", (REPLAYED, "--drafters", AR, DLLM, FAILFAST),
            "How many tokens come in a row that the target need not correct."),
    Picture("frequency_insights_dataset", (REPLAYED, NO_LOOPS),
            "Speedup and acceptance over the static draft length."),
    Picture("threshold_insights_dataset", (REPLAYED, NO_LOOPS, *REFERENCE),
            "Speedup, acceptance and passes over the unmask threshold; in grey the paper's 32B target on MATH."),
    Picture("threshold_insights_problem", (REPLAYED, "--question_ids", *FIRST[:2], QUESTION),
            "The same of single questions: what is best for one is not for another."),
    Picture("microbenchmark_thresholds", (REPLAYED, NO_LOOPS, *REFERENCE),
            "FailFast's speedup over tau; in grey the paper's."),
    Picture("microbenchmark_maxlen", (REPLAYED, NO_LOOPS, *REFERENCE),
            "FailFast's speedup over N_max; in grey the paper's."),
    Picture("concavity_intuition", (REPLAYED, NO_LOOPS, *REFERENCE),
            "What more passes buy: acceptance over passes per round; in grey the paper's."),
    Picture("concavity_intuition_wrapped", (REPLAYED, NO_LOOPS),
            "The same for a narrow column, without the AR drafter."),
    Picture("theoretical_analysis", (REPLAYED, NO_LOOPS),
            "Speculative decoding in closed form, and its sawtooth for block drafting, beside what was reached."),
    Picture("pareto", (REPLAYED, NO_LOOPS),
            "Acceptance length over passes per round, with lines of equal speedup."),
    Picture("oracle_gap", (REPLAYED, NO_LOOPS, "--trace_dir", "{}", "--drafters", *SEVERAL),
            "How near each setting comes to the clairvoyant, and where the rest of its time is lost."),
    Picture("latency_breakdown_by_model", (REPLAYED, NO_LOOPS, "--drafters", AR, DLLM, FAILFAST, *TARGETS),
            "Where the modelled time of an answer goes, as if for three targets."),
    Picture("load", ("{docs}/results/2026-11-28-load.json",),
            "Which drafter under which load: speedup by requests at a time, simulated by an H100's bounds as if for a "
            "7B target, and the acceptance length that breaks even (docs/load.md)."),
    Picture("load", ("{docs}/results/2026-11-28-load-smollm2.json",),
            "The same of SmolLM2's drafters.", variant="smollm2"),
    Picture("calibration", (TRACES, "--chains", "ar", "dllm_0.05", "dllm_0.9"),
            "Whether drafters' confidences mean what they say."),
    Picture("modelled_vs_measured", (LIVE, GPU, "--latency_profile", PROFILE, "--latency_target", "bundled"),
            "The latency model against the clock: the bundled models on the CPU that drew the gallery, and real shapes "
            "with the paper's acceptance on a GPU."),
    Picture("training_curves", ("{docs}/results/2026-11-28-heads-training.json",),
            "Heads in training: what the real loop accepts on held-back questions, beside how often a draft's tokens "
            "are right after the target's own text (EAGLE-3's and DSpark's later ones after those before them)."),
    Picture("head_to_head", ("{docs}/results/2026-11-28-heads.json",),
            "What a round brings over what it costs: drafters of one target that were trained alike, at every static "
            "length, and at the length and the policies that were best on other questions (docs/heads.md)."),
    Picture("pretty_table", (REPLAYED, NO_LOOPS, "--drafters", *SEVERAL),
            "A ranking as a table; `--out table.tex` gives it for LaTeX (booktabs, graphicx), `--layout datasets` with "
            "the data sets as columns, `--columns` those quantities alone.", ".md"),
)  # fmt: skip
# Drawn from what does not come of this project's results: figure -> what.
ELSEWHERE = {
    "eagle_training": "the log of SpecForge's training of an EAGLE-3 drafter",
    "trees": "a ranking of trees over a trained head (docs/trees.md)",
}
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

Every figure is a command: `failfast plot NAME RESULTS --out figure.pdf` (or .png, .svg). All of them take

- `--width 3.3` for a column of a paper (also `--height`, in inches; letters get smaller, labels are broken, panels that
  find no room beside each other stand below each other), `--dpi`, `--font`, `--font_size`;
- `--no_note` for no line below, `--title TEXT` or `--no_title`: in a paper both are the caption's;
- `--data figure.csv`: what is drawn, a row per mark, bar or cell: panel, series, x, y, low and high (the interval of
  y), x_low and x_high (that of x, or where a bar or cell begins and ends), and the name of a mark.

A colour is a kind of drafter, the same in the HTML report; lighter is a shorter draft, darker a longer one. Names that
find no room beside their points are left out; `--data` has them. Axes are set by values, so that a wide interval may go
beyond them.
"""


def draw(results: str, folder: Path) -> None:
    """Make every picture. Raises UserError with the first that fails."""
    for picture in PICTURES:
        arguments = [one.replace("{}", results).replace("{docs}", str(DOCS)) for one in picture.arguments]
        if import_module(f"plotting.{picture.name}").main([*arguments, "--out", str(folder / picture.file)]):
            raise UserError(f"{picture.name} could not be drawn: the line above says why")
        if picture.suffix == ".png":
            cli.write(folder / picture.file, in_few_colours((folder / picture.file).read_bytes()))


def in_few_colours(png: bytes) -> bytes:
    """The same picture in NUM_COLOURS colours: a third of the bytes, in a repository that keeps every version."""
    found = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(NUM_COLOURS, Image.Quantize.MAXCOVERAGE, 3, dither=Image.Dither.NONE)
    few.save(found, "PNG", optimize=True)
    return found.getvalue()


def page(folder: Path) -> str:
    """The gallery's Markdown: each picture under its caption, then what a browser shows of the report."""
    parts = [HEAD]
    for picture in PICTURES:
        name = picture.file
        shown = f"![{picture.caption}]({name})" if picture.suffix == ".png" else f"[{name}]({name})"
        parts.append(f"## {picture.title}\n\n{picture.caption}\n\n{shown}\n")
    parts += [f"## {name}\n\nDrawn from {what}, of which there is none here.\n" for name, what in ELSEWHERE.items()]
    shots = [f"![{caption}]({name})\n\n{caption}\n" for name, caption in REPORT.items() if (folder / name).exists()]
    if shots:
        parts += ["## The HTML report\n\n`python -m specdec.html_report` writes it.\n", *shots]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which)."""

    def work() -> None:
        parser = StrictParser(prog=program_name("plotting.gallery"), description=__doc__)
        parser.add_argument("results", metavar="RESULTS", help="the folder that make gallery fills")
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the pictures")
        options = parser.parse_args(arguments)
        draw(options.results, options.out)
        cli.write(options.out / "README.md", page(options.out).encode())

    return status_as("plotting.gallery", work)


if __name__ == "__main__":
    raise SystemExit(main())
