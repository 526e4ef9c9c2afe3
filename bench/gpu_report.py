"""What a GPU run says: what was measured, the bars it met and missed, and its figures as tables."""

from collections.abc import Iterable
from typing import Any

from .stage import verdict

Case = dict[str, Any]
ESTIMATORS = ("straight_through", "gumbel_softmax", "gst", "reinmax")
BACKWARD = tuple(f"{name} backward" for name in ESTIMATORS)
#: A case of ours that a stage must have measured: stage, and what tells it from the others.
EXPECTED: dict[str, tuple[Case, ...]] = {
    "bandwidth": tuple(
        {"shape": shape, "what": what}
        for shape in ("1Mx64", "64Kx1024", "1Mx10", "8Kx12000", "4Kx32000")
        for what in ("forward", *BACKWARD)
    ),
    "small": tuple({"estimator": name, "what": "ours"} for name in ESTIMATORS),
    "gumbel_rao": ({"what": "STGS"}, {"what": "ours"}),
    "comparator": tuple({"estimator": name, "what": "plain"} for name in ESTIMATORS),
}


def unmeasured(stage: str, cases: Iterable[Case], backend: str) -> str:
    """What a stage should have measured of ``backend`` and did not; empty: nothing is missing."""
    ours = {} if stage == "comparator" else {"backend": backend}
    cases = list(cases)
    return ", ".join(
        " ".join(wanted.values()) for wanted in EXPECTED[stage] if not any(_is(case, wanted | ours) for case in cases)
    )


class Bar(dict[str, Any]):
    """One line of the verdict: what is asked, what was measured (None: nothing was), whether it is met."""

    def __init__(self, asked: str, measured: float | None, met: bool, unit: str = "") -> None:
        super().__init__(asked=asked, measured=measured, met=met and measured is not None, unit=unit)


def at_least(least: float, asked: str, measured: float | None, unit: str = "") -> Bar:
    return Bar(f"{asked} >= {least:g}", measured, measured is not None and measured >= least, unit)


def at_most(most: float, asked: str, measured: float | None, unit: str = "") -> Bar:
    return Bar(f"{asked} <= {most:g}", measured, measured is not None and measured <= most, unit)


def bars(results: dict[str, Any]) -> list[Bar]:
    """The bars, of the backend under test, from what was measured last."""
    backend = results["about"]["backend"]
    return [*_bandwidth(results, backend), *_small(results), *_gumbel_rao(results), *_verdicts(results)]


def _bandwidth(results: dict[str, Any], backend: str) -> Iterable[Bar]:
    cases = _last(results, "figures", "bandwidth") or ()
    for shape in ("1Mx64", "64Kx1024", "1Mx10"):
        for what in ("forward", *BACKWARD):
            # Gumbel-softmax is STGS: its pull-back draws noise, the others' read and write alone.
            least = 0.6 if shape == "1Mx10" or what == "gumbel_softmax backward" else 0.75
            share = _figure(cases, "share", backend=backend, shape=shape, what=what)
            yield at_least(least, f"{shape} {what}: share of the copy bandwidth", share)


def _small(results: dict[str, Any]) -> Iterable[Bar]:
    ours, theirs = (_last(results, "figures", name) or () for name in ("small", "comparator"))
    for name in ESTIMATORS:
        replay = _figure(ours, "replay_us", estimator=name, what="ours")
        compiled = _figure(theirs, "replay_us", estimator=name, what="compiled")
        yield at_least(1.5, f"3000x10 {name}, a call in a graph: torch.compile / ours", _ratio(compiled, replay))


def _gumbel_rao(results: dict[str, Any]) -> Iterable[Bar]:
    cases, name = _last(results, "figures", "gumbel_rao") or (), "Gumbel-Rao K = 1000, 3000x10"
    replay, stgs = (_figure(cases, "replay_us", what=what) for what in ("ours", "STGS"))
    beyond = None if replay is None or stgs is None else replay - 2 * stgs
    yield at_most(60, f"{name}, in a graph: time beyond twice STGS", beyond, "us")
    ours, plain = (_figure(cases, "eager_us", what=what) for what in ("ours", "plain"))
    yield at_least(10, f"{name}, eager: time of one that materialises its draws / ours", _ratio(plain, ours))
    ours, stgs = (_figure(cases, "mib", what=what) for what in ("ours", "STGS"))
    more = None if ours is None or stgs is None else ours - stgs
    yield at_most(0, f"{name}: memory beyond STGS's", more, "MiB")


def _verdicts(results: dict[str, Any]) -> Iterable[Bar]:
    for name, asked in (
        ("smoke", "every kernel against the reference; the same indices"),
        ("parity", "parity with the reference on the same seed"),
        ("gpu_tests", "graph replays draw fresh noise; two runs of one seed are bit-equal"),
        ("memcheck", "compute-sanitizer memcheck finds nothing"),
        ("racecheck", "compute-sanitizer racecheck finds nothing"),
        ("study", "the ensemble's step as a CUDA graph is the eager one"),
        ("compiled", "torch.compile through Inductor gives the eager sample and gradient"),
        (
            "triton_tests",
            "triton: parity with the reference, the same indices, graphs, and every boundary of its kernels",
        ),
    ):
        stage = _last(results, "stages", name)
        ran = stage is not None and not stage.get("reason", "").startswith("NOT ")
        yield Bar(asked, float(stage["passed"]) if stage and ran else None, bool(stage and stage["passed"]))


def _last(results: dict[str, Any], kind: str, name: str) -> Any:
    """Of the last plan that has it: keys are "<plan> <name>"."""
    found = sorted(key for key in results[kind] if key.split()[1] == name)
    return results[kind][found[-1]] if found else None


def _is(case: Case, wanted: Case) -> bool:
    return all(case.get(key) == value for key, value in wanted.items())


def _figure(cases: Iterable[Case], figure: str, **wanted: str) -> float | None:
    return next((case[figure] for case in cases if figure in case and _is(case, wanted)), None)


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def markdown(results: dict[str, Any]) -> str:
    about = results["about"]
    named = ("backend", "driver", "torch", "triton", "python", "commit", "missing")
    facts = [f"{name} {about[name]}" for name in named if about.get(name)]
    lines = [
        f"# {about['device']}, {about['date']}",
        "",
        "; ".join([*facts, *(f"part {plan} in {seconds} s" for plan, seconds in about["seconds"].items())]),
        "",
        "| stage | | seconds | |",
        "|---|---|---:|---|",
    ]
    for name, stage in results["stages"].items():
        said = (stage.get("reason") or stage.get("said", "")).replace("|", "/")
        lines.append(f"| {name} | {verdict(stage)} | {stage['seconds']} | {said} |")
    lines += ["", "| bar | measured | met |", "|---|---:|---|"]
    for bar in bars(results):
        measured = "not measured" if bar["measured"] is None else f"{bar['measured']:.3g} {bar['unit']}".strip()
        lines.append(f"| {bar['asked']} | {measured} | {'yes' if bar['met'] else 'no'} |")
    for name, cases in results["figures"].items():
        columns = list(dict.fromkeys(key for case in cases for key in case))
        lines += ["", f"## {name}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(str(case.get(key, '')) for key in columns)} |" for case in cases]
    return "\n".join(lines) + "\n"
