"""Estimators and functions as words: what they print, are read from, are saved as, and say when asked for help."""

import inspect
import io
import pickle
import re

import numpy as np
import pytest
import torch
from helpers import CASES, make

import discrete_ops as do
from discrete_ops.estimators import ESTIMATORS


@pytest.mark.parametrize(
    "text",
    [
        "gst(tau=0.5, gap=1.0)",
        "gst(tau=0.5, gap='pi')",
        "straight_through(tau=1.0)",
        "reinmax_cv(tau=0.7, eta=1.5, num_samples=10, control='gumbel')",
        "gumbel_rao(tau=1, num_samples=5, sample_tau=2.0)",
        "reinmax_rk2(beta=-0.25, centred=True)",
        "gst(tau=1e-05, gap=0.0, detach_perturbation=False)",
    ],
)
def test_an_estimator_is_read_from_what_it_prints(text):
    assert str(do.estimator(text)) == text
    assert do.estimator(str(do.estimator(text))) == do.estimator(text)


@pytest.mark.parametrize("name", CASES)
def test_every_estimator_round_trips(name):
    estimator = make(name, 0.3)
    assert do.estimator(str(estimator)) == estimator
    assert do.estimator(estimator) is estimator
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    file = io.BytesIO()
    torch.save({"estimator": estimator}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["estimator"] == estimator


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_bare_name_has_the_functions_defaults(name):
    assert do.estimator(name) == do.estimator(f" {name}( ) ") == ESTIMATORS[name]()


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nope",
        "gst(",
        "gst)",
        "gst(0.5)",
        "gst(foo=1)",
        "gst(tau=x)",
        "gst(tau=)",
        "gst(tau=1,)",
        "gst(tau=1, tau=2)",
        "gst(tau=__import__('os'))",
        "gst(tau=-1)",
        "gst(tau='1')",
        "gst(gap='e')",
        "GST(tau=1)",
        "gst()()",
        3,
        None,
    ],
)
def test_a_bad_description_is_named(bad):
    with pytest.raises((TypeError, ValueError), match=r"(estimator|tau|gap): got"):
        do.estimator(bad)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_help_stands_alone(name):
    function = getattr(do, name)
    parameters = inspect.signature(function).parameters
    assert {"logits", "dim", "sample_tau", "mask", "generator", "seed", "return_index", "backend"} <= set(parameters)
    described = re.findall(r"^    (\w+): ", function.__doc__, re.MULTILINE)
    assert [word for word in described if word in parameters] == list(parameters)
    for section in ("Args:", "Returns:", "Raises:"):
        assert function.__doc__.count(section) == 1
    for word in {"temperature", "hard", "num_samples", "coefficient", "estimator", "options", "tau"} - set(parameters):
        for call in (function, ESTIMATORS[name]()):
            with pytest.raises(TypeError) as error:
                call(torch.zeros(2, 3), **{word: 1.0})
            said = f"{name}: got an unexpected keyword argument '{word}', allowed: {', '.join(parameters)}"
            assert str(error.value) == said
    assert all(parameter.annotation is not parameter.empty for parameter in parameters.values())


def test_numbers_of_other_kinds_print_as_numbers():
    e = do.estimators
    assert str(e.GumbelRao(np.float32(0.5), np.int64(3))) == "gumbel_rao(tau=0.5, num_samples=3)"
    assert str(e.ReinMaxRK2(torch.tensor(0.1), np.bool_(True))) == "reinmax_rk2(beta=0.1, centred=True)"
    assert str(e.GST(torch.tensor([[0.1], [0.2]]))) == "gst(tau=<tensor of (2, 1)>, gap=1.0)"
    assert str(e.ReinMaxRK2(torch.tensor(123456789012345678))) == "reinmax_rk2(beta=123456789012345678)"
    with pytest.raises(ValueError, match="estimator: got '<tensor of"):
        do.estimator(str(e.GST(torch.tensor([[0.1], [0.2]]))))
