"""Docstrings that stand alone: what all estimators share is explained once, here."""

import inspect
import re
from collections.abc import Callable
from textwrap import fill, indent
from typing import Any, TypeVar, get_type_hints

from .call import DEFAULTS, Options

_TYPES = get_type_hints(Options)

_ARGUMENTS = {
    "logits": """
        unnormalised log-probabilities, ``(..., N)`` with the N categories along ``dim``; float64, float32, float16 or
        bfloat16, any strides, empty batches too. ``-inf`` masks a category: it is never sampled and gets no gradient.
        A row masked whole gives a zero row and zero gradient. NaN or +inf in a row gives a NaN row.""",
    "tau": """
        temperature of the gradient: a positive number, or a tensor that broadcasts against the logits, 1 in ``dim``.
        Its own gradient, that of the soft sample, is given where there is one: straight_through, gumbel_softmax,
        gumbel_rao and gst. Under ``torch.compile`` annealing a tensor recompiles nothing, a float once, at its first
        change. On a GPU a tensor is not checked, for that would wait for the device: tau <= 0 there gives NaN.""",
    "num_samples": """
        K, the Monte-Carlo draws of the gradient; time grows with it, memory does not.""",
    "draws": """
        ``"independent"``; or ``"stratified"``: the K draws of each column are a Latin hypercube, one in each of K equal
        parts of its noise, in an order of its own. Any one draw has the law that it has by itself, so the mean gradient
        is the same; the spread that K draws leave is less. Another noise than the default's, on the same seed.""",
    "hard": """
        True: the one-hot sample. False: the soft sample behind it; draw, noise and gradient are the same. For a fixed
        seed the soft sample is no differentiable function of the logits, for D is drawn first: its gradient is that of
        ``softmax((l + G) / tau)`` with the noise ``G | D`` held fixed, so that finite differences differ from it where
        D jumps. Over seeds, law and mean gradient are those of F.gumbel_softmax.""",
    "return_index": """
        also return the sampled index, int64, ``logits.shape`` without ``dim``; -1 for a row that has no sample (NaN,
        or masked whole).""",
    "dim": """
        the dimension of the categories.""",
    "sample_tau": """
        temperature of the sample, as tau but without a gradient: ``D ~ softmax(logits / sample_tau)``. Apart from tau
        it decouples the two (Shah et al., arXiv 2410.13331); what is pulled back is the same function of D.""",
    "mask": """
        bool tensor that broadcasts to the logits: True where a category may be sampled; False is as ``-inf``.""",
    "generator": """
        where the seed is drawn from; torch's default generator of the device if None. ``torch.compile`` takes no
        generators, and checkpointing restores none but the default ones, so that it would draw another sample when it
        recomputes: give a ``seed`` there, drawn outside.""",
    "seed": """
        int in ``[0, 2**63)``, or an int64 tensor on the logits' device with one element (or S: then each of S equal
        consecutive groups of rows has its own). Equal seed, equal sample, and equal gradient up to rounding, in every
        backend (two may differ where a draw falls within rounding of a category's edge).""",
    "backend": """
        one of ``available_backends()``; the device's default if None.""",
    "num_draws": """
        R, independent samples of each row: result and index get a dimension of R in front, and the gradient is the sum
        over it. The same as the call on ``logits.expand(R, *logits.shape)``; on a CPU a row and its softmax are taken
        once for all. None: one sample, without that dimension.""",
    "offsets": """
        int64 tensor of rows + 1 elements, nondecreasing from 0 to the number of logits: rows of different lengths, one
        after the other in logits ``(total,)``; row i is ``logits[offsets[i]:offsets[i + 1]]``, and its sample stands
        there. It is drawn as row i of the padded call, with -inf behind each row's end, on the same seed; the index is
        its own column, -1 for a row of length 0. Tensors of temperatures are one a row, a mask is one of the elements,
        ``dim`` is -1. Kernels on a CPU pad nothing. Others pad rows in parts, and a GPU is waited for, to read the
        lengths. A nested tensor ``(rows, j)`` of layout torch.jagged has its own, and gives one with the same.""",
}

_RESULT = """
The sample, like ``logits`` in shape, dtype and device: rows exactly one-hot{soft}.
``(sample, index)`` with ``return_index``.
"""

_ERRORS = """
Raises:
    TypeError, ValueError: naming the argument, what came and what is allowed.
    RuntimeError: when the gradient itself is differentiated in the logits or in tau; in the
        incoming gradient it may be.
"""

_F = TypeVar("_F", bound=Callable[..., Any])


def documented(function: _F) -> _F:
    """Complete an estimator's signature and docstring: each argument is explained by the docstring itself, or here,
    and so is the result."""
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_TYPES[name])
        for name, default in DEFAULTS.items()
        if name not in signature.parameters
    ]
    function.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    if function.__doc__:  # python -OO has none
        text, _, given = inspect.cleandoc(function.__doc__).partition("\nArgs:\n")
        given, _, result = given.partition("\nReturns:\n")
        explained = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", given, re.DOTALL | re.MULTILINE))
        lines = [text.rstrip(), "", "Args:"]
        for parameter in [*own, *shared]:
            words = " ".join((explained.get(parameter.name) or _ARGUMENTS[parameter.name]).split())
            lines.append(fill(f"{parameter.name}: {words}", 100, initial_indent=" " * 4, subsequent_indent=" " * 8))
        soft = ", or soft with ``hard=False``" if "hard" in signature.parameters else ""
        result = indent(inspect.cleandoc(result or _RESULT.format(soft=soft)), " " * 4)
        function.__doc__ = "\n".join([*lines, "", "Returns:", result]) + "\n" + _ERRORS
    return function
