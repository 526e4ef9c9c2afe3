"""The family: an estimator's settings, along which a curve is drawn."""

import math

from discrete_ops.estimators import Estimator, estimator

#: Name of a curve -> its settings in order: what a label says, and the estimator as a string.
CURVES: dict[str, dict[str, str]] = {
    "mix": {f"{a}": f"mix(a={a})" for a in (0.0, 0.25, 0.5, 0.75, 1.0)},
    "mve": {f"{tau}": f"mve(tau={tau})" for tau in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)},
    "straight_through": {f"{tau}": f"straight_through(tau={tau})" for tau in (0.5, 0.7, 1.0, 1.5, 2.0)},
    "gumbel_softmax": {f"{tau}": f"gumbel_softmax(tau={tau})" for tau in (0.2, 0.5, 1.0, 2.0)},
    "gumbel_rao": {f"{tau}": f"gumbel_rao(tau={tau})" for tau in (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)},
    "gst": {f"{tau}": f"gst(tau={tau})" for tau in (0.3, 0.5, 0.7, 1.0, 1.5)},
    "reinmax": {f"{tau}": f"reinmax(tau={tau})" for tau in (1.0, 1.3, 1.5, 2.0)},
    "reinmax_rao": {f"{tau}": f"reinmax_rao(tau={tau})" for tau in (0.3, 0.5, 0.7, 1.0, 1.5)},
    "reinmax_cv": {f"{tau}": f"reinmax_cv(tau={tau})" for tau in (0.7, 1.0, 1.3, 2.0)},
}


def every() -> dict[str, Estimator]:
    """All settings, by their strings."""
    return {text: estimator(text) for settings in CURVES.values() for text in settings.values()}
