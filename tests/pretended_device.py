"""Real CPU numbers under a pretended CUDA label: finds what a GPU would refuse, and counts what makes the host wait.

Inside :class:`PretendedCuda` the device "cuda" can be used without a GPU. A memory block that was made there, or moved
there, carries the label; a tensor says ``device cuda`` if its block does. An operation on tensors of both kinds raises,
as it would on a GPU. Not covered: kernels themselves, memory, precision, streams.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
READS = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._unique2.default: "unique",
    aten.unique_consecutive.default: "unique",
}
"""Operations that give the host a number or a size, for which it waits."""
CROSSING = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor}
"""Operations that take tensors of both kinds: a copy, and indices of the CPU, which are copied."""


class MixedDevicesError(AssertionError):
    """Tensors of the CPU and of the pretended device in one operation."""


class PretendedCuda:
    """A context in which "cuda" means labelled CPU memory; :attr:`reads` and :attr:`uploads` count waiting, by kind."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        """Copies to the device that wait for it: those without ``non_blocking``."""
        self._blocks: dict[int, StorageWeakRef] = {}
        self._inside = False
        self._functions, self._operations = _Functions(self), _Operations(self)

    def __enter__(self) -> PretendedCuda:
        self._operations.__enter__()  # type: ignore[no-untyped-call]
        self._functions.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._functions.__exit__(*error)  # type: ignore[no-untyped-call]
        self._operations.__exit__(*error)  # type: ignore[no-untyped-call]

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the pretended device."""
        block = self._blocks.get(tensor.untyped_storage()._cdata)
        return block is not None and not block.expired()

    def label(self, result: Any) -> Any:
        """Put every tensor of a result on the pretended device."""
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._blocks[storage._cdata] = StorageWeakRef(storage)
        return result

    def move(self, tensor: Tensor, target: torch.device, non_blocking: bool) -> Tensor:
        """A copy with the target's label, or the tensor itself where it is there already."""
        if self.has(tensor) == (target.type == "cuda"):
            return tensor
        copy = tensor.clone()
        if target.type != "cuda":
            self._blocks.pop(copy.untyped_storage()._cdata, None)
            if not non_blocking:
                self.reads["copy to the CPU"] += 1
            return copy
        if not non_blocking:
            self.uploads["to"] += 1
        return self.label(copy)


class _Functions(TorchFunctionMode):
    """Python's view: where a tensor says that it is, and where it is made or moved to."""

    def __init__(self, device: PretendedCuda) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, here = dict(kwargs or {}), self.device
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        labelled = [tensor for tensor in tensors if here.has(tensor)]
        if func == torch.Tensor.device.__get__:
            return CUDA if labelled else CPU
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return bool(labelled)
        if labelled and func is torch.Tensor.numpy:
            raise MixedDevicesError("numpy() of a tensor on the device")
        if labelled and func is torch.Tensor.tolist:
            here.reads["tolist"] += 1
        target = _target(func, args, kwargs, here)
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda) and target is not None:
            args = (here.move(args[0], target, bool(kwargs.pop("non_blocking", False))), *args[1:])
            # Of what is left only the type matters; a tensor as target gives its own.
            rest = [one.dtype if isinstance(one, Tensor) else one for one in args[1:] if not _is_device(one)]
            kinds = [one for one in (*rest, kwargs.get("dtype")) if isinstance(one, torch.dtype)]
            result = args[0].to(kinds[0]) if kinds else args[0]
            return here.label(result) if target.type == "cuda" else result
        if target is not None and target.type == "cuda":
            if isinstance(kwargs.get("generator"), torch.Generator):
                raise MixedDevicesError(f"{func.__name__} on the device with a generator of the CPU")
            kwargs["device"] = CPU
            if func is torch.tensor:
                here.uploads["tensor"] += 1
            return here.label(func(*args, **kwargs))
        if labelled and func is torch.Tensor.new_tensor:
            here.uploads["tensor"] += 1
            return here.label(func(*args, **kwargs))
        before, here._inside = here._inside, here._inside or bool(labelled)
        try:
            return func(*args, **kwargs)
        finally:
            here._inside = before


class _Operations(TorchDispatchMode):
    """What is computed: every operation, also those of the backward pass."""

    def __init__(self, device: PretendedCuda) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, here = kwargs or {}, self.device
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        labelled = [tensor for tensor in tensors if here.has(tensor)]
        mixed = labelled and any(tensor.dim() and not here.has(tensor) for tensor in tensors)
        if mixed and (func not in CROSSING or not here.has(args[0])):
            kinds = [f"{'cuda' if here.has(one) else 'cpu'} {tuple(one.shape)}" for one in tensors]
            raise MixedDevicesError(f"{func} on {', '.join(kinds)}")
        if mixed:
            here.uploads[str(func)] += 1
        if labelled:
            by_mask = func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
                index is not None and index.dtype == torch.bool for index in args[1]
            )
            kind = "a mask as an index" if by_mask else READS.get(func)
            if kind:
                here.reads[kind] += 1
        result = func(*args, **kwargs)
        made_inside = here._inside and not tensors  # what a function makes beside its arguments goes where they are
        return here.label(result) if labelled or made_inside else result


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda"))


def _target(func: Any, args: Any, kwargs: Any, here: PretendedCuda) -> torch.device | None:
    """The device that a call names, or None."""
    if func is torch.Tensor.cpu or func is torch.Tensor.cuda:
        return CPU if func is torch.Tensor.cpu else CUDA
    if func is torch.Tensor.to and len(args) > 1:
        if isinstance(args[1], Tensor):
            return CUDA if here.has(args[1]) else CPU
        if _is_device(args[1]):
            return torch.device(args[1])
    named = kwargs.get("device")
    return None if named is None else torch.device(named)
