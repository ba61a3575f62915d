"""What the fragment sees to, in a config whose pipeline and model are put together by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.registry import TRANSFORMS
from mmengine.config import Config

from mmsniper.checks.config import pipelines_of
from mmsniper.checks.finding import ERROR, NOTE, WARNING, Finding
from mmsniper.convert.model import UnawarePiece, unaware_pieces
from mmsniper.datasets.scale_transforms import behind_the_cut, rescaling
from mmsniper.datasets.wrappers import all_transforms, class_names, type_name


def check_by_hand(cfg: Config, loader: str = 'train_dataloader') -> Iterator[Finding]:
    """Check that the transforms and the model of a training do what chips need of them.

    Args:
        cfg (Config): A config; one that was converted has no findings. Left as it is.
        loader (str): Key of the training's data loader. Defaults to 'train_dataloader'.
    """
    filters: dict[str, None] = {}
    for pipelines in pipelines_of(cfg, loader):
        steps = [step for pipeline in pipelines.values() for step in pipeline]
        cut, marked = (
            next((where for where, pipeline in pipelines.items() if _has(pipeline, name)), '')
            for name in ('ChipSampler', 'ScaleRangeFilter')
        )
        if wrong := rescaling(behind_the_cut(steps)):
            yield Finding(
                ERROR,
                cut,
                f'{", ".join(wrong)} after ChipSampler would change the scale of chips, which must '
                f'be that of their level, or mix chips of different levels',
                'Leave it out',
            )
        if marked:
            filters[marked] = None
        elif cut:
            yield Finding(
                WARNING,
                cut,
                'has no ScaleRangeFilter after ChipSampler: each level learns objects of any size',
                "Put dict(type='ScaleRangeFilter', pyramid=pyramid) after ChipSampler",
            )
    if filters and cfg.get('model'):
        for piece in unaware_pieces(cfg.model):
            yield _finding(piece, ', '.join(filters))


def _finding(piece: UnawarePiece, filters: str) -> Finding:
    name = type_name(piece.config)
    where = f'model.{piece.path}' if piece.path else 'model'
    objects = f'objects of the wrong size, which ScaleRangeFilter marks ({filters}),'
    if not piece.certain:
        return Finding(
            NOTE,
            where,
            f'is a {name}: mmsniper cannot tell whether {objects} are background to it '
            f"(docs/detectors.md, A head of one's own)",
        )
    return Finding(WARNING, where, f'is a {name}: {objects} are background to it', _fix(piece))


def _fix(piece: UnawarePiece) -> str:
    if piece.version is None:
        return f'{piece.fault[:1].upper()}{piece.fault[1:]}'
    added = {key: value for key, value in piece.version.items() if key not in piece.config}
    words = [f'type={type_name(piece.version)!r}']
    for key, value in added.items():
        if key == 'assigner':
            words.append(f'assigner=dict(type={type_name(value)!r}, ...)')
        else:
            words.append('pyramid=pyramid' if key == 'pyramid' else f'{key}={type_name(value)!r}')
    if 'assigner' not in added:
        words.append('...')
    return f'Write dict({", ".join(words)}), or inherit configs/_base_/sniper.py, which does so'


def _has(pipeline: Any, name: str) -> bool:
    return any(name in class_names(step, TRANSFORMS) for step in all_transforms(pipeline))
