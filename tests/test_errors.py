"""A bad argument raises TypeError or ValueError that names it, what came and what is allowed."""

import math

import pytest
import torch

import discrete_ops as do
from discrete_ops.estimators import ESTIMATORS

inf, nan = math.inf, math.nan

L = torch.zeros(4, 3)
FUNCTIONS = {name: getattr(do, name) for name in ESTIMATORS}
COMMON = [
    ({"logits": [1.0, 2.0]}, TypeError, "logits"),
    ({"logits": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, "logits"),
    ({"logits": torch.zeros(4, 3, dtype=torch.complex64)}, TypeError, "logits"),
    ({"logits": torch.zeros(4, 3, dtype=torch.bool)}, TypeError, "logits"),
    ({"logits": torch.tensor(1.0)}, ValueError, "logits"),
    *(({"logits": x}, TypeError, "logits") for x in (L.to_sparse(), L.to_sparse_csr(), L.to_mkldnn())),
    ({"logits": torch.nested.nested_tensor([L, L[:2]], layout=torch.jagged)}, TypeError, "logits"),
    ({"logits": torch.nested.nested_tensor([L, L[:2]])}, TypeError, "logits"),
    ({"logits": torch.zeros(4, 0)}, ValueError, "logits"),
    *(({"dim": dim}, ValueError, "dim") for dim in (2, -3, 100)),
    *(({"dim": dim}, TypeError, "dim") for dim in (1.0, "1", None, True, (0, 1))),
    *(({"seed": seed}, ValueError, "seed") for seed in (-1, 2**63, 2**64)),
    *(({"seed": seed}, TypeError, "seed") for seed in (True, 1.0, "1", torch.tensor(1.0), torch.zeros(1, 1).long())),
    ({"seed": torch.tensor(1, dtype=torch.int32)}, TypeError, "seed"),
    ({"seed": torch.tensor([1, 2, 3])}, ValueError, "seed"),  # 4 rows
    ({"seed": torch.zeros(0, dtype=torch.int64)}, ValueError, "seed"),
    ({"seed": torch.zeros(1, dtype=torch.int64, device="meta")}, ValueError, "seed"),
    ({"seed": 1, "generator": torch.Generator()}, ValueError, "seed"),
    ({"generator": 1}, TypeError, "generator"),
    ({"backend": "fpga"}, ValueError, "backend"),
]
TAU = [
    *(({"tau": tau}, ValueError, "tau") for tau in (-1, -0.5, nan, inf, -inf)),
    *(({"tau": torch.tensor(tau)}, ValueError, "tau") for tau in (0.0, -1.0, nan, inf)),
    *(({"tau": tau}, TypeError, "tau") for tau in ("1", None, True, 1j, torch.tensor(True), torch.tensor(1j))),
]
#: Gumbel-Rao takes it for its limit.
ZERO = [({"tau": tau}, ValueError, "tau") for tau in (0, 0.0)]
#: Of one call: it is the logits' shape, (4, 3), that they do not go with.
PLACES = [
    *(torch.ones(shape) for shape in ((4,), (3,), (4, 3), (2, 4, 1), (3, 1), (1, 1, 1, 2))),
    torch.ones(4, 1, device="meta"),
]
VALUES = [torch.tensor([[1.0], [0.0], [1.0], [1.0]]), torch.tensor([[1.0], [nan], [1.0], [1.0]])]
PLACED = [({name: value}, ValueError, name) for name in ("tau", "sample_tau") for value in (*PLACES, *VALUES)]
SAMPLE_TAU = [({"sample_tau": case["tau"]}, error, "sample_tau") for case, error, _ in TAU + ZERO]
COUNT = [
    *(({"num_samples": n}, ValueError, "num_samples") for n in (0, -1, 2**31)),
    *(({"num_samples": n}, TypeError, "num_samples") for n in (1.0, True, "3", None)),
]
GAP = [
    *(({"gap": gap}, ValueError, "gap") for gap in (-1.0, -1e-9, nan, inf, "PI", "tau", "")),
    *(({"gap": gap}, TypeError, "gap") for gap in (None, True, torch.tensor(True), [1.0])),
    ({"gap": torch.tensor(-1.0)}, ValueError, "gap"),
]
ETA = [
    *(({"eta": eta}, ValueError, "eta") for eta in (nan, inf, -inf)),
    *(({"eta": eta}, TypeError, "eta") for eta in ("1", None, True)),
]
BETA = [
    ({"beta": b}, e, "beta") for b, e in ((nan, ValueError), (inf, ValueError), ("1", TypeError), (None, TypeError))
]
CONTROL = [({"control": control}, ValueError, "control") for control in ("hard", "", None, 1)]
RETURN_INDEX = [({"return_index": value}, TypeError, "return_index") for value in ("yes", None)]
HARD = [({"hard": hard}, TypeError, "hard") for hard in ("yes", None, 1, torch.tensor(True))]
#: Arguments of a call that no estimator has as a parameter.
OF_A_CALL = {name: HARD for name in ("gumbel_softmax", "gumbel_rao", "gst")}
OWN = {
    "gumbel_rao": COUNT,
    "gst": [*GAP, *(({"detach_perturbation": x}, TypeError, "detach_perturbation") for x in ("no", None, 0))],
    "reinmax_rao": COUNT,
    "reinmax_cv": COUNT + ETA + CONTROL,
    "mix": [
        ({"a": a}, e, "a") for a, e in ((-0.1, ValueError), (1.1, ValueError), (nan, ValueError), ("1", TypeError))
    ],
    "mve": [
        *(({"tau": tau}, ValueError, "tau") for tau in (-1, -1e-9, nan, -inf, torch.tensor(-1.0), torch.tensor(nan))),
        *(({"tau": tau}, TypeError, "tau") for tau in ("1", None, True, 1j, torch.tensor(True), torch.tensor(1j))),
    ],
    "reinmax_rk2": [*BETA, *(({"centred": x}, TypeError, "centred") for x in ("no", None, 0))],
}


#: Without a temperature of the gradient, and one whose temperature may be 0 or infinite.
WITHOUT_TAU, OWN_TAU = ("reinmax_rk2", "mix"), ("mve",)


def _errors(own_only: bool) -> list:
    errors = []
    for function in FUNCTIONS:
        cases = OWN.get(function, []) + ([] if function in WITHOUT_TAU + OWN_TAU else TAU) + SAMPLE_TAU
        cases += [] if function in (*WITHOUT_TAU, *OWN_TAU, "gumbel_rao") else ZERO
        if not own_only:
            cases = (
                cases
                + COMMON
                + OF_A_CALL.get(function, [])
                + [case for case in PLACED if _has_place(function, case[0])]
            )
        for number, case in enumerate(cases):
            errors.append(pytest.param(function, *case, id=f"{function}-{case[2]}-{number}"))
    return errors


def _has_place(function: str, arguments: dict) -> bool:
    """Whether the function takes what a case places, and refuses its values."""
    if "tau" not in arguments:
        return True
    values = any(arguments["tau"] is x for x in VALUES)
    return function not in WITHOUT_TAU and not (function in OWN_TAU and values)


@pytest.mark.parametrize(("function", "arguments", "error", "argument"), _errors(own_only=False))
def test_a_bad_argument_is_named(function, arguments, error, argument):
    with pytest.raises(error, match=rf"^{argument}\b.*allowed|^{argument}\b.*available"):
        FUNCTIONS[function](**{"logits": L, **arguments})


@pytest.mark.parametrize(("function", "arguments", "error", "argument"), _errors(own_only=True))
def test_a_bad_hyper_parameter_is_named_when_the_estimator_is_made(function, arguments, error, argument):
    with pytest.raises(error, match=rf"^{argument}\b.*allowed"):
        ESTIMATORS[function](**arguments)


def test_nonzero_gst_checks_its_arguments_too():
    for arguments, error, argument in COMMON + TAU + ZERO + SAMPLE_TAU + PLACED + GAP + HARD:
        with pytest.raises(error, match=rf"^{argument}\b"):
            do.gst(**{"logits": L, "detach_perturbation": False, **arguments})


def test_expected_gap_names_a_bad_argument():
    index = torch.zeros(4, dtype=torch.int64)
    for bad, error in [
        ([0, 0, 0, 0], TypeError),
        (index.int(), TypeError),
        (index.float(), TypeError),
        (index[:3], ValueError),
        (index[:, None], ValueError),
        (index + 3, ValueError),
        (index - 1, ValueError),
    ]:
        with pytest.raises(error, match=r"^index\b.*allowed"):
            do.expected_gap(L, bad)
    with pytest.raises(TypeError, match=r"^logits\b"):
        do.expected_gap(L.long(), index)


def test_an_unknown_backend_is_an_error_that_lists_the_known():
    for call in (
        do.set_backend,
        lambda name: do.use_backend(name).__enter__(),
        lambda name: do.reinmax(L, backend=name),
    ):
        with pytest.raises(ValueError, match=r"'fpga'.*reference"):
            call("fpga")
    do.reinmax(L)  # and the failure changed nothing
    with pytest.raises(ValueError, match="backend"):
        do.gst(L, detach_perturbation=False, backend="fpga")
