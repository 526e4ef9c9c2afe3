"""Differentiable operators, registered with everything that PyTorch may ask of one: autograd of both modes, on every
level of torch.func; vmap; a fake for tracers; the place of the call in what torch.compile and torch.export capture.

torch.library.register_autograd knows the reverse mode alone, and drops a tangent in silence.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _len_torch_dispatch_stack
from torch._C import _dispatch_tls_is_dispatch_key_included as _is_included
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.autograd import forward_ad
from torch.autograd.function import Function
from torch.compiler import is_compiling, is_exporting
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.utils.checkpoint import CheckpointPolicy

from .namespace import NAMESPACE

_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def operator(
    schema: str,
    kernel: Callable[..., Any],
    autograd: Callable[..., Any],
    fake: Callable[..., Any],
    vmap: Callable[..., tuple[Any, ...]],
    whole: bool = False,
    batched_dim: int = 0,
) -> OpOverload:
    """Define ``torch.ops.discrete_ops.<name>``.

    Args:
        schema: name, arguments without defaults, results.
        kernel: below autograd, of any device.
        autograd: takes the dispatcher's ``keyset`` and the arguments: :func:`apply` of a Function that takes them, and
            whose forward goes on by :func:`below_autograd`.
        fake: results without data.
        vmap: from the batch size, the batch dims and the arguments to arguments with the batch in front of what they
            have in front.
        whole: whether torch.compile's graph takes the operator as it is: of one that goes over rows in parts, not the
            parts.
        batched_dim: where vmap's results are batched.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, autograd, "Autograd", with_keyset=True)
    torch.library.register_fake(op, fake, lib=_LIBRARY)

    def batched(info: Any, in_dims: tuple[Any, ...], *call: Any) -> Any:
        output = op(*vmap(info.batch_size, in_dims, *call))
        return output, (batched_dim,) * len(output) if isinstance(output, tuple) else batched_dim

    def captured(mode: Any, op: OpOverload, types: Any, call: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if is_exporting():  # what is exported, and may be trained, keeps the operator
            return mode.__torch_dispatch__(op, types, call, options)
        for argument, value in zip(op._schema.arguments, call, strict=True):
            if argument.name == "seed":
                never_redrawn(value)
        if whole:
            return mode.__torch_dispatch__(op, types, call, options)
        with mode:  # torch.compile takes what is below it, behind autograd: a backend's own operators and launches
            return kernel(*call)

    torch.library.register_vmap(op, batched, lib=_LIBRARY)
    torch.library.register_torch_dispatch(op, FunctionalTensorMode, captured, lib=_LIBRARY)
    return op


_PLAIN = (Tensor, torch.nn.Parameter)
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


def is_plain(x: Tensor, y: Tensor | None = None) -> bool:
    """Whether these are tensors with data and nobody traces or transforms what is done with them."""
    return (
        not is_compiling()
        and type(x) in _PLAIN
        and not x.is_meta
        and (y is None or type(y) in _PLAIN)
        and not _are_functorch_transforms_active()
        and not _len_torch_dispatch_stack()
        and forward_ad._current_level < 0
        and _get_tracing_state() is None
        and not _is_included(_PRE_DISPATCH)
    )


def trains(parameters: Any, x: Tensor, y: Tensor | None = None) -> bool:
    """Whether autograd is to record a call of these; parameters may be numbers."""
    return torch.is_grad_enabled() and (
        x.requires_grad
        or (y is not None and y.requires_grad)
        or (type(parameters) is Tensor and parameters.requires_grad)
    )


def as_tensor(number: float, device: torch.device) -> Tensor:
    """``(1,)`` float64. A product: torch.compile keeps a float that changes out of a graph only if it is an operand."""
    return torch.ones((1,), dtype=torch.float64, device=device) * number


def never_redrawn(x: Tensor) -> None:
    """Tell torch.compile that the random numbers that x is made of must come out the same in the backward pass.

    Under a memory budget its partitioner recomputes what the backward pass needs, random numbers anew. Those that are
    marked are kept. But a budget of 0 keeps nothing, whatever its mark, and an operator with several results cannot be
    marked: these are recomputed from the state that the generator had, which is saved and restored around them and
    takes longer than a small call.
    """
    mode = get_proxy_mode()
    if mode is None:
        return
    placeholders = [node.name for node in mode.tracer.graph.nodes if node.op == "placeholder"]
    if not any("tangents" in name for name in placeholders):  # as the partitioner knows a graph with a backward pass
        return
    inner = torch._from_functional_tensor(x.elem) if isinstance(x, FunctionalTensor) else x
    slot = get_proxy_slot(inner, mode.tracer, None)
    nodes, seen = [] if slot is None else [slot.proxy.node], set[torch.fx.Node]()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        nodes += node.all_input_nodes
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            keeps = memory_budget(node) > 0 and isinstance(node.meta.get("val"), Tensor)
            node.meta["recompute"] = CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.MUST_RECOMPUTE


# Of torch.autograd.graph.region_activation_memory_budget, where this torch has it.
_budget_of_region = getattr(torch.fx.traceback, "_get_memory_budget_annotation", lambda node: None)


def memory_budget(node: torch.fx.Node) -> float:
    """The share of what the backward pass needs that a graph may keep: of the region of the node, or of all graphs."""
    of_region = _budget_of_region(node)
    return torch._functorch.config.activation_memory_budget if of_region is None else of_region


def fold(batch_size: int, x: Tensor, dim: int | None) -> Tensor:
    """Bring a vmapped dimension to the front of ``x``, adding it where ``x`` has none."""
    return x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)


def in_shape(x: Tensor, shape: Any) -> Tensor:
    """What an operator has made, in another shape, and no view: a Function's views may not be changed in place."""
    return torch.ops.aten._unsafe_view(x, shape)


def apply(function: type[Function], *call: Any) -> Any:
    """``function.apply`` on the level of torch.func whose turn it is: the dispatcher calls each level's."""
    if not _are_functorch_transforms_active():
        return at_once(function)(*call)
    with enable_single_level_autograd_function():
        return at_once(function)(*call)


def refuses(message: str) -> Any:
    """A Function's ``backward`` or ``jvp`` that raises."""

    def refuse(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(message)

    return staticmethod(refuse)


def at_once(function: type[Function]) -> Callable[..., Any]:
    """``function.apply`` where nobody transforms the call, without the look at whether somebody does."""
    return super(Function, function).apply  # type: ignore[misc]


@contextlib.contextmanager
def below() -> Iterator[None]:
    """Below this level's autograd. A Function's forward switches autograd off; that of the levels below is on."""
    with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        yield


def below_autograd(op: OpOverload, keyset: Any, *call: Any) -> Any:
    """Go on with a call that the dispatcher brought with ``keyset``."""
    with below():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *call)
