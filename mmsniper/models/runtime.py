"""How a detector is run in testing: in half precision, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from torch import Tensor, nn

PRECISIONS = dict(bf16=torch.bfloat16, fp16=torch.float16)
"""Names of half precisions."""

# mmcv has no deformable convolution in bf16; TOODHead calls one as a function. R3Det's FRM wants
# features in the precision of places, float32.
_FLOAT_ONLY = dict(bf16=('DeformConv2d', 'ModulatedDeformConv2d', 'TOODHead', 'FRM'), fp16=('FRM',))

# What becomes boxes, scores and masks, of a detector and of its RoI head.
_BOX_HEADS = ('rpn_head', 'bbox_head', 'bbox_head_init', 'bbox_head_refine')
_DENSE_HEADS = (*_BOX_HEADS, 'query_head', 'panoptic_head')
_ROI_HEADS = ('bbox_head', 'mask_head', 'point_head', 'mask_iou_head', 'grid_head')

_COMPILED = ('backbone', 'neck', *_BOX_HEADS)


class Runtime:
    """How a detector is run in testing.

    Args:
        precision (str | None): ``'bf16'`` or ``'fp16'``: what torch's autocast computes in. Places
            and scores stay float32, see :func:`half_precision`. Defaults to None, float32.
        compiled (bool | dict): Whether ``torch.compile`` compiles backbone, neck and dense heads,
            or its arguments. Each new size of inputs may be compiled anew, which takes up to a
            minute. Defaults to False.

    Raises:
        ValueError: If there is no such precision.

    Example:
        >>> with Runtime('bf16').of(detector):
        ...     detector.test_step(data)
    """

    def __init__(
        self, precision: str | None = None, compiled: bool | Mapping[str, Any] = False
    ) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(
                f'precision must be one of {", ".join(PRECISIONS)}, or None for float32; got '
                f'{precision!r}'
            )
        self.precision = precision
        self.options = dict(compiled) if isinstance(compiled, Mapping) else {}
        self.compiled = compiled is not False
        self._forwards: dict[str, Callable] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled is of one detector, and cannot be pickled.
        return {**self.__dict__, '_forwards': {}}

    @contextmanager
    def of(self, detector: nn.Module) -> Iterator[None]:
        """Run a detector so; always the same one.

        Raises:
            ValueError: If its device does not have the precision.
        """
        with ExitStack() as stack:
            if self.compiled:
                stack.enter_context(self._compiled_parts(detector))
            if self.precision is not None:
                stack.enter_context(half_precision(detector, self.precision))
            yield

    @contextmanager
    def _compiled_parts(self, detector: nn.Module) -> Iterator[None]:
        """Replace ``forward``, not the module: hooks stay outside of what is compiled."""
        parts = {
            name: part
            for name, part in _parts(detector, _COMPILED)
            if type(part).forward is not nn.Module.forward  # QueryInst's RPN has another method
        }
        for name, part in parts.items():
            if name not in self._forwards:
                self._forwards[name] = torch.compile(part.forward, **self.options)
        try:
            for name, part in parts.items():
                part.forward = self._forwards[name]
            yield
        finally:
            for part in parts.values():
                part.__dict__.pop('forward', None)


@contextmanager
def half_precision(detector: nn.Module, precision: str) -> Iterator[None]:
    """Let a detector compute in half precision, with places and scores in float32.

    8 bits (bf16) tell places of 256 px, 11 (fp16) of 2048. So RoIs and the features below them are
    float32, and so is what heads give, before boxes are made of it. What mmcv does not have in half
    precision, such as deformable convolutions in bf16, is computed in float32, too.

    Args:
        detector (nn.Module): The detector.
        precision (str): One of :data:`PRECISIONS`.

    Raises:
        ValueError: If the device of its weights does not have it.
    """
    device = next(detector.parameters()).device.type
    _check_device(device, precision)
    handles = [
        module.register_forward_pre_hook(_with_float_features)
        for module in detector.modules()
        if isinstance(module, BaseRoIExtractor)
    ]
    handles += [
        part.register_forward_hook(_float_outputs)
        for head in _heads(detector)
        for part in (head, *_branches(head))
    ]
    wide = [module for module in detector.modules() if _is_float_only(module, precision)]
    for module in wide:
        module.forward = partial(_in_float, device, module.forward)
    try:
        with torch.autocast(device, PRECISIONS[precision]):
            yield
    finally:
        for module in wide:
            module.__dict__.pop('forward', None)
        for handle in handles:
            handle.remove()


def _is_float_only(module: nn.Module, precision: str) -> bool:
    return any(base.__name__ in _FLOAT_ONLY[precision] for base in type(module).__mro__)


def _in_float(device: str, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    with torch.autocast(device, enabled=False):
        return forward(*_as_float(args), **_as_float(kwargs))


def _check_device(device: str, precision: str) -> None:
    """Raise a ValueError if a kind of device does not have a precision."""
    if device == 'cpu' and precision == 'fp16':
        raise ValueError("precision 'fp16' is for GPUs: on a CPU take 'bf16', or leave it out")
    if precision == 'bf16':
        if device == 'cpu' and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise ValueError("this CPU has no bf16 (it needs AVX-512): leave precision='bf16' out")
        if device == 'cuda' and not torch.cuda.is_bf16_supported():
            raise ValueError("this GPU has no bf16: take precision='fp16'")


def _heads(detector: nn.Module) -> Iterator[nn.Module]:
    """The modules whose outputs become boxes, scores and masks."""
    for _, head in _parts(detector, _DENSE_HEADS):
        yield head
    for _, roi_head in _parts(detector, ('roi_head',)):  # Co-DETR has a list of them
        for _, head in _parts(roi_head, _ROI_HEADS):
            yield head


def _branches(head: nn.Module) -> Iterator[nn.Module]:
    """The parts of a set-prediction head whose outputs it adds places to, before they are given."""
    for _, part in _parts(head, ('cls_branches', 'reg_branches', 'fc_reg')):
        yield part


def _parts(owner: nn.Module, names: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """The parts that are there, of those of several stages each, by name."""
    for name in names:
        part = getattr(owner, name, None)
        if isinstance(part, nn.ModuleList):
            for i, stage in enumerate(part):
                yield f'{name}[{i}]', stage
        elif part is not None:
            yield name, part


def _with_float_features(module: nn.Module, args: tuple) -> tuple:
    return tuple(map(_as_float, args))


def _float_outputs(module: nn.Module, args: tuple, outputs: Any) -> Any:
    return _as_float(outputs)


def _as_float(value: Any) -> Any:
    """Tensors of half precision as float32, in tuples, lists and dicts, too."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in PRECISIONS.values() else value
    if isinstance(value, dict):
        return {key: _as_float(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_as_float, value))
    return value
