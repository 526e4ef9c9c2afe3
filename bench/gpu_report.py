"""What a GPU run says: the bars it met and missed, and its figures as tables."""

from typing import Any

Case = dict[str, Any]
ESTIMATORS = ("straight_through", "gumbel_softmax", "gst", "reinmax")


class Bar(dict[str, Any]):
    """One line of the verdict: what is asked, what was measured (None: nothing was), whether it is met."""

    def __init__(self, asked: str, measured: float | None, met: bool, unit: str = "") -> None:
        super().__init__(asked=asked, measured=measured, met=met and measured is not None, unit=unit)


def bars(results: dict[str, Any]) -> list[Bar]:
    """What the kernels are asked to reach, beside what they did."""
    figures = results["figures"]
    lines = []
    for shape, allowed in (("1Mx64", 0.75), ("64Kx1024", 0.75), ("1Mx10", 0.6)):
        for what in ("forward", *(f"{name} backward" for name in ESTIMATORS)):
            bar = 0.6 if what == "gumbel_softmax backward" else allowed
            for backend, stage in (("cuda", "bandwidth"), ("triton", "triton_bandwidth")):
                share = _best(figures.get(stage, ()), max, "share", shape=shape, what=what)
                if share is not None or backend == "cuda":
                    asked = f"{backend} {shape} {what}: share of the copy bandwidth >= {bar}"
                    lines.append(Bar(asked, share, (share or 0) >= bar))
    compared = figures.get("compared", ())
    for name in ESTIMATORS:
        ours = _best(compared, min, "replay_us", estimator=name, what="ours")
        plain = _best(compared, min, "compiled_replay_us", estimator=name, what="plain")
        ratio = plain / ours if ours and plain else None
        lines.append(
            Bar(f"3000x10 {name}, 20 calls a graph: compiled PyTorch / ours >= 1.5", ratio, (ratio or 0) >= 1.5)
        )
    rao = figures.get("gumbel_rao", ())
    ours, plain = (_best(rao, min, "eager_us", what=what) for what in ("ours", "plain"))
    ratio = plain / ours if ours and plain else None
    lines.append(
        Bar("Gumbel-Rao K = 1000, 3000x10: time of one that materialises / ours >= 10", ratio, (ratio or 0) >= 10)
    )
    ours, stgs = (_best(rao, min, "mib", what=what) for what in ("ours", "STGS"))
    beyond = ours - stgs if ours is not None and stgs is not None else None
    lines.append(Bar("the same, memory beyond STGS's = 0", beyond, beyond == 0, "MiB"))
    for timing in ("eager_us", "replay_us"):
        ours, stgs = (_best(rao, min, timing, what=what) for what in ("ours", "STGS"))
        beyond = ours - 2 * stgs if ours and stgs else None
        asked = f"Gumbel-Rao K = 1000, 3000x10, {timing[:-3]}: time beyond twice STGS <= 60"
        lines.append(Bar(asked, beyond, beyond is not None and beyond <= 60, "us"))
    for name, asked in (
        ("smoke", "cuda: every kernel agrees with the reference, indices and gradients"),
        ("parity", "cuda: the parity tests"),
        ("triton_tests", "triton: the same, and every boundary of its kernels"),
        ("gpu_tests", "cuda: graph replays draw fresh noise; two runs of one seed are bit-equal"),
        ("triton_gpu_tests", "triton: the same"),
        ("compiled", "torch.compile through Inductor gives the eager sample and gradient"),
        ("graphs", "the ensemble's step as a CUDA graph is the eager one"),
        ("memcheck", "compute-sanitizer memcheck finds nothing"),
        ("racecheck", "compute-sanitizer racecheck finds nothing"),
    ):
        stage = results["stages"].get(name)
        measured = None if stage is None or not stage["covered"] else float(stage["passed"])
        lines.append(Bar(asked, measured, bool(measured)))
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
        passed = "yes" if stage["passed"] else "no" if stage["covered"] else "-"
        lines.append(f"| {name} | {passed} | {stage['seconds']} | {said} |")
    lines += ["", "| bar | measured | met |", "|---|---:|---|"]
    for bar in bars(results):
        measured = "not measured" if bar["measured"] is None else f"{bar['measured']:.3g} {bar['unit']}".strip()
        lines.append(f"| {bar['asked']} | {measured} | {'yes' if bar['met'] else 'no'} |")
    for name, cases in results["figures"].items():
        columns = list(dict.fromkeys(key for case in cases for key in case))
        lines += ["", f"## {name}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(str(case.get(key, '')) for key in columns)} |" for case in cases]
    return "\n".join(lines) + "\n"
