"""What a GPU run says: the bars it met and missed, and its figures as tables."""

from typing import Any

Case = dict[str, Any]
ESTIMATORS = ("straight_through", "gumbel_softmax", "gst", "reinmax")


class Bar(dict[str, Any]):
    """One line of the verdict: what is asked, what was measured (None: nothing was), whether it is met."""

    def __init__(self, asked: str, measured: float | None, met: bool, unit: str = "") -> None:
        super().__init__(asked=asked, measured=measured, met=met and measured is not None, unit=unit)


def bars(results: dict[str, Any]) -> list[Bar]:
    """The bars, of the faster backend where two were measured."""
    figures = results["figures"]
    lines = []
    for shape in ("1Mx64", "64Kx1024"):
        for what in ("forward", *(f"{name} backward" for name in ESTIMATORS)):
            share = _best(figures.get("bandwidth", ()), max, "share", shape=shape, what=what)
            lines.append(Bar(f"{shape} {what}: share of the copy bandwidth >= 0.75", share, (share or 0) >= 0.75))
    small = figures.get("small", ())
    for name in ESTIMATORS:
        ours = _best(small, min, "replay_us", estimator=name, what="ours")
        plain = _best(small, min, "compiled_replay_us", estimator=name, what="plain")
        ratio = plain / ours if ours and plain else None
        lines.append(Bar(f"3000x10 {name}, graph replay: compiled PyTorch / ours >= 3", ratio, (ratio or 0) >= 3))
    ours = _best(small, min, "eager_us", estimator="gumbel_softmax", what="ours")
    plain = _best(small, min, "plain_eager_us", estimator="gumbel_softmax", what="plain")
    ratio = plain / ours if ours and plain else None
    lines.append(Bar("3000x10 gumbel_softmax, eager: F.gumbel_softmax / ours >= 3", ratio, (ratio or 0) >= 3))
    rao = figures.get("gumbel_rao", ())
    ours, plain = (_best(rao, min, "eager_us", what=what) for what in ("ours", "plain"))
    ratio = plain / ours if ours and plain else None
    lines.append(
        Bar("Gumbel-Rao K = 1000, 3000x10: time of one that materialises / ours >= 50", ratio, (ratio or 0) >= 50)
    )
    ours, plain = (_best(rao, min, "mib", what=what) for what in ("ours", "plain"))
    ratio = plain / ours if ours and plain else None
    lines.append(Bar("the same, extra memory / ours >= 100", ratio, (ratio or 0) >= 100))
    for timing in ("eager_us", "replay_us"):
        ours, stgs = (_best(rao, min, timing, what=what) for what in ("ours", "STGS"))
        beyond = ours - 2 * stgs if ours and stgs else None
        asked = f"Gumbel-Rao K = 1000, 3000x10, {timing[:-3]}: time beyond twice STGS <= 60"
        lines.append(Bar(asked, beyond, beyond is not None and beyond <= 60, "us"))
    for name, asked in (
        ("tests", "cuda: parity with the reference on the same seed"),
        ("triton_tests", "triton: the same, and every boundary of its kernels"),
        ("gpu_tests", "graph replays draw fresh noise; two runs of one seed are bit-equal"),
        ("compiled", "torch.compile through Inductor gives the eager sample and gradient"),
        ("study", "the ensemble's step as a CUDA graph is the eager one"),
        ("memcheck", "compute-sanitizer memcheck finds nothing"),
        ("racecheck", "compute-sanitizer racecheck finds nothing"),
    ):
        stage = results["stages"].get(name)
        lines.append(Bar(asked, None if stage is None else float(stage["passed"]), bool(stage and stage["passed"])))
    return lines


def _best(cases: Any, better: Any, figure: str, **wanted: str) -> float | None:
    values = [case[figure] for case in cases if figure in case and all(case.get(k) == v for k, v in wanted.items())]
    return better(values) if values else None


def markdown(results: dict[str, Any]) -> str:
    about = results["about"]
    facts = "; ".join(f"{name} {about[name]}" for name in ("driver", "torch", "triton", "commit") if about.get(name))
    lines = [
        f"# {about['device']}, {about['date']}",
        "",
        facts,
        "",
        "| stage | passed | seconds | |",
        "|---|---|---:|---|",
    ]
    for name, stage in results["stages"].items():
        said = (stage.get("reason") or stage.get("said", "")).replace("|", "/")
        lines.append(f"| {name} | {'yes' if stage['passed'] else 'no'} | {stage['seconds']} | {said} |")
    lines += ["", "| bar | measured | met |", "|---|---:|---|"]
    for bar in bars(results):
        measured = "not measured" if bar["measured"] is None else f"{bar['measured']:.3g} {bar['unit']}".strip()
        lines.append(f"| {bar['asked']} | {measured} | {'yes' if bar['met'] else 'no'} |")
    for name, cases in results["figures"].items():
        columns = list(dict.fromkeys(key for case in cases for key in case))
        lines += ["", f"## {name}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(str(case.get(key, '')) for key in columns)} |" for case in cases]
    return "\n".join(lines) + "\n"
