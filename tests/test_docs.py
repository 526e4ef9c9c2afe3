"""The documentation is held to the code: blocks run, commands exist, links lead somewhere, figures are the files'."""

import contextlib
import importlib.util
import json
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from packaging.requirements import Requirement

import discrete_ops as do
import tasks.frontier.cli
import tasks.listops.cli
import tasks.polynomial.cli
import tasks.vae.cli

ROOT = Path(__file__).parent.parent
#: What has a page of the site, or is read in the repository.
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINKED = sorted([*PAGES, *ROOT.glob("tasks/**/*.md"), *ROOT.glob("bench/**/*.md")])
FENCED = re.compile(r"^```(?P<language>[\w-]*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
CLI = {f"tasks.{name}": getattr(tasks, name).cli for name in ("frontier", "listops", "polynomial", "vae")}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """The fenced blocks of some languages, each with the number of its first line."""
    text = page.read_text()
    found = [match for match in FENCED.finditer(text) if match["language"] in languages]
    return [(text.count("\n", 0, match.start("text")) + 1, match["text"]) for match in found]


# ---------------------------------------------------------------------------------------------------
# Python


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace; a failure names the page and the line."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace = types.ModuleType("page").__dict__
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


def test_every_estimator_has_a_page() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "estimators").glob("*.md"))
    missing = [estimator for estimator in do.estimators.ESTIMATORS if f"do.{estimator}(" not in pages]
    assert not missing


# ---------------------------------------------------------------------------------------------------
# Commands


def commands(page: Path) -> Iterator[str]:
    """The lines of shell blocks, indented commands, and commands in the text."""
    for _, block in blocks(page, "", "sh", "bash", "console", "shell"):
        yield from block.replace("\\\n", " ").splitlines()
    text = FENCED.sub("", page.read_text())
    yield from re.findall(r"^    ((?:make|python|pip|bench/\S+\.sh) .*)$", text, re.MULTILINE)
    yield from re.findall(r"`((?:make|python|pip) [^`]*)`", text)


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises where there is no such command."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case []:
            pass
        case ["make", *arguments]:
            targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert {word for word in arguments if "=" not in word} <= targets
        case ["python", "-m", module, *arguments] if module in CLI:
            for alternative in alternatives(arguments):
                parse(CLI[module], alternative, monkeypatch)
        case ["python", "-m", module, *_]:
            spec = importlib.util.find_spec(module)
            assert spec
            assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__")
        case ["python", script, *_] if script.endswith(".py"):
            assert (ROOT / script).is_file()
        case ["pip", "install", *arguments]:
            requirements = [word for word in arguments if not word.startswith("-")]
            assert requirements
            for requirement in requirements:
                assert re.fullmatch(r"\.(\[[\w,]+\])?", requirement) or Requirement(requirement)
        case [program, *_] if program.startswith(".venv/bin/"):
            assert f'"{Path(program).name}>=' in (ROOT / "pyproject.toml").read_text()
        case [script, *_] if "/" in script:
            assert (ROOT / script).is_file()
        case _:
            pytest.fail(f"no such command: {command}")


def alternatives(arguments: list[str]) -> Iterator[list[str]]:
    """``table br-1|br-2`` is two commands."""
    place = next((i for i, word in enumerate(arguments) if "|" in word), None)
    if place is None:
        yield [word for word in arguments if word != "..."]
        return
    for choice in arguments[place].split("|"):
        if choice != "...":
            yield from alternatives([*arguments[:place], choice, *arguments[place + 1 :]])


def parse(cli: types.ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command line does, without running the command."""
    with monkeypatch.context() as patch:
        patch.setattr(cli, "exit_status", lambda run: 0)
        with contextlib.suppress(SystemExit) if "--help" in arguments else contextlib.nullcontext():
            cli.main(arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=name)
def test_commands_exist(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        check(command, monkeypatch)


def test_a_command_that_is_not_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (
        "make nothing",
        "python -m tasks.vae trian",
        "python -m tasks.vae train --no-such-flag 1",
        "python examples/nothing.py",
        "pip install .[]x",
        "frobnicate",
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception, ValueError, SystemExit)):
            check(command, monkeypatch)


# ---------------------------------------------------------------------------------------------------
# Links


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text()))
    for match in re.finditer(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        yield match[1] or match[2]


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and MkDocs make them of the words of this documentation."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("https", "mailto") or parts.netloc, link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if parts.fragment:
            assert parts.fragment in anchors(target), link


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"[\w/]+\.md", navigation))
    assert pages <= named
    assert all((ROOT / "docs" / page).exists() or (ROOT / page).exists() for page in named)


# ---------------------------------------------------------------------------------------------------
# Figures


def test_quoted_rows_are_the_files() -> None:
    """``<!-- rows of FILE -->`` before a table: each of its rows stands in that file."""
    quoted = 0
    for page in PAGES:
        for file, table in re.findall(r"<!-- rows of (\S+) -->\n\n((?:\|.*\n)+)", page.read_text()):
            lines = (ROOT / file).read_text().splitlines()
            for row in table.splitlines():
                assert row in lines, f"{name(page)}: not in {file}: {row}"
            quoted += 1
    assert quoted > 5


def script(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("measured", ["bias_variance", "example_figures", "without_temperature"])
def test_measured_tables_are_those_of_the_results(measured: str) -> None:
    module = script(measured)
    found = json.loads((ROOT / "docs" / f"{measured}.json").read_text())
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text()
        assert module.page_text(text, found) == text, f"{name(page)}: python docs/{measured}.py --write"


def test_bias_and_spread_come_out_again() -> None:
    """On the first of the twenty problems, with few draws: what the estimators' page says of them."""
    module = script("bias_variance")
    f, logits = module.problem(0)

    def measured(page: str, setting: str) -> do.diagnostics.Measurement:
        return do.diagnostics.measure(module.ESTIMATORS[page][setting], f, logits, 2000, seed=0)

    rloo = module.SCORE_FUNCTIONS["rloo, 2 samples"]
    unbiased = do.diagnostics.measure_loss(lambda l, seed: rloo(f, l, seed), f, logits, 2000, seed=0)  # noqa: E741
    reinmax = measured("reinmax", "tau 1.0")
    assert unbiased.relative_std > 1.5 * reinmax.relative_std
    assert reinmax.relative_std > measured("straight_through", "tau 1.5").relative_std
    assert measured("gst", "tau 0.1, gap 1").relative_std < 0.1
    assert measured("reinmax_cv", "tau 0.1, eta 1.5, soft").cosine < -0.5


def test_citations_are_well_formed() -> None:
    entries = [
        entry for page in PAGES for _, block in blocks(page, "bibtex") for entry in re.split(r"(?m)^(?=@)", block)
    ]
    entries = [entry for entry in entries if entry.strip()]
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"@\w+\{\w+,\n", entry), entry
        assert entry.count("{") == entry.count("}"), entry
        assert all(re.search(rf"^\s*{field}\s*=", entry, re.MULTILINE) for field in ("title", "author", "year")), entry
