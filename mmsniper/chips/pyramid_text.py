"""A pyramid as a config file, its rules and ranges in words."""

from __future__ import annotations

import math

from mmsniper.chips.pyramid import Range, ResizeRule, ScalePyramid


def pyramid_config(pyramid: ScalePyramid, comment: str = '') -> str:
    """A pyramid as a config file that others inherit.

    Test rules and ranges are written where they differ from those of training.

    Args:
        pyramid (ScalePyramid): The scale pyramid.
        comment (str): Lines to begin with.

    Returns:
        str: Python that mmengine's ``Config`` reads.
    """
    lines = [f'# {" ".join(line.split())}' for line in comment.splitlines()]
    lines += ['pyramid = dict(', f'    chip_size={int(pyramid.chip_size)},', '    levels=[']
    for level in pyramid.levels:
        entry = f'resize={_as_code(level.resize)}, valid_range={_as_code(level.valid_range)}'
        if level.test_resize != level.resize:
            entry += f', test_resize={_as_code(level.test_resize)}'
        if level.test_range != level.valid_range:
            entry += f', test_range={_as_code(level.test_range)}'
        lines.append(f'        dict({entry}),')
    lines.append('    ],')
    if pyramid.adopt_orphans:
        lines.append('    adopt_orphans=True,')
    return '\n'.join([*lines, ')', ''])


def describe_rule(rule: ResizeRule) -> str:
    """A resize rule in words: 'factor 2.3', 'long side 512'."""
    if rule.factor is not None:
        return f'factor {rule.factor:g}'
    if rule.short_side is None:
        return f'long side {rule.long_side:g}'
    return f'short side {rule.short_side:g}, long side up to {rule.long_side:g}'


def describe_range(bounds: Range) -> str:
    """A range in words: '30 to 45 px', '96 px and more'."""
    low, high = bounds
    return f'{low:g} to {high:g} px' if math.isfinite(high) else f'{low:g} px and more'


def _as_code(value: ResizeRule | tuple[float, float]) -> str:
    if isinstance(value, ResizeRule):
        given = ((name, getattr(value, name)) for name in ('factor', 'short_side', 'long_side'))
        return f'dict({", ".join(f"{name}={v!r}" for name, v in given if v is not None)})'
    return f'({", ".join("None" if math.isinf(v) else f"{v:g}" for v in value)})'
