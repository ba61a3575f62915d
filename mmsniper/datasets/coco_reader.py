"""MMDetection's COCO data sets read their file through :class:`~mmsniper.chips.CocoFile`.

By itself ``CocoDataset`` ends in a KeyError or TypeError that names no annotation, or leaves
annotations out without a word. MMRotate's ``DOTADataset`` ends in errors of that kind, too, and has
images in the order in which the file system lists them, which may be another on another machine.

In a training of several processes one of each machine reads, and the others share its memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from inspect import signature
from typing import Any

from mmdet.datasets import BaseDetDataset, CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size, is_main_process
from mmengine.logging import print_log

from mmsniper.chips.coco_file import CocoFile, CocoUse
from mmsniper.chips.dota_files import dota_fault
from mmsniper.datasets.wrappers import (
    all_transforms,
    inner_datasets,
    read_datasets,
    replace_datasets,
    type_name,
)
from mmsniper.utils.garbage import no_garbage_collection
from mmsniper.utils.made_once import made_once


def build_checked(config: Mapping[str, Any], pipeline: Any = ()) -> Any:
    """Build a data set from its config; COCO files in it are checked.

    Args:
        config (dict): Config of a data set, with any wrappers.
        pipeline (Any): The transforms that the data are for: whether they load masks decides
            whether masks are needed. Defaults to ().

    Returns:
        Any: The data set; read, unless it has no wrapper and says ``lazy_init=True``.

    Raises:
        ValueError: As :func:`read_checked`.
    """

    def read(part: Any) -> Any:
        is_config, lazy = isinstance(part, Mapping), part is config and config.get('lazy_init')
        if is_config and type_name(part) == 'ChipDataset':
            return part  # it does the same below it, with a pipeline of its own, when it is built
        if inner_datasets(part):
            return None
        if is_config and _is_known(part):
            part = DATASETS.build({**part, 'lazy_init': True})
        if isinstance(part, Mapping):
            return None  # whatever builds it knows what to say
        if not lazy:  # below a wrapper it must be read now, for the wrapper would read it unchecked
            read_checked(part, pipeline)
        return part

    dataset = replace_datasets(config, read)
    return DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset


def _is_known(config: Mapping[str, Any]) -> bool:
    """Whether its reading can be checked or shared, so that it is to be built before it reads."""
    kind = config.get('type')
    if not isinstance(kind, type):
        with DATASETS.switch_scope_and_registry(config.get('_scope_')) as registry:
            kind = registry.get(str(kind))
    if not isinstance(kind, type):
        return False
    if issubclass(kind, CocoDataset) or _lists_a_folder(kind):
        return True
    arguments = signature(kind).parameters.values()
    lazy = any(a.name == 'lazy_init' or a.kind is a.VAR_KEYWORD for a in arguments)
    return lazy and get_world_size() > 1 and _reads_as_stock(kind)


def _reads_as_stock(kind: type) -> bool:
    """Whether all that ``full_init`` does is to fill the data set."""
    stock = BaseDataset.full_init, BaseDetDataset.full_init
    return getattr(kind, 'full_init', None) in stock


def _lists_a_folder(kind: type) -> bool:
    """Whether its images come in the order in which a file system lists them: MMRotate's DOTA."""
    return any(base.__name__ == 'DOTADataset' for base in kind.__mro__)


def read_checked(dataset: Any, pipeline: Any = ()) -> None:
    """Load the annotations of a data set that has not loaded them yet; COCO files are checked.

    What is used of a COCO file is logged in one line. Images of a ``DOTADataset`` are put into the
    order of their paths. Data sets with a ``COCOAPI`` of their own, such as panoptic ones, read as
    they do.

    Args:
        dataset (Any): A data set, with any wrappers.
        pipeline (Any): As for :func:`build_checked`.

    Raises:
        ValueError: If a COCO file is faulty, or nothing of it is left to train on; see
            :meth:`CocoFile.read` and :meth:`CocoUse.check_training`.
    """
    for part in read_datasets(dataset):
        if getattr(part, '_fully_initialized', True):
            continue
        if isinstance(part, CocoDataset) and part.COCOAPI is COCO:
            _read_once(part, partial(_read_coco, part, pipeline))
        elif _lists_a_folder(type(part)):
            _read_once(part, partial(_read_in_order, part))
        elif _reads_as_stock(type(part)):
            _read_once(part, part.full_init)
    dataset.full_init()


def _read_in_order(dataset: Any) -> None:
    """Have a data set read its images in the order of their paths, the same on every machine.

    Raises:
        ValueError: If an annotation file is faulty; stock names neither the file nor the line.
    """
    stock = dataset.load_data_list

    def in_order() -> list[dict]:
        try:
            return sorted(stock(), key=lambda info: info['img_path'])
        except (ValueError, LookupError) as error:
            is_stock = stock.__qualname__ == 'DOTADataset.load_data_list'
            fault = is_stock and dota_fault(dataset.ann_file, dataset.metainfo['classes'])
            if not fault:
                raise
            raise ValueError(fault) from error

    dataset.load_data_list = in_order
    try:
        dataset.full_init()
    finally:
        del dataset.load_data_list


def _read_once(dataset: BaseDataset, read: Callable[[], None]) -> None:
    """Have one process of each machine read; the others take over what it has then.

    Without ``serialize_data`` each of them reads, for lists of dicts cannot be shared.
    """
    own = 'pipeline'  # of transforms, which need not be picklable

    def content() -> dict[str, Any]:
        read()
        return {key: value for key, value in vars(dataset).items() if key != own}

    if dataset.serialize_data and _reads_as_stock(type(dataset)):
        vars(dataset).update(made_once(content))
    else:
        read()


def _read_coco(dataset: CocoDataset, pipeline: Any) -> None:
    if 'img' not in dataset.data_prefix:
        raise ValueError(
            f"data_prefix of {type_name(dataset)} has no 'img', the folder of the images: "
            f"data_prefix=dict(img='images/'), or img='' if it is data_root, got "
            f'{dict(dataset.data_prefix)}'
        )
    read: list[CocoUse] = []

    def checked(path: str) -> COCO:
        file = CocoFile.read(path, name=dataset.ann_file, test=dataset.test_mode)
        read.append(_checked_use(file, dataset, pipeline))
        return _indexed(file)

    dataset.COCOAPI = checked
    try:
        with no_garbage_collection():
            dataset.full_init()
    finally:
        del dataset.COCOAPI
    # Of no use any more, and it keeps memory for every annotation from being given back.
    vars(dataset).pop('cat_img_map', None)
    for use in read:
        log_use(use)
        if is_main_process() and len(dataset) != use.images.sum():
            why = 'by indices' if dataset._indices is not None else 'by rules of its own'
            print_log(
                f'{use.file.name}: of these images {type_name(dataset)} takes {len(dataset):,}, '
                f'{why}',
                logger='current',
            )


def log_use(use: CocoUse) -> None:
    """Log, in the main process, what is used of a file and what looks wrong in it."""
    if is_main_process():
        for is_warning, message in use.messages():
            level = logging.WARNING if is_warning else logging.INFO
            print_log(message, logger='current', level=level)


def _checked_use(file: CocoFile, dataset: CocoDataset, pipeline: Any) -> CocoUse:
    """What the data set takes of the file, made ready for MMDetection."""
    rules = None if dataset.test_mode else dataset.filter_cfg
    use = file.use(dataset.metainfo['classes'], rules)
    if not dataset.test_mode:
        use.check_training()
    for transform in all_transforms(pipeline):
        if _setting(transform, 'with_mask'):
            file.check_masks(use.annotations, _setting(transform, 'poly2mask') is False)
    file.complete()
    return use


def _setting(transform: Any, name: str) -> Any:
    if isinstance(transform, Mapping):
        return transform.get(name)
    return getattr(transform, name, None)


def _indexed(file: CocoFile) -> COCO:
    """MMDetection's look-up tables of what was read; the file is not read again."""
    coco = COCO()
    coco.dataset = dict(
        images=file.images, annotations=file.annotations, categories=file.categories
    )
    with redirect_stdout(None):  # it tells its progress
        coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco
