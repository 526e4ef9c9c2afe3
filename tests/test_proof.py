"""The page of what was tried is made of the results, and says what does not hold."""

from dataclasses import asdict

import pytest

from proof import __main__ as proof
from proof import page
from proof.record import Line


def result(*lines: Line) -> dict:
    return {
        "commit": "abc",
        "date": "2026-01-01",
        "machine": "a machine",
        "seconds": 1.0,
        "lines": [*map(asdict, lines)],
    }


def test_the_page_is_what_the_results_make_it() -> None:
    text = page.PATH.read_text()
    assert page.filled(text, proof.checks()) == text


def test_a_line_that_does_not_hold_is_told_apart() -> None:
    lines = [Line("calls", 12_345, "calls", "x | y", "z", holds) for holds in (True, False, None)]
    text = page.filled("a\n<!-- fuzz -->\nearlier\n<!-- end of fuzz -->\nb\n", {"fuzz": ("How.", result(*lines))})
    for verdict in ("yes", "**no**", "**not tried**"):
        assert f"| calls | 12,345 calls | x \\| y | z | {verdict} |\n" in text
    assert text.split("<!--")[0] == "a\n"
    assert text.split("-->")[-1] == "\nb\n"
    assert "earlier" not in text
    assert "-->\nHow.\n\nCommit abc" in text


def test_a_check_without_a_place_is_named() -> None:
    with pytest.raises(ValueError, match="has no one place for fuzz"):
        page.filled("nothing", {"fuzz": ("How.", None)})


def test_the_command_fails_where_a_line_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for holds in (True, None, False):
        monkeypatch.setattr(proof, "run", lambda name, short, holds=holds: result(Line("it", 1, "case", "", "", holds)))
        assert proof.main(["fuzz", "--short"]) == (holds is False)
    assert "does not hold: it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("commit", "holds", "is_kept"),
    [
        ("abc", True, True),
        ("abc", None, True),
        ("abc", False, False),
        ("abc-dirty", True, False),
        ("unknown", True, False),
    ],
)
def test_what_this_commit_has_passed_is_not_repeated(
    commit: str, holds: bool | None, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof.jsonl, "commit", lambda: commit)
    monkeypatch.setattr(proof, "read", lambda name: {**result(Line("it", 1, "case", "", "", holds)), "commit": commit})
    assert (proof.kept("fuzz") is not None) == is_kept
    monkeypatch.setattr(proof.jsonl, "commit", lambda: "another")
    assert proof.kept("fuzz") is None
