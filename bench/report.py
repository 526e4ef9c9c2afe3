"""The report of a run: what the ops cost, what they are worth, whether the targets are met."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.common import files
from tasks.common.sheets import Sheet, number

from . import gpu_report, plots, speed_tables, targets
from .quality import BUDGETS
from .speed_tables import SECTIONS, name_of, us

METHOD = """\
Each figure is a median, with the quartiles in brackets. The formulations of a row took turns in one run, on the same
logits, in blocks of calls after one that does not count, or of one call that lasts as long (`bench/timing.py`); one
thread in the processor's time, more by the clock. `today`: `F.gumbel_softmax(hard=True)`, the package `reinmax`, and
for the others PyTorch as one writes it (`bench/plain.py`). `tuned`: the fastest way that was found to write it
(`bench/tuned.py`). `floor`: the bytes that have to be read and written, at the speed of a copy of the logits in the
same run, whose size decides which cache that is. "fails": it does not have the law or the gradient, and is not timed
(`bench/parity.py`). Forward + backward, float32, one thread, where no column says otherwise."""

ELSEWHERE = """\
Of other kinds of call there are tables of their own: `python -m bench.embedding`, `bench.many_draws`,
`bench.linear_embedding`, `bench.ragged` and `bench.study_step`. `python -m tasks.vae table gst-5` measures the rows of
GST's Table 5, memory and time of training a VAE with Gumbel-softmax, GST and Gumbel-Rao."""


def sheets(results: dict[str, Any]) -> Iterator[Sheet]:
    """The tables, those that a reader looks for first before the others."""
    yield _targets(results)
    for section in SECTIONS:
        if (sheet := speed_tables.sheet(section, results)) is not None:
            yield sheet
    yield _exponents(results)
    yield _memory(results)
    yield _quality(results)
    if results["other"]:
        yield _other(results)
    if results["instructions"]["counts"]:
        yield _instructions(results)
    yield _parity(results)


def markdown(results: dict[str, Any]) -> str:
    about = results["about"]
    facts = [f"{name} {about[name]}" for name in ("instruction_set", "torch", "commit", "threads") if about.get(name)]
    seconds = f"{'all cases' if about['full'] else 'the cases of five minutes'} in {about['seconds']:.0f} s"
    parts = ["# What the ops cost and are worth", f"{about['device']}; {'; '.join(facts)}; {about['date']}; {seconds}."]
    parts.append(METHOD)
    for sheet in sheets(results):
        parts += [f"## {sheet.title}", "\n".join(sheet.markdown())]
    parts += [ELSEWHERE, "\n".join(f"![{Path(name).stem}]({name})" for name in plots.PLOTS)]
    return "\n\n".join(parts) + "\n"


def write(results: dict[str, Any], folder: Path) -> Path:
    """The Markdown file and its pictures; the file's path."""
    plots.draw(results, folder)
    path = folder / "report.md"
    files.write_text(path, markdown(results))
    return path


def _targets(results: dict[str, Any]) -> Sheet:
    rows = []
    for target in targets.TARGETS:
        found, verdict = target.verdict(results)
        rows.append((target.what, target.asked(), number(found), verdict))
    nothing: dict[str, Any] = {"about": {"backend": "cuda"}, "figures": {}, "stages": {}}
    rows += [
        (f"GPU, by `make gpu`: {bar['asked']}", "", number(bar["measured"]), "not measured")
        for bar in gpu_report.bars(nothing)
    ]
    return Sheet("Targets", ("what", "asked", "found", "verdict"), rows)


def _exponents(results: dict[str, Any]) -> Sheet:
    rows = [
        (f"`{r['estimator']}`", r["who"], r["axis"], f"{r['from']} to {r['to']}", f"{r['exponent']:.2f}")
        for r in results["exponents"]
    ]
    return Sheet("How time grows: fitted exponents", ("estimator", "who", "in", "range", "exponent"), rows, 3)


def _memory(results: dict[str, Any]) -> Sheet:
    """Of the allocator; of the system for what runs in processes of its own."""
    rows = [
        (name_of(r), r["who"], f"{r['rows']}x{r['columns']}", kib(r["bytes"]), kib(r["bytes"] - r["held"]))
        for r in results["memory"]
    ]
    rows += [
        (f"`gumbel_rao`, {r['draws']} draws: resident", r["who"], "3000x10", kib(r["bytes"]), "-")
        for r in results["resident"]
    ]
    header = ("estimator", "who", "shape", "peak beside inputs, KiB", "beyond sample and gradient")
    return Sheet("Memory", header, rows, 3)


def _quality(results: dict[str, Any]) -> Sheet:
    rows = [
        (
            f"`{r['estimator']}`",
            r["who"],
            f"{1e9 * r['seconds']:.0f}",
            f"{r['relative_bias']:.2f}",
            f"{r['relative_std']:.2f}",
            *(f"{r[f'cosine {budget}']:.3f}" for budget in BUDGETS),
        )
        for r in results["quality"]
    ]
    header = ("estimator", "who", "ns a sample", "bias", "spread", *(f"cosine in the time of {b}" for b in BUDGETS))
    return Sheet("What a gradient is worth: its cosine with the exact one at equal time", header, rows, 2)


def _other(results: dict[str, Any]) -> Sheet:
    rows = [
        (
            r["what"],
            r["of"],
            r["who"],
            us(r["seconds"]) if "seconds" in r else "-",
            kib(r["bytes"]) if "bytes" in r else "-",
        )
        for r in results["other"]
    ]
    return Sheet("Tables and many draws", ("what", "of", "who", "us", "KiB beside inputs, result, gradients"), rows, 3)


def _instructions(results: dict[str, Any]) -> Sheet:
    counted = results["instructions"]
    rows = [(name, f"{count:.1f}") for name, count in counted["counts"].items()]
    title = f"Instructions of the CPU kernels, as counted at {counted['of']}"
    return Sheet(title, ("kernel", "an element of the sample, or of a draw's gradient"), rows)


def _parity(results: dict[str, Any]) -> Sheet:
    rows = [
        (
            name_of(r),
            r["who"],
            f"{r['rows']}x{r['columns']}",
            r["dtype"],
            f"{r['p']:.2g}",
            f"{r['sigmas']:.1f}",
            r["fault"] or "timed",
        )
        for r in results["parity"]
    ]
    header = ("estimator", "who", "shape", "dtype", "law: p", "gradient: standard errors from ours", "")
    return Sheet("Parity: what a formulation must show before it is timed", header, rows, 4)


def kib(count: int) -> str:
    return f"{count / 1024:.0f}"
