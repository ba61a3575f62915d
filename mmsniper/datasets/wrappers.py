"""The only walk through data set wrappers, for built data sets and for their configs alike.

``ConcatDataset`` has ``datasets``; ``RepeatDataset``, ``ClassBalancedDataset``,
``MultiImageMixDataset`` and ``ChipDataset`` have a ``dataset``. What has neither reads images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from typing import Any

from mmengine.registry import Registry


def type_name(config: Any) -> str:
    """The name of what a config builds, or of an object's class, without scope and module.

    Args:
        config (Any): A config whose ``type`` is a name or a class, as in MMDetection's Python
            configs (there it may be imported late); such a name or class itself; or a built object.

    Returns:
        str: The name; '' for None and for a config without ``type``.

    Example:
        >>> type_name(dict(type='mmdet.FCOSHead')), type_name(int), type_name(None)
        ('FCOSHead', 'int', '')
    """
    if isinstance(config, Mapping):
        config = config.get('type')
    if config is None:
        return ''
    if _is_lazy(config):
        config = str(config)
    if isinstance(config, str):
        return config.rpartition('.')[2]
    return (config if isinstance(config, type) else type(config)).__name__


def _is_lazy(kind: Any) -> bool:
    """Whether a type is mmengine's stand-in for one that is not imported yet."""
    return type(kind).__name__ in ('LazyObject', 'LazyAttr')


def class_of(config: Any, *registries: Registry) -> type | None:
    """The class of what a config builds, or of an object; None if it is not known.

    Args:
        config (Any): As for :func:`type_name`.
        *registries (Registry): Where its type may be registered.
    """
    kind = config.get('type') if isinstance(config, Mapping) else config
    if _is_lazy(kind):
        kind = type_name(kind)
    if isinstance(kind, str):
        found = (registry.get(kind) for registry in registries if kind)
        kind = next(filter(None, found), None)
    return kind if isinstance(kind, type) or kind is None else type(kind)


def class_names(config: Any, registry: Registry) -> list[str]:
    """The name of what a config builds and, where it is registered, those of the class's bases.

    So what derives from a class is told from its names: ``'ChipAwareSampler' in class_names(...)``.

    Args:
        config (Any): As for :func:`type_name`.
        registry (Registry): Where its type is registered.

    Returns:
        list[str]: The names, nearest class first; empty for None and for a config without ``type``.
    """
    name = type_name(config)
    bases = getattr(class_of(config, registry), '__mro__', ())
    return [name, *(cls.__name__ for cls in bases)] if name else []


def inner_datasets(dataset: Any) -> list[Any]:
    """The data sets (or configs) directly below a wrapper; none below what reads images."""
    several = _part(dataset, 'datasets')
    if several:
        return list(several)
    inner = _part(dataset, 'dataset')
    return [] if inner is None else [inner]


def all_datasets(dataset: Any) -> Iterator[Any]:
    """A data set (or config) and all below it, wrappers before what they wrap."""
    yield dataset
    for inner in inner_datasets(dataset):
        yield from all_datasets(inner)


def read_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets (or configs) that read images, from below any wrappers."""
    return (found for found in all_datasets(dataset) if not inner_datasets(found))


def replace_datasets(dataset: Any, replacement: Callable[[Any], Any]) -> Any:
    """A copy with some of the data sets (or configs) replaced, whatever wrappers are around them.

    Args:
        dataset (Any): A data set or its config. Left as it is.
        replacement (Callable[[Any], Any]): Called with each data set, wrappers before what they
            wrap. It returns what takes its place, or None to go on below it.

    Returns:
        Any: The data set with its replacements; wrappers around them are shallow copies.
    """
    new = replacement(dataset)
    below = inner_datasets(dataset)
    if new is not None or not below:
        return dataset if new is None else new
    below = [replace_datasets(inner, replacement) for inner in below]
    wrapper = copy(dataset)
    name, value = ('datasets', below) if _part(dataset, 'datasets') else ('dataset', below[0])
    if isinstance(wrapper, MutableMapping):
        wrapper[name] = value
    else:
        setattr(wrapper, name, value)
    return wrapper


# What transforms call those that they choose from: RandomChoice, AutoAugment, RandAugment.
NESTED_TRANSFORMS = ('transforms', 'policies', 'aug_space')


def all_transforms(pipeline: Any) -> Iterator[Any]:
    """The transforms of a pipeline, a list of configs or a built ``Compose``.

    Those inside ``RandomChoice``, ``AutoAugment`` and the like come after it.
    """
    for transform in getattr(pipeline, 'transforms', pipeline) or ():
        if isinstance(transform, Sequence):  # an alternative of RandomChoice
            yield from all_transforms(transform)
        else:
            yield transform
            for name in NESTED_TRANSFORMS:
                yield from all_transforms(_part(transform, name))


def all_configs(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """All dicts in a config, outer ones first, with their paths, such as ``'model.neck[0]'``."""
    below: Iterable[tuple[str, Any]] = ()
    if isinstance(node, Mapping):
        yield path, node
        below = [(f'{path}.{key}' if path else key, value) for key, value in node.items()]
    elif isinstance(node, (list, tuple)):
        below = [(f'{path}[{i}]', value) for i, value in enumerate(node)]
    for inner, value in below:
        yield from all_configs(value, inner)


def _part(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, Mapping) else getattr(node, name, None)
