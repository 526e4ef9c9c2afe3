"""The benchmarks' own tests: the gate lets through what has the law and the gradient, and nothing else; figures come
out as they went in. Nothing here asserts a time."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import discrete_ops as do
from bench import __main__ as command
from bench import (
    cases,
    fits,
    formulations,
    memory,
    other,
    parity,
    plain,
    plots,
    quality,
    quote,
    report,
    targets,
    timing,
)
from bench.cases import Case
from bench.speed import Speed

PEERS = [(estimator, who) for estimator, peers in formulations.PEERS.items() for who in peers]


# ---------------------------------------------------------------------------------------------------
# Parity


@pytest.mark.parametrize(("estimator", "who"), PEERS)
@pytest.mark.parametrize(("rows", "columns"), [(2000, 10), (500, 40)])
def test_peers_have_the_law_and_the_gradient(estimator: str, who: str, rows: int, columns: int) -> None:
    torch.manual_seed(0)
    theirs, ours = (formulations.of(estimator, name, 3) for name in (who, "ours"))
    assert parity.check(theirs, ours, rows, columns).fault == ""


@pytest.mark.parametrize(("estimator", "who"), [peer for peer in PEERS if peer[0] in cases.ONE_DRAW])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_peers_are_right_in_other_number_formats(estimator: str, who: str, dtype: str) -> None:
    torch.manual_seed(0)
    theirs, ours = (formulations.of(estimator, name) for name in (who, "ours"))
    assert parity.check(theirs, ours, 1000, 64, dtype=getattr(torch, dtype)).fault == ""


def test_few_bits_are_no_excuse() -> None:
    torch.manual_seed(0)
    ours = formulations.of("gst", "ours")
    assert "gradient" in parity.check(lambda x: plain.gst(x, 1.5), ours, 1000, 64, dtype=torch.bfloat16).fault


def biased(logits: Tensor) -> Tensor:
    """Draws at temperature 1.1, and has the gradient that it says."""
    p = logits.softmax(-1)
    return plain._sample((logits.detach() / 1.1).softmax(-1))[0] + p - p.detach()


def without_gradient(logits: Tensor) -> Tensor:
    sample = plain.straight_through(logits)
    sample.register_hook(lambda v: v * torch.nan)
    return sample


@pytest.mark.parametrize(
    ("wrong", "estimator", "fault"),
    [
        (biased, "straight_through", "law"),
        (lambda logits: plain.straight_through(1.001 * logits) * 1.0, "straight_through", "gradient"),
        (lambda logits: plain.gst(logits, 1.01), "gst", "gradient"),
        (lambda logits: do.gumbel_softmax(logits, 1.2, hard=True), "gumbel_softmax", "gradient"),
        (plain.straight_through, "reinmax", "gradient"),
        (without_gradient, "straight_through", "gradient"),
    ],
)
def test_the_gate_stops_what_is_wrong(wrong: formulations.Formulation, estimator: str, fault: str) -> None:
    torch.manual_seed(0)
    verdict = parity.check(wrong, formulations.of(estimator, "ours"), 2000, 10)
    assert not verdict.holds
    assert fault in verdict.fault
    assert fault == "law" or "law" not in verdict.fault


def test_what_fails_is_named_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(logits: Tensor) -> Tensor:
        raise RuntimeError("no such kernel")

    peers = {"right": plain.straight_through, "biased": biased, "broken": broken}
    made = {who: lambda draws, formulation=formulation: formulation for who, formulation in peers.items()}
    monkeypatch.setitem(formulations.PEERS, "straight_through", made)
    speed = Speed(seconds=0)
    case = Case("peers", ("straight_through",), 50, 5, ("straight_through",))
    assert [record["who"] for record in speed.measure([case])] == ["ours", "right"]
    faults = {tried["who"]: tried["fault"] for tried in speed.tried}
    assert faults["right"] == ""
    assert "law" in faults["biased"]
    assert faults["broken"] == "RuntimeError: no such kernel"


# ---------------------------------------------------------------------------------------------------
# Timing and figures


def test_formulations_take_turns() -> None:
    clock, order = [0.0], list[str]()

    def call(name: str, seconds: float) -> None:
        clock[0] += seconds
        order.append(name)

    calls = {"quick": partial(call, "quick", 1e-3), "slow": partial(call, "slow", 1.0)}
    found = timing.interleaved(calls, lambda: clock[0], seconds=60)
    assert found["quick"].low == pytest.approx(1e-3)
    assert found["slow"] == timing.Timing(1.0, 1.0, 1.0)
    blocks = [name for place, name in enumerate(order) if place == 0 or order[place - 1] != name]
    assert blocks == ["quick", "slow"] * (2 + timing.ROUNDS)


def test_exponents_are_those_of_the_times() -> None:
    assert fits.exponent((x, 3e-6 * x**0.7) for x in (1, 10, 100)) == pytest.approx(0.7)
    names = {"section": "rows", "estimator": "gst", "who": "ours"}
    records = [{**names, "rows": rows, "median": 2e-9 * rows**1.5} for rows in (1, 4000, 16000, 64000)]
    (found,) = fits.measured([*records, {**records[0], "section": "shapes"}])
    assert found["exponent"] == pytest.approx(1.5)
    assert (found["from"], found["to"]) == (4000, 64000)


def test_the_cosine_at_equal_time() -> None:
    g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    noisy = do.diagnostics.Measurement(1.0, 0.0, 5.0, 1.0, g, g)
    assert quality.at(noisy, 1) == pytest.approx(0.5**0.5)
    assert quality.at(noisy, 3) == pytest.approx(0.75**0.5)
    assert quality.at(noisy._replace(std=0.0), 0.01) == pytest.approx(1.0)


def test_memory_is_what_a_call_holds_at_once() -> None:
    size = 4 * 2**18

    def call() -> Tensor:
        x = torch.ones(2**18)
        y = x + 1
        del x
        return y + 1

    assert memory.peak(call) == pytest.approx(2 * size, rel=1e-3)


def test_every_axis_is_in_the_cases() -> None:
    for full in (False, True):
        table = cases.table(full, threads=2)
        assert {case.section for case in table} == set(report.SECTIONS)
        assert {name for case in table for name in case.estimators} == set(do.estimators.ESTIMATORS)
        assert {name for case in table for name, who in case.participants() if who != "ours"} == set(formulations.PEERS)
        assert len(set(table)) == len(table)
    shapes = {(case.rows, case.columns) for case in table}
    assert shapes >= {(4, 10), (2**20, 64), (64, 8192), (32, 128_256)}


# ---------------------------------------------------------------------------------------------------
# The report


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Of a run of small cases, through JSON."""
    names, of = ("straight_through", "gumbel_softmax", "gst", "reinmax", "gumbel_rao"), {"draws": 2}
    table = [Case("estimators", ("straight_through", "reinmax", "mix", "gumbel_rao"), 12, 5, **of)]
    table += [Case("peers", (name,), 12, 5, (name,), **of) for name in names]
    table += [Case("shapes", (name,), 4, 10, (name,), **of) for name in names]
    table += [Case("columns", names[:2], 8, columns, names[:1]) for columns in (256, 300, 400)]
    table += [Case("rows", names[:1], rows, 2) for rows in (4000, 5000, 6000)]
    table += [Case("draws", names[4:], 8, 5, names[4:], draws=draws) for draws in (10, 20, 30)]
    table += [Case("threads", names[:1], 12, 5, threads=2), Case("passes", names[:1], 12, 5, passes="backward")]
    table.append(Case("dtypes", names[:1], 12, 5, dtype="bfloat16"))
    at_once = [
        {"what": "many draws", "of": "gst", "who": who, "seconds": s} for who, s in (("calls", 4), ("num_draws", 1))
    ]
    counts = {"sample, rows of 5, float32": 8.5, "straight_through, rows of 5, float32": 9.75}
    counted = {"of": "commit abc, gcc 12", "counts": counts}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "measure", partial(memory.measure, case=Case("memory", (), 12, 5)))
        patch.setattr(memory, "RESIDENT", ())
        patch.setattr(quality, "measure", partial(quality.measure, problems=1, draws=200))
        patch.setattr(other, "measure", lambda full: at_once)
        patch.setattr(command, "_instructions", lambda instruction_set: counted)
        found = command.measure(table, "cpu", 2, False, Console(quiet=True), seconds=0.0)
    return json.loads(json.dumps(found))


def test_a_run_becomes_a_report(results: dict[str, Any], tmp_path: Path) -> None:
    text = report.write(results, tmp_path).read_text()
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles[:3] == ["Targets", "Every estimator", "Against what is used today, 3000x10"]
    assert len(titles) == 1 + len(report.SECTIONS) + 6
    assert "Instructions of the CPU kernels, as counted at commit abc, gcc 12" in titles
    assert "| 18.2 |" in text  # of a sample and its gradient
    for name in plots.PLOTS:
        assert f"]({name})" in text
        assert "<svg" in (tmp_path / name).read_text()
    for record in results["speed"]:
        assert 0 < record["low"] <= record["median"] <= record["high"]
        assert record["floor"] > 0
    quartiles = next(r for r in results["speed"] if r["section"] == "threads")
    assert f"{report.us(quartiles['low'])} to {report.us(quartiles['high'])}" in text


def test_gumbel_raos_memory_is_that_of_one_draw(results: dict[str, Any]) -> None:
    """Of the results above, which count allocations: the same on any machine."""
    verdicts = {target.what: target.verdict(results) for target in targets.TARGETS}
    assert verdicts["`gumbel_rao`, memory of 1000 draws to that of one"] == (1.0, "met")
    assert verdicts["`gst`, 16 draws of one call, time to that of 16 calls"] == (0.25, "met")
    assert verdicts["`embedding` 4096x8192, times faster than plain PyTorch"] == (None, "not measured")


def test_verdicts_go_both_ways() -> None:
    names = {"section": "shapes", "estimator": "straight_through", "rows": 30_000, "columns": 10}

    def verdicts(ours: float, plain: float, exponent: float) -> set[tuple[float | None, str]]:
        speed = [{**names, "who": who, "median": median} for who, median in (("ours", ours), ("plain", plain))]
        exponents = [{"axis": "rows", "who": who, "exponent": e} for who, e in (("ours", exponent), ("plain", 9.0))]
        found = {
            "speed": speed,
            "exponents": exponents,
            "memory": [],
            "other": [],
            "about": {"instruction_set": "avx2"},
        }
        given = [target.verdict(found) for target in targets.TARGETS]
        return {verdict for verdict in given if verdict[1] != "not measured"}

    assert verdicts(1.0, 20.0, 1.05) == {(20.0, "met"), (1.05, "met")}
    assert verdicts(1.0, 19.0, 1.06) == {(19.0, "missed"), (1.06, "missed")}


def test_quotes_are_the_results(results: dict[str, Any]) -> None:
    text = "Before\n\n<!-- bench: gst -->\n\n| old |\n|---|\n| 1 |\n\nafter\n\n<!-- bench: memory -->\n\nOld.\nWords.\n"
    filled = quote.page_text(text, results)
    assert quote.page_text(filled, results) == filled
    assert filled.startswith("Before\n\n<!-- bench: gst -->\n\n| shape |")
    assert "\n\nafter\n\n<!-- bench: memory -->\n\n`gumbel_rao` at 3000x10 holds 0.00 MiB beside its inputs" in filled
    assert "old |" not in filled
    assert "Old." not in filled
    ours = next(r for r in results["speed"] if (r["section"], r["estimator"], r["who"]) == ("peers", "gst", "ours"))
    assert f"| 12x5 | 1 | {quote.time(ours)} |" in filled


@pytest.mark.skipif(not quote.RESULTS.exists(), reason="NOT COVERED: no report is committed")
def test_pages_quote_the_committed_report() -> None:
    results = json.loads(quote.RESULTS.read_text())
    pages = {page: page.read_text() for page in quote.pages()}
    assert not [page.name for page, text in pages.items() if quote.page_text(text, results) != text]
