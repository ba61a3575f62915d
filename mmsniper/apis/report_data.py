"""The numbers of a report: the training data of a config, and what its pyramid makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

from mmsniper.apis.epoch_chips import EpochChips, plan_epoch, viewed, viewing_dataset
from mmsniper.checks.everything import BuiltData
from mmsniper.chips import (
    GOOD_SIZE_RANGE,
    POSITIVE,
    ChipPlan,
    ScalePyramid,
    describe_range,
    describe_rule,
    learned_levels,
    network_sizes,
    plan_numbers,
    size_shares,
    what_to_expect,
)
from mmsniper.chips.statistics import FAR_AHEAD, LEVEL, MEASURED
from mmsniper.convert.pyramid import config_pyramid
from mmsniper.convert.training_chips import negative_chip_hook, samples_chips
from mmsniper.datasets.transforms.load_large_image import in_large_version
from mmsniper.datasets.wrappers import all_datasets, class_names, read_datasets, type_name
from mmsniper.utils.command_line import progress
from mmsniper.utils.files import utf8_name
from mmsniper.visualization.charts import size_chart
from mmsniper.visualization.figure import level_colour

_TESTS = dict(  # the nearest class first
    AutoFocus='coarse to fine, finer levels only where it has to look again (AutoFocus)',
    PyramidDetector='at every level of the pyramid',
)


@dataclass(frozen=True, eq=False)
class ReportData:
    """A config's training data and their chips.

    Attributes:
        chips (EpochChips): The chips of the first epoch, with a pool also negative ones.
        labels (np.ndarray): (num_boxes,) label of each box of ``chips.table``, -1 if it has none.
        dataset (BaseDataset): Gives chips to look at.
        loader (Callable): The transform that loads an image.
    """

    chips: EpochChips
    labels: NDArray[np.int64]
    dataset: Any
    loader: Callable[[dict], dict | None]

    @classmethod
    def from_config(
        cls, cfg: Config, pool: str | os.PathLike | None = None, built: BuiltData | None = None
    ) -> ReportData:
        """Build a config's training data and plan its chips. No image is opened.

        Args:
            cfg (Config): The config, with a pyramid.
            pool (str | os.PathLike | None): File of a pool of negative chips. Defaults to None.
            built (BuiltData | None): What is built of the config already. Defaults to None.

        Raises:
            ValueError: If the data cannot be read, there is no chip, or the pool is of other images
                or another pyramid.
        """
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        if not (cfg.get('train_dataloader') or {}).get('dataset'):
            raise ValueError(f'{cfg.filename} has no train_dataloader.dataset to report on')
        pyramid = config_pyramid(cfg).to_dict()
        built = built or BuiltData(cfg)
        config, loading = viewing_dataset(cfg.train_dataloader.dataset.to_dict(), pyramid, False)
        sampler = None
        if 'ChipDataset' in map(type_name, all_datasets(cfg.train_dataloader.dataset)):
            dataset = viewed(built.dataset('train_dataloader'))
            sampling = cfg.train_dataloader.get('sampler')
            if samples_chips(sampling) and not sampling.get('negatives'):
                sampler = built.sampler()
        else:
            dataset = DATASETS.build(config)
        chips = plan_epoch(cfg, dataset, pool=pool, sampler=sampler)
        loader = TRANSFORMS.build(in_large_version(loading))
        return cls(chips, _labels(dataset, len(chips.table.boxes)), dataset, loader)

    @property
    def pyramid(self) -> ScalePyramid:
        """The pyramid."""
        return self.chips.pyramid

    @cached_property
    def positives(self) -> ChipPlan:
        """The positive chips."""
        return self.chips.plan.take(self.chips.plan.kind == POSITIVE)

    @cached_property
    def learned(self) -> NDArray[np.bool_]:
        """(num_boxes, num_levels), see :func:`~mmsniper.chips.learned_levels`."""
        return learned_levels(self.chips.table, self.pyramid)

    @cached_property
    def orphans(self) -> NDArray[np.bool_]:
        """(num_boxes,) whether a box fits into a chip at no level where it is valid."""
        return ~self.learned.any(axis=1) & ~self.chips.table.ignore

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """(num_boxes,) sqrt of each box's area, original px."""
        return self.chips.table.sizes_of(slice(None))

    def class_name(self, label: int) -> str:
        """What a label is called."""
        names = self.chips.class_names
        return str(names[label]) if 0 <= label < len(names) else f'label {label}'


def _labels(dataset: Any, num_boxes: int) -> NDArray[np.int64]:
    labels = np.full(num_boxes, -1)
    at = 0
    for i in progress(range(len(dataset)), 'reading labels'):
        for instance in dataset.get_data_info(i).get('instances', ()):
            labels[at] = instance.get('bbox_label', -1)
            at += 1
    return labels


def config_rows(cfg: Config) -> list[tuple[str, str]]:
    """What a config is, as pairs of a name and a value."""
    model, hook = cfg.model, negative_chip_hook(cfg)
    loader = cfg.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    backbone = model.get('backbone') or {}
    depth = f'-{backbone["depth"]}' if isinstance(backbone.get('depth'), int) else ''
    if hook:
        epochs = hook.get('warmup_epochs', 2)
        negatives = f'mined after {epochs} epoch{"s" if epochs != 1 else ""} of training'
    else:
        negatives = utf8_name(str(sampler['negatives'])) if sampler.get('negatives') else 'none'
    tests = (how for name, how in _TESTS.items() if name in class_names(model, MODELS))
    rows = [
        ('detector', model.get('detector') or type_name(model)),
        ('backbone', f'{type_name(backbone)}{depth}' if backbone else 'none'),
        ('training data', _data_sets(loader)),
        ('validation data', _data_sets(cfg.get('val_dataloader') or {})),
        ('batch', f'{loader.get("batch_size", "?")} chips of {cfg.pyramid.chip_size} px'),
        ('epochs', str((cfg.get('train_cfg') or {}).get('max_epochs', 'by iterations'))),
        ('negative chips', negatives),
        ('tested', next(tests, f'as {type_name(model)} does it')),
    ]
    return [(name, str(value)) for name, value in rows]


def _data_sets(loader: Mapping[str, Any]) -> str:
    parts = []
    for part in read_datasets(loader['dataset']) if loader.get('dataset') else ():
        file = os.path.join(part.get('data_root') or '', part.get('ann_file') or '')
        parts.append(f'{type_name(part)} {utf8_name(file)}'.strip())
    return ', '.join(dict.fromkeys(parts)) or 'none'


def pyramid_rows(pyramid: ScalePyramid) -> list[dict[str, Any]]:
    """The levels of a pyramid, fine to coarse, as texts; ``test`` is '' where nothing differs."""
    rows = []
    for i, level in enumerate(pyramid.levels):
        test = []
        if level.test_resize != level.resize:
            test.append(describe_rule(level.test_resize))
        if level.test_range != level.valid_range:
            test.append(describe_range(level.test_range))
        rows.append(
            dict(
                level=i,
                colour=level_colour(i),
                rule=describe_rule(level.resize),
                range=describe_range(level.valid_range),
                test=', '.join(test),
            )
        )
    return rows


def numbers_of(data: ReportData) -> dict[str, Any]:
    """What ``chip_stats.py`` and ``suggest_pyramid.py`` tell, and the objects of each level.

    Returns:
        dict: Numbers by the names of :func:`~mmsniper.chips.plan_numbers`; ``shares`` of the
        objects by the size at which they are shown; ``expect``, the verdict as text; ``by_levels``,
        how many objects are learned at 0, 1, ... levels; and ``levels``, a dict for each.
    """
    table, pyramid, learned = data.chips.table, data.pyramid, data.learned
    numbers = plan_numbers(table, pyramid, data.positives)
    count = np.bincount(learned.sum(axis=1)[~table.ignore], minlength=pyramid.num_levels + 1)
    scales = np.median(pyramid.scales(table.width, table.height), axis=0)
    levels = []
    for i, shown in enumerate(network_sizes(table, pyramid)):
        objects, chips = int(learned[:, i].sum()), numbers['chips_per_level'][i]
        sizes: list[float] = np.percentile(shown, [5, 50, 95]).tolist() if len(shown) else []
        levels.append(
            dict(
                objects=objects,
                share=objects / max(numbers['boxes'], 1),
                chips=chips,
                per_image=chips / max(numbers['images'], 1),
                area=numbers['shown_area'][i],
                scale=float(scales[i]),
                side=pyramid.chip_size / float(scales[i]),
                network=', '.join(f'{size:.0f}' for size in sizes),
            )
        )
    # The line begins with the ratio, which the page shows large.
    orphans = numbers['orphans'] / max(numbers['boxes'], 1)
    expect = what_to_expect(numbers['pixel_ratio_finest'], orphans).partition(': ')[2]
    return dict(
        numbers,
        shares=size_shares(table, pyramid),
        good_sizes=[round(bound * pyramid.chip_size) for bound in GOOD_SIZE_RANGE],
        expect=expect,
        measured=MEASURED,
        bounds=(FAR_AHEAD, LEVEL),
        by_levels=count.tolist(),
        levels=levels,
        chip_size=pyramid.chip_size,
        adopt_orphans=pyramid.adopt_orphans,
        sizes=size_chart(data.sizes[~table.ignore], pyramid.ranges()),
    )


def class_rows(data: ReportData) -> list[dict[str, Any]]:
    """How many objects of each class there are, and how large they are, the most frequent first."""
    counted = ~data.chips.table.ignore
    labels, sizes, orphans = (v[counted] for v in (data.labels, data.sizes, data.orphans))
    order = np.argsort(labels, kind='stable')
    labels, sizes, orphans = labels[order], sizes[order], orphans[order]
    known = range(len(data.chips.class_names))
    rows = []
    for label in sorted({*known, *np.unique(labels).tolist()}):
        mine = slice(*np.searchsorted(labels, [label, label + 1]))
        number = mine.stop - mine.start
        rows.append(
            dict(
                name=data.class_name(label),
                objects=number,
                size=f'{np.median(sizes[mine]):.3g}' if number else '',
                orphans=int(orphans[mine].sum()),
            )
        )
    rows.sort(key=lambda row: -row['objects'])
    largest = max((row['objects'] for row in rows), default=0) or 1
    return [dict(row, bar=round(100 * row['objects'] / largest, 2)) for row in rows]
