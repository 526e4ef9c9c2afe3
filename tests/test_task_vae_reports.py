"""What is committed under tasks/results and said in docs/reproduction.md is what the committed lines say."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from tasks.common import papers
from tasks.listops import results as listops_results
from tasks.listops import tables
from tasks.vae import properties, report, results, study
from tasks.vae.tables import TABLES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tasks" / "results"
REPORTED = sorted(name for name in study.FED if (RESULTS / f"{name}.jsonl").exists())


def rows_of(path: Path) -> list[str]:
    """The rows of a Markdown file's tables."""
    return [line for line in path.read_text().splitlines() if line.startswith("|") and "---" not in line]


@pytest.mark.parametrize("name", REPORTED)
def test_report_is_of_the_committed_lines(name: str, tmp_path: Path) -> None:
    table = study.FED[name]
    found = study.shown(results.read(RESULTS, name), table, {"data": "mnist"})
    report.write(name, table.title, found, tmp_path, Console(quiet=True), compare=name in TABLES)
    assert (tmp_path / f"{name}.md").read_text() == (RESULTS / f"{name}.md").read_text()


def test_listops_report_is_of_the_committed_lines(tmp_path: Path) -> None:
    committed = RESULTS / "listops" / "gst-6-small.md"
    found = listops_results.read(committed.with_suffix(".jsonl"))
    tables.show("gst-6", found, tmp_path / committed.name, Console(quiet=True))
    assert (tmp_path / committed.name).read_text() == committed.read_text()


def test_properties_table_is_what_the_command_writes(tmp_path: Path) -> None:
    properties.report(tmp_path, Console(quiet=True))
    assert (tmp_path / "gst-1.md").read_text() == (RESULTS / "gst-1.md").read_text()


def test_lines_are_of_cells_that_exist() -> None:
    for name, table in study.FED.items():
        for r in results.read(RESULTS, name):
            assert table.has(r.column, r.method), (name, r)
            assert r.split in table.splits, (name, r)
            config = study.STUDIES[table.study].config(r.column, r.method)
            assert r.settings == config.settings, (name, r)  # of today's experiment, not of an earlier one
            assert r.kl is not None or table.by_epoch or r.failed, (name, r)


def test_document_quotes_the_reports() -> None:
    """Each row of a table in docs/reproduction.md that has a report's header stands so in a report."""
    reported = {row for path in RESULTS.rglob("*.md") for row in rows_of(path)}
    quoted = []
    for block in re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / "reproduction.md").read_text(), re.M):
        header, _, *rows = block.splitlines()
        if header in reported:
            quoted.append(header)
            assert [row for row in rows if row not in reported] == []
    assert len(quoted) >= 11


def test_document_gives_every_claim_a_verdict() -> None:
    claims = [
        row.split("|")[1:-1] for row in rows_of(ROOT / "docs" / "reproduction.md") if re.match(r"\| (GST|BR): ", row)
    ]
    assert len(claims) >= 17
    for claim in claims:
        assert re.match(r" (holds|does not|in part|not run)\b", claim[1]), claim
        assert len(claim[2].strip()) > 10, claim


def test_papers_names_are_in_the_document() -> None:
    text = (ROOT / "docs" / "reproduction.md").read_text()
    for name in papers.names():
        paper, _, number = name.split()
        assert re.search(rf"{paper} Tables?[^|\n]*\b{number}\b", text), name
