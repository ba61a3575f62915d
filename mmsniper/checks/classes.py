"""Checks of class names, ids and their order: data sets, annotation files, metrics, checkpoints."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple
from unicodedata import normalize

from mmdet.datasets import CocoDataset, Objects365V1Dataset, XMLDataset
from mmdet.evaluation import CocoMetric
from mmdet.models import RPN
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmsniper.checks.annotation_files import AnnotationFile, read_annotation_file
from mmsniper.checks.config import (
    OTHER_CLASSES,
    Head,
    as_tuple,
    class_key,
    leaf_configs,
    metainfo_fault,
)
from mmsniper.checks.finding import ERROR, NOTE, WARNING, Finding
from mmsniper.checks.voc_files import voc_use
from mmsniper.chips.coco_file import CocoFile, listed, nearest_name
from mmsniper.datasets.wrappers import read_datasets, type_name
from mmsniper.utils.files import check_folder
from mmsniper.utils.missing_files import missing_file

# What BatchNorm keeps beside its weights; other buffers may be infinite, such as masks.
_STATISTICS = ('running_mean', 'running_var')


class LabelledData(NamedTuple):
    """A data set of COCO's format: its classes, its file, and what its labels mean.

    Attributes:
        where: The config key of the data set.
        classes: The names in ``metainfo``.
        file: Its annotation file.
        labels: The name of each label, by the annotation file; None if it is not known how labels
            are numbered.
        is_part: Whether the data set takes only some of the file's images (``indices``).
    """

    where: str
    classes: tuple[str, ...]
    file: AnnotationFile
    labels: tuple[str, ...] | None
    is_part: bool = False


def config_data(cfg: Config, loader: str, findings: list[Finding]) -> list[LabelledData]:
    """The COCO data sets of a data loader, whose annotations are not loaded.

    Args:
        cfg (Config): A config. Left as it is.
        loader (str): Key of the data loader.
        findings (list[Finding]): Gets what is wrong with files.
    """
    data = []
    for where, leaf, kind in leaf_configs(cfg, loader):
        if _numbering(kind):
            if metainfo_fault(leaf.get('metainfo') or {}):  # found in the config
                continue
            config = ConfigDict(deepcopy(leaf), lazy_init=True, pipeline=[])
            try:
                dataset = DATASETS.build(config)
            except (TypeError, ValueError) as error:
                fix = f'Look at the arguments of {type_name(kind)}'
                findings.append(Finding(ERROR, where, f'cannot be built: {error}', fix))
                continue
            data += labelled_data(dataset, where, findings)
    return data


def labelled_data(dataset: Any, where: str, findings: list[Finding]) -> list[LabelledData]:
    """What a COCO data set's labels mean, in a list; an empty one of other data sets.

    Args:
        dataset (BaseDataset): A data set that reads images, lazy or initialised.
        where (str): Its config key.
        findings (list[Finding]): Gets what is wrong with its file.
    """
    path = getattr(dataset, 'ann_file', None)
    classes = dataset.metainfo.get('classes') if isinstance(dataset, CocoDataset) else None
    # What is no tuple is found in the config; remote files are read by the data set only.
    if not path or not classes or not isinstance(classes, list | tuple) or '://' in path:
        return []
    if not all(isinstance(name, str) for name in classes):  # found in the config
        return []
    # What a class of one's own reads need not be a COCO file.
    reads_coco = bool(_numbering(type(dataset)))
    file = _read(path, f'{where}.ann_file', findings if reads_coco else [])
    if file is None:
        return []
    if not file.images:
        findings.append(
            Finding(ERROR, where, f'{path} lists no images', 'Name a file that does, ann_file=...')
        )
    classes = tuple(classes)
    labels = _label_names(dataset, file, classes)
    return [LabelledData(where, classes, file, labels, dataset._indices is not None)]


def _read(path: str, where: str, findings: list[Finding]) -> AnnotationFile | None:
    try:
        return read_annotation_file(path)
    except OSError as error:
        why = missing_file(path, 'the config') if isinstance(error, FileNotFoundError) else error
        findings.append(Finding(ERROR, where, f'{path} cannot be read: {why}'))
    except ValueError as error:
        findings.append(Finding(ERROR, where, str(error)))
    return None


def _numbering(kind: Any) -> Callable[[AnnotationFile, tuple[str, ...]], Any] | None:
    """How a class of data sets numbers labels; None if it reads annotations by code of its own."""
    load = getattr(kind, 'load_data_list', None)
    if load is CocoDataset.load_data_list:
        return AnnotationFile.label_names
    if load is Objects365V1Dataset.load_data_list:
        return AnnotationFile.label_names_by_id
    return None


def _label_names(
    dataset: CocoDataset, file: AnnotationFile, classes: tuple[str, ...]
) -> tuple[str, ...] | None:
    if hasattr(dataset, 'cat_ids'):  # as built
        name_of = dict(file.categories)
        names = tuple(name_of.get(key, '?') for key in dataset.cat_ids)
    elif numbering := _numbering(type(dataset)):
        names = numbering(file, classes)
    else:
        return None
    # LVIS takes all categories of the file, whatever their names.
    return names if set(names) <= set(classes) else None


def label_names(dataset: Any) -> tuple[str, ...]:
    """What each label of a data set that has been built is called in its annotation file.

    Args:
        dataset (BaseDataset): A data set, with any wrappers.

    Returns:
        tuple[str, ...]: The names; those in ``metainfo`` where labels follow it.
    """
    for leaf in read_datasets(dataset):
        for part in labelled_data(leaf, '', []):
            if part.labels:
                return part.labels
    return tuple(dataset.metainfo.get('classes') or ())


def check_data(data: Sequence[LabelledData], training: bool = True) -> list[Finding]:
    """Check that labels mean in all files what ``metainfo`` says.

    Args:
        data (Sequence[LabelledData]): The data sets of a run, that of training first.
        training (bool): Whether it is a run that trains, where wrong names are refused. Defaults
            to True.
    """
    findings = [finding for part in data for finding in _check_names(part)]
    complete = [
        (part, part.labels)
        for part in data
        if part.labels and sorted(part.labels) == sorted(part.classes)
    ]
    findings += _check_order(complete, training)
    return list(dict.fromkeys(findings))


def _check_names(part: LabelledData) -> Iterator[Finding]:
    """Every class exactly once in the file, and no label that is another class's."""
    file, where, path = part.file, f'{part.where}.metainfo.classes', part.file.path
    names = [name for _, name in file.categories]
    if part.labels is None:
        return
    twice = [name for name, count in Counter(part.labels).items() if count > 1]
    for name in twice:
        ids = [str(key) for key, other in file.categories if other == name]
        yield Finding(
            ERROR,
            path,
            f'{name!r} is the name of the categories {" and ".join(ids)}: each would get a label '
            f'of its own, and those after it would shift',
            f'Give annotations of {", ".join(ids[1:])} category_id={ids[0]}, and remove the others',
        )
    there, wanted = set(names), set(part.classes)
    missing = [name for name in part.classes if name not in there]
    if not missing:
        return
    unused = [name for name in names if name not in wanted]
    pairs = enumerate(zip(part.labels, part.classes))
    shift = next(((i, theirs, mine) for i, (theirs, mine) in pairs if theirs != mine), None)
    near = {name: meant for name in missing if (meant := nearest_name(name, unused))}
    what = f'{listed(missing)} {"is" if len(missing) == 1 else "are"} not in {path}'
    if not part.labels:
        what = f'none of the classes {listed(part.classes)} is in {path}'
    what += f', which has {listed(names)}'
    if part.labels and shift:
        label, theirs, mine = shift
        what += f'; labels follow the file: {theirs!r} would be label {label}, that of {mine!r}'
    fix = f'Name the classes of the file: metainfo=dict(classes={as_tuple(names)})'
    if near and (part.labels or all(_looks_same(*pair) for pair in near.items())):
        fix = '. '.join(_write(meant, name) for name, meant in list(near.items())[:5])
    elif part.labels and not part.where.startswith('train'):
        fix = 'Add what is missing to its list of categories, in the order of metainfo'
    # The last class, of which a training file has no objects, shifts no other one. A metric has no
    # category id for it, and ends in an IndexError when the detector gives that label.
    harmless = part.labels and not shift and not near and part.where.startswith('train')
    yield Finding(WARNING if harmless else ERROR, where, what, fix)


def _looks_same(one: str, other: str) -> bool:
    return normalize('NFC', one) == normalize('NFC', other)


def _write(meant: str, name: str) -> str:
    if _looks_same(meant, name):
        return f'Write {meant!a} for {name!a}: the same letters, composed in two ways (Unicode)'
    return f'Write {meant!r} for {name!r}'


def _check_order(
    data: Sequence[tuple[LabelledData, tuple[str, ...]]], training: bool
) -> Iterator[Finding]:
    """The order of the categories in the files, all of which have all classes: their labels."""
    orders = {labels for _, labels in data}
    for part, labels in data:
        if labels == part.classes:
            continue
        label = next(i for i, (a, b) in enumerate(zip(labels, part.classes)) if a != b)
        what = (
            f'the categories of {part.file.path} have another order than metainfo, and MMDetection '
            f'numbers labels in that of the file: label {label} is {labels[label]!r}, and '
            f'would be called {part.classes[label]!r}'
        )
        if len(orders) == 1:
            order = as_tuple(labels)
            fix = f"Write the file's order everywhere: metainfo=dict(classes={order})"
            severity = ERROR if training else WARNING
        else:
            other, theirs = next(pair for pair in data if pair[1] != labels)
            what += f'. In {other.file.path} it is {theirs[label]!r}'
            fix = (
                f'Write the list of categories of {part.file.path} in the order of metainfo (their '
                f'ids may stay)'
            )
            severity = ERROR
        yield Finding(severity, f'{part.where}.metainfo.classes', what, fix)


def check_metrics(cfg: Config, loader: str, data: Sequence[LabelledData]) -> list[Finding]:
    """Check that the ``CocoMetric`` of a data loader reads a file that fits its data set.

    Args:
        cfg (Config): A config.
        loader (str): ``'val_dataloader'`` or ``'test_dataloader'``.
        data (Sequence[LabelledData]): The data sets of that loader.
    """
    key, findings = loader.replace('dataloader', 'evaluator'), []
    for where, metric in _metrics(cfg.get(key), key):
        kind = metric.get('type')
        kind = METRICS.get(kind) if isinstance(kind, str) else kind
        path = metric.get('ann_file')
        own = getattr(kind, 'compute_metrics', None) is CocoMetric.compute_metrics
        if prefix := metric.get('outfile_prefix'):
            try:
                check_folder(os.path.dirname(prefix) or '.', f'{where}.outfile_prefix')
            except OSError as error:
                findings.append(Finding(ERROR, f'{where}.outfile_prefix', str(error)))
        if not own or not path or '://' in path or len(data) != 1:
            continue
        file = _read(path, f'{where}.ann_file', findings)
        if file is not None:
            findings += _check_metric(metric, f'{where}.ann_file', file, data[0])
    return findings


def check_plain(files: Iterable[AnnotationFile]) -> Iterator[Finding]:
    """Check that pycocotools, which reads the files of validation and test, can do so."""
    for file in files:
        if not file.plain:
            yield Finding(
                ERROR,
                file.path,
                'is not plain UTF-8 (a byte order mark, or UTF-16), which training reads and '
                'pycocotools does not: validation and test would end in a JSONDecodeError',
                "Save it as UTF-8 without a byte order mark (in Python encoding='utf-8')",
            )


def _metrics(evaluator: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        yield from _metrics(evaluator['metrics'], f'{key}.metrics')
    elif isinstance(evaluator, Mapping):
        yield key, evaluator
    elif isinstance(evaluator, Sequence):
        for i, metric in enumerate(evaluator):
            yield from _metrics(metric, f'{key}[{i}]')


def _check_metric(
    metric: Mapping[str, Any], where: str, file: AnnotationFile, part: LabelledData
) -> Iterator[Finding]:
    same = os.path.realpath(file.path) == os.path.realpath(part.file.path)
    both = f'{where} is {file.path}, and {part.where}.ann_file {part.file.path}'
    name_both = f'Name the same file in both, {part.file.path} perhaps'
    labels = part.labels or ()
    if not same and labels and file.label_names(part.classes) != labels:
        what = f'{both}, with other categories, or in another order: results get wrong category ids'
        yield Finding(ERROR, where, what, name_both)
    if not same:
        yield from check_plain([file])
    if metric.get('format_only'):
        return
    if file.has_id_0:
        what = f'{file.path} has an annotation of id 0, which pycocotools never counts as found'
        yield Finding(WARNING, where, what, 'Number the annotations from 1')
    if not same:
        yield from _check_same_images(file, part, where, both, name_both)
    if not file.num_annotations:
        fix = 'Name an annotated file, or write results only: format_only=True, outfile_prefix=...'
        yield Finding(WARNING, where, f'{file.path} has no annotations: AP will be -1', fix)
    kinds = metric.get('metric', 'bbox')
    kinds = [kinds] if isinstance(kinds, str) else kinds
    needed = ['iscrowd', *(['area'] if set(kinds) - {'proposal_fast'} else [])]
    for key in [*needed, *(['segmentation'] if 'segm' in kinds else [])]:
        if key in file.lacking:
            value = {'area': 'width x height', 'iscrowd': '0', 'segmentation': 'the mask'}[key]
            yield Finding(
                ERROR,
                file.path,
                f'{file.lacking[key]}, have no {key!r}, which pycocotools needs: the first '
                f'evaluation would end in a KeyError',
                f'Write {key!r} into each annotation, {value}',
            )
    if part.is_part:
        what = f'{part.where} takes some images (indices), and AP counts all those of {file.path}'
        yield Finding(WARNING, where, what, 'Name a file with these images only')


def _check_same_images(
    file: AnnotationFile, part: LabelledData, where: str, both: str, fix: str
) -> Iterator[Finding]:
    mine, theirs = part.file.images, file.images
    unknown = [key for key in mine if key not in theirs]
    other = [key for key in mine if key in theirs and mine[key] != theirs[key]]
    if unknown:
        what = f'{both}: the metric does not know {len(unknown)} images, such as {mine[unknown[0]]}'
        yield Finding(ERROR, where, what, fix)
    elif other:
        key = other[0]
        what = f'{both}: image {key} is {theirs[key]} in the one and {mine[key]} in the other'
        yield Finding(ERROR, where, what, fix)
    elif len(theirs) > len(mine):
        what = f'{both}: AP counts {len(theirs) - len(mine)} images that are not tested'
        yield Finding(ERROR, where, what, fix)


def saved_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names that a checkpoint has of its classes, None if it says nothing."""
    names = saved_meta(checkpoint).get('classes')
    return tuple(names) if names else None


def saved_meta(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint has of its data's ``metainfo``; classes that are no names are left out."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    saved = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    if not isinstance(saved, Mapping):
        return {}
    saved = {str(key).lower(): value for key, value in saved.items()}  # MMDetection 2 had capitals
    names = saved.get('classes')
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        saved.pop('classes', None)
    return saved


def check_checkpoint_classes(
    checkpoint: Mapping[str, Any], file: str, classes: tuple[str, ...], where: str, training: bool
) -> Iterator[Finding]:
    """Compare a checkpoint's classes with those of a config.

    Args:
        checkpoint (dict): What is in the file.
        file (str): The file.
        classes (tuple[str, ...]): The names in the config's ``metainfo``.
        where (str): The data set that they are those of.
        training (bool): Its weights are where a training starts, which may have other classes.
    """
    saved = saved_classes(checkpoint)
    if saved is None or saved == classes:
        return
    if sorted(saved) == sorted(classes):
        i = next(i for i, (a, b) in enumerate(zip(saved, classes)) if a != b)
        yield Finding(
            ERROR,
            file,
            f'it has the classes of {where} in another order: label {i} is {saved[i]!r}, here it '
            f'would be {classes[i]!r}',
            f'Write the order that it was trained with, metainfo=dict(classes={as_tuple(saved)}), '
            f'and the list of categories of every annotation file likewise',
        )
    elif len(saved) == len(classes):
        i = next(i for i, (a, b) in enumerate(zip(saved, classes)) if a != b)
        what = (
            f'it was trained with other classes than those of {where}, as many: label {i} was '
            f'{saved[i]!r}, here it is {classes[i]!r}'
        )
        fix = 'Is it the right file?'
        if training:
            fix = 'Training starts from its weights, which is fine for a new data set'
        yield Finding(WARNING, file, what, fix)


def saved_weights(checkpoint: Any) -> Any:
    """The weights of a checkpoint by name; something else if it has none."""
    if isinstance(checkpoint, Mapping):
        checkpoint = checkpoint.get('state_dict', checkpoint)
    if not isinstance(checkpoint, Mapping):
        return checkpoint
    return {str(key).removeprefix('module.'): weight for key, weight in checkpoint.items()}


def check_numbers(model: nn.Module, state: Any, file: str) -> Iterator[Finding]:
    """Check that a checkpoint's weights of a model are tensors of numbers.

    Args:
        model (nn.Module): The model, without wrappers.
        state (dict[str, Tensor]): The checkpoint's weights, as :func:`saved_weights`.
        file (str): The checkpoint.
    """
    if not isinstance(state, Mapping):
        what = f'its state_dict is a {type(state).__name__}, expected a dict of weights'
        yield Finding(ERROR, file, what, 'Name a checkpoint, such as work_dirs/.../epoch_7.pth')
        return
    names = [name for name, _ in model.named_parameters()]
    names += [name for name, _ in model.named_buffers() if name.endswith(_STATISTICS)]
    weights = {name: state[name] for name in names if name in state}
    kinds = [name for name, weight in weights.items() if not isinstance(weight, Tensor)]
    if kinds:
        what = f'{kinds[0]} is a {type(weights[kinds[0]]).__name__}, not a tensor'
        fix = 'Save tensors: torch.from_numpy(...) of each'
        yield Finding(ERROR, file, what + _and_more(kinds, 'of another kind'), fix)
        return
    wrong = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if wrong:
        what = f'{wrong[0]} has values that are NaN or infinite' + _and_more(wrong, 'so')
        fix = 'Its training has diverged, or it was damaged: take an earlier checkpoint'
        yield Finding(ERROR, file, what, fix)


def check_weights(model: nn.Module, state: Any, file: str) -> Iterator[Finding]:
    """Check that a checkpoint has all weights of a model that is to be tested, in their shape.

    mmengine would log those that do not fit, and test with random ones.

    Args:
        model (nn.Module): The model, without wrappers.
        state (dict): What is in the checkpoint, or its weights alone.
        file (str): The checkpoint.
    """
    names = saved_classes(state) if isinstance(state, Mapping) else None
    state = saved_weights(state)
    wrong = list(check_numbers(model, state, file))
    yield from wrong
    if wrong:
        return
    wanted = dict(model.named_parameters())
    if not set(wanted) & set(state) and wanted:
        what = f'it has no weight of the model; its keys are {listed(state)}'
        fix = 'Take the config that it was trained with; other programs name weights otherwise'
        yield Finding(ERROR, file, what, fix)
        return
    other = [k for k, w in wanted.items() if k in state and state[k].shape != w.shape]
    missing = [key for key in wanted if key not in state]
    if other:
        key = other[0]
        of, fix = 'another model', 'Take the config that it was trained with'
        if counts := _class_counts(model, {k: (wanted[k], state[k]) for k in other}):
            count, expected = counts
            of = f'{count} classes'
            of += f' ({listed(names)})' if names and len(names) == count else ''
            of += f", the config's model of {expected}"
            fix += f', or set num_classes to {count} in every head and name these classes in '
            fix += 'metainfo=dict(classes=...) of every data set'
        yield Finding(
            ERROR,
            file,
            f'it is of {of}: {key} has the shape {tuple(state[key].shape)}, and '
            f"{tuple(wanted[key].shape)} in the config's" + _and_more(other, 'in another shape'),
            fix,
        )
    if missing:
        without_head = all(key.startswith('focus_head.') for key in missing)
        yield Finding(
            ERROR,
            file,
            f"it is of another model: it lacks {missing[0]} of the config's"
            + _and_more(missing, 'missing'),
            'Without a FocusHead use the SNIPER config'
            if without_head
            else 'Take the config that it was trained with',
        )


def _class_counts(
    model: nn.Module, layers: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[int, int] | None:
    """Of how many classes weights are, and a model; None if they differ in more than that.

    Args:
        model (nn.Module): The model.
        layers (dict[str, tuple[Tensor, Tensor]]): The model's and the other weights of each layer
            in which their shapes differ.
    """
    heads = {head.where.removeprefix('model.'): head.num_classes for head in model_heads(model)}
    possible: list[set[int]] = []
    expected = 0
    for key, (wanted, saved) in layers.items():
        head = next((name for name in heads if key.startswith(f'{name}.')), None)
        if head is None or wanted.shape[1:] != saved.shape[1:]:
            return None
        expected, counts = heads[head], set()
        for background in (0, 1):  # a layer has so many outputs for each class, and for background
            outputs, rest = divmod(len(wanted), expected + background)
            if outputs and not rest and not len(saved) % outputs:
                counts.add(len(saved) // outputs - background)
        possible.append(counts)
    found = set.intersection(*possible)
    return (found.pop(), expected) if len(found) == 1 else None


def _and_more(keys: Sequence[str], how: str) -> str:
    return f' ({len(keys)} weights are {how})' if len(keys) > 1 else ''


def model_heads(model: nn.Module) -> Iterator[Head]:
    """The parts of a model that say of how many classes they are, also by a default."""
    if isinstance(model, RPN):  # its only head is of one class, and called bbox_head
        return
    for name, module in model.named_modules():
        key = class_key(vars(module))
        count = getattr(module, key, None)
        # A Mask2Former has as many as its head.
        if name and isinstance(count, int) and not set(name.split('.')) & OTHER_CLASSES:
            yield Head(f'model.{name}', type_name(module), count, key)


def check_objects(dataset: Any, where: str) -> Iterator[Finding]:
    """Count the labels of a data set that has been built, of whatever format.

    Args:
        dataset (BaseDataset): A data set that reads images.
        where (str): Its config key.
    """
    classes = dataset.metainfo.get('classes')
    if not classes or isinstance(classes, str):
        return
    infos = map(dataset.get_data_info, range(len(dataset)))
    count = Counter(o.get('bbox_label') for info in infos for o in info.get('instances', ()))
    others = sorted(label for label in count if label is not None and not 0 <= label < len(classes))
    if others:
        what = f'has objects of label {others[0]}, and {len(classes)} classes, which are 0 to '
        what += f'{len(classes) - 1}: a head would take them for background'
        yield Finding(ERROR, where, what, 'Correct metainfo, or how the data set numbers labels')
    without = [name for label, name in enumerate(classes) if not count[label]]
    if without and count:
        of = 'learned' if where.startswith('train_dataloader') else 'measured'
        fix = f'Is that meant? {"They" if len(without) > 1 else "It"} cannot be {of}'
        yield Finding(WARNING, where, f'has no object of {listed(without)}', fix)


def check_use(dataset: Any, where: str) -> Iterator[Finding]:
    """What a data set uses of its COCO or XML files, and what looks wrong in a COCO file.

    Args:
        dataset (BaseDataset): A data set that reads images, built.
        where (str): Its config key.
    """
    if isinstance(dataset, XMLDataset) and (line := voc_use(dataset)):
        yield Finding(NOTE, where, line)
    if not isinstance(dataset, CocoDataset) or not _numbering(type(dataset)):
        return
    if '://' in dataset.ann_file:
        return
    file = CocoFile.read(dataset.ann_file, test=dataset.test_mode)
    use = file.use(dataset.metainfo['classes'], None if dataset.test_mode else dataset.filter_cfg)
    for is_warning, message in use.messages():
        yield Finding(WARNING if is_warning else NOTE, where, message)
    try:
        if not dataset.test_mode:
            use.check_training()
    except ValueError as error:
        yield Finding(ERROR, where, str(error))
