"""AutoFocus against the full pyramid, one scale and uniform slicing: accuracy, pixels and time.

One model is tested in many ways on the validation images, all in one process and one run:

- the full pyramid, which is AutoFocus with thresholds of 0;
- AutoFocus at several thresholds, with its focus head and by the detector's own detections, with
  the config's other settings; and with some that differ, as their names say;
- AutoFocus with the FocusPixels that the annotations tell: what a perfect branch would reach;
- the coarsest level alone, and one scale: the stock detector with the pipeline of the baseline;
- slices by SAHI (`pip install -r requirements/benchmark.txt`), with its defaults and with a small
  grid of settings. Without SAHI these rows are left out.

Pixels are those that enter the detector, before padding. Time is the processor time of this process
from the image's file to its detections. An image is seen in all ways in turn before the next, so
that the noise of a shared machine is shared; a way's time is given relative to the full pyramid's
in the same round.

Writes benchmarks/results/autofocus_NAME.json, .md and .png.

    OMP_NUM_THREADS=1 python benchmarks/autofocus.py toy work_dirs/autofocus_toy/epoch_10.pth
    OMP_NUM_THREADS=1 python benchmarks/autofocus.py bccd work_dirs/autofocus_bccd/epoch_8.pth
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from matplotlib.ticker import NullLocator
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.dataset import Compose
from mmengine.runner import load_checkpoint
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from harness.results import write_results
from harness.slicing import SOFT_NMS, SlicedDetector, Slicing
from harness.stock_detector import stock_detector
from mmsniper.chips.focus import FocusMap, focus_sizes
from mmsniper.convert import load_config
from mmsniper.models import AutoFocus
from mmsniper.models.autofocus import step_thresholds
from mmsniper.models.focus_head import POSITIVE, focus_targets
from mmsniper.models.views import Scene
from mmsniper.utils.command_line import (
    add_config_arguments,
    at_least,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.visualization.figure import new_figure, save_figure

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'toy': 'faster_rcnn_r18_autofocus_toy.py',
    'bccd': 'faster_rcnn_r18_autofocus_bccd.py',
    'hituav': 'faster_rcnn_yolox_nano_autofocus_hituav.py',
}
BASELINES = {
    'toy': 'faster_rcnn_r18_single_scale_toy.py',
    'bccd': 'faster_rcnn_r18_single_scale_bccd.py',
    'hituav': 'faster_rcnn_yolox_nano_hituav.py',
}
CONFIGS = {name: ROOT / 'configs' / 'autofocus' / file for name, file in CONFIGS.items()}
BASELINES = {name: ROOT / 'configs' / 'baselines' / file for name, file in BASELINES.items()}
FULL = 'full pyramid'
HEAD, OWN, SLICES = 'AutoFocus', 'AutoFocus, own detections', 'SAHI'
SMALL = 'AutoFocus, own detections, smaller chips'
TRUE = 'AutoFocus, true FocusPixels'
TILES = 'SAHI, trained on tiles'
HEAD_THRESHOLDS = (0.02, (0.02, 0.2), 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
OWN_THRESHOLDS = (0.01, 0.03, 0.1, 0.15, 0.2, 0.3)
# Settings that differ from the config's, each with all else as it is.
VARIANTS = (dict(dilation=1), dict(min_rpn_proposals=None))
VARIED = 0.3  # their threshold
DEVICE = 'cpu'  # of all ways: what is compared is processor time
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5)
COLOURS = {
    FULL: '#222222',
    HEAD: '#d62728',
    OWN: '#ff9f1c',
    SMALL: '#b8860b',
    TRUE: '#e377c2',
    SLICES: '#19a7ff',
    TILES: '#8c564b',
    'one scale': '#2ca02c',
    'coarse level': '#9b6bff',
}
Detections = list[dict[str, Any]]


@dataclass(frozen=True)
class Way:
    """One way to test the model.

    Attributes:
        group: Which curve it belongs to.
        settings: What it is told.
        detect: Detections of image number i, as COCO's results without ``image_id``.
        rounds: In how many rounds it is timed, at most.
    """

    group: str
    settings: Mapping[str, Any]
    detect: Callable[[int], Detections]
    rounds: int = 1000

    @property
    def name(self) -> str:
        """Group and settings, unique in a run."""
        told = ', '.join(f'{key} {_written(value)}' for key, value in self.settings.items())
        return f'{self.group}: {told}' if told else self.group


@dataclass
class Measured:
    """What one way has found and cost."""

    detections: Detections = field(default_factory=list)
    pixels: int = 0
    inputs: int = 0
    seconds: list[float] = field(default_factory=list)  # of each round


class InputCounter:
    """Counts the images that enter data preprocessors, and their pixels."""

    def __init__(self) -> None:
        self.pixels = self.inputs = 0

    def watch(self, preprocessor: nn.Module) -> None:
        """Count what enters this preprocessor from now on."""
        preprocessor.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, args: tuple) -> None:
        images = args[0]['inputs']
        self.inputs += len(images)
        self.pixels += sum(image.shape[-2] * image.shape[-1] for image in images)


class Bench:
    """A model, its validation images, and the ways to test it.

    Args:
        config (Path): Config file of the AutoFocus model.
        checkpoint (Path): Its weights.
        baseline (Path): Config whose test pipeline resizes to the one scale.
        images (int | None): Number of validation images to take, evenly spread; None: all.
        options (dict | None): Settings that override the config's.

    Raises:
        ValueError: If the config is of another model.
    """

    def __init__(
        self,
        config: Path,
        checkpoint: Path,
        baseline: Path,
        images: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.cfg = load_config(config, options)
        if self.cfg.model.type != 'AutoFocus':
            raise ValueError(f'{config} has a model of type {self.cfg.model.type}, not AutoFocus')
        data = self.cfg.test_dataloader.dataset
        data.data_root = str(ROOT / data.data_root)
        self.model: AutoFocus = MODELS.build(self.cfg.model).eval()
        weights = load_checkpoint(self.model, str(checkpoint), map_location='cpu')
        self.meta = weights['meta']['dataset_meta']
        self.focus_head = self.model.focus_head
        self.stock = MODELS.build(stock_detector(self.cfg.model)).eval()
        own = self.model.state_dict()
        self.stock.load_state_dict({key: own[key] for key in self.stock.state_dict()})
        self.dataset = DATASETS.build(data)
        count = len(self.dataset)
        taken = np.linspace(0, count, min(images or count, count), endpoint=False).astype(int)
        self.infos = [self.dataset.get_data_info(int(i)) for i in taken]
        with contextlib.redirect_stdout(io.StringIO()):
            self.truth = COCO(self.dataset.ann_file)
        self.coarse_to_fine = self.dataset.pipeline
        self.one_scale = Compose(load_config(baseline).test_dataloader.dataset.pipeline)
        self.counter = InputCounter()
        for model in (self.model, self.stock):
            self.counter.watch(model.data_preprocessor)

    def focus(
        self, thresholds: float | Sequence[float], head: nn.Module | None, **settings: Any
    ) -> Callable[[int], Detections]:
        """AutoFocus with these thresholds, this focus head and other attributes."""
        steps = self.model.pyramid.num_levels - 1
        settings['thresholds'] = step_thresholds(thresholds, steps)
        settings['focus_head'] = head

        def detect(number: int) -> Detections:
            before = {key: getattr(self.model, key) for key in settings}
            try:
                for key, value in settings.items():
                    setattr(self.model, key, value)
                return self._test(self.model, self.coarse_to_fine, number)
            finally:
                for key, value in before.items():
                    setattr(self.model, key, value)

        return detect

    def true_focus(self, number: int) -> Detections:
        """AutoFocus whose branch finds just what it is to find."""
        regions = partial(self._true_regions, number, self.model._regions)
        with patch.object(self.model, '_regions', regions):
            return self.focus(0.5, self.focus_head)(number)

    def _true_regions(
        self, number: int, regions: Callable, scene: Scene, level: int
    ) -> NDArray[np.float64]:
        if scene.chips:  # the coarsest level is seen whole
            scene.maps[-1][:] = [self._true_map(number, scene, level + 1)]
        return regions(scene, level)

    def _true_map(self, number: int, scene: Scene, level: int) -> FocusMap:
        """What a perfect branch would tell of an image at a level."""
        scale = self.model._scale(scene, level)
        stride = getattr(self.focus_head, 'stride', 16)
        shape = tuple(math.ceil(side * scale / stride) for side in scene.size[::-1])
        boxes = self.truth.imgToAnns[self.infos[number]['img_id']]
        boxes = [box['bbox'] for box in boxes if not box.get('iscrowd')]
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale
        boxes[:, 2:] += boxes[:, :2]
        must = focus_sizes(self.model.pyramid)[level, 0] * scale
        cells = focus_targets(boxes, boxes[:0], shape, stride, (0.0, must), must) == POSITIVE
        whole = (0.0, 0.0, *map(float, scene.size))
        return FocusMap(cells.numpy().astype(np.float32), whole, (stride / scale, stride / scale))

    def single(self, number: int) -> Detections:
        """One pass of the stock detector."""
        return self._test(self.stock, self.one_scale, number)

    def _test(self, model: nn.Module, pipeline: Compose, number: int) -> Detections:
        item = pipeline(dict(self.infos[number]))
        data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        found = model.test_step(data)[0].pred_instances
        parts = found.bboxes, found.scores, found.labels
        return _coco(self.dataset.cat_ids, *(part.tolist() for part in parts))

    def ways(self) -> list[Way]:
        """All but SAHI's."""
        head = self.focus_head
        ways = [
            Way(FULL, {}, self.focus(0.0, head)),
            Way('coarse level', {}, self.focus(2.0, head)),
            Way('one scale', {}, self.single),
            Way(TRUE, {}, self.true_focus),
        ]
        steps = self.model.pyramid.num_levels - 1
        several = [t for t in HEAD_THRESHOLDS if not isinstance(t, tuple) or len(t) == steps]
        ways += [Way(HEAD, dict(t=t), self.focus(t, head)) for t in several]
        for change in VARIANTS:
            ways.append(Way(HEAD, dict(t=VARIED, **change), self.focus(VARIED, head, **change)))
        ways += [Way(OWN, dict(t=t), self.focus(t, None)) for t in OWN_THRESHOLDS]
        side = self.model.pyramid.chip_size * 3 // 5
        for t in OWN_THRESHOLDS:
            detect = self.focus(t, None, min_chip_side=side)
            ways.append(Way(SMALL, dict(t=t, min_chip_side=side), detect))
        return ways

    def evaluate(self, detections: Detections) -> dict[str, float]:
        """COCO's AP and AP of small objects of detections on these images."""
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self.truth, self.truth.loadRes(detections), 'bbox')
            evaluation.params.imgIds = [info['img_id'] for info in self.infos]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        ap, _, _, small = evaluation.stats[:4]
        return dict(AP=round(float(ap), 4), AP_small=round(float(small), 4))


class Slicer:
    """A detector behind SAHI, on a bench's images.

    Slices are seen at the scale of the pyramid's finest level. The full image, if it is seen as
    well, is resized to a slice's size, as SAHI's `image_size` does.

    Args:
        bench (Bench): Whose images are sliced.
        detector (SlicedDetector): The detector.
        group (str): Which curve it belongs to. Defaults to ``SLICES``.
    """

    def __init__(self, bench: Bench, detector: SlicedDetector, group: str = SLICES) -> None:
        self.bench, self.detector, self.group = bench, detector, group
        self._watched: set[int] = set()

    @classmethod
    def of_bench(cls, bench: Bench, folder: Path) -> Slicer:
        """The bench's own model as a stock detector, without the focus head."""
        weights = folder / 'detector.pth'
        content = dict(state_dict=bench.stock.state_dict(), meta=dict(dataset_meta=bench.meta))
        torch.save(content, weights)
        return cls(bench, SlicedDetector(bench.cfg, weights, folder, DEVICE))

    def detect(self, slicing: Slicing) -> Callable[[int], Detections]:
        """Detections with these settings."""
        model = self.detector.model(slicing)
        if id(model) not in self._watched:  # some settings share one
            self._watched.add(id(model))
            self.bench.counter.watch(model.model.model.data_preprocessor)

        def detect_(number: int) -> Detections:
            found = self.detector.detect(self.bench.infos[number]['img_path'], slicing)
            return _coco(self.bench.dataset.cat_ids, *(part.tolist() for part in found))

        return detect_

    def ways(self) -> list[Way]:
        """The defaults, and the grid."""
        pyramid, info = self.bench.model.pyramid, self.bench.infos[0]
        scales = pyramid.scales(info['width'], info['height'], test=True)
        finest = float(scales[0])
        # Of a slice as large as the image at a level, the full image is seen as at that level.
        middle = round(max(info['width'], info['height']) * float(scales[1]))
        sides = sorted({pyramid.chip_size, 2 * pyramid.chip_size, middle, 512})
        at_best = Slicing(0, merge='NMS', metric='IOU', confidence=0.01, zoom=finest)

        def seen(side: int, **changed: Any) -> Slicing:
            return replace(at_best, slice=round(side / finest), **changed)

        grid = [seen(512, merge='GREEDYNMM', metric='IOS', confidence=0.25)]  # sahi predict's
        grid += [seen(side) for side in sides]
        grid.append(seen(middle, full_image=False))
        grid.append(seen(middle, merge=SOFT_NMS))
        grid.append(seen(middle, merge='GREEDYNMM', metric='IOS', confidence=0.1))
        return [Way(self.group, one.told(), self.detect(one), rounds=1) for one in grid]


def _coco(
    cat_ids: Sequence[int], boxes: Sequence, scores: Sequence, labels: Sequence
) -> Detections:
    return [
        dict(category_id=cat_ids[label], bbox=[x1, y1, x2 - x1, y2 - y1], score=score)
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels)
    ]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, tuple):
        return '/'.join(f'{one:g}' for one in value)
    return str(value)


def measure(bench: Bench, ways: Sequence[Way], rounds: int) -> dict[str, Measured]:
    """See all images in all ways, the ways of an image in turn."""
    measured = {way.name: Measured() for way in ways}
    for round_ in range(rounds):
        now = [way for way in ways if round_ < way.rounds]
        for way in now:
            measured[way.name].seconds.append(0.0)
        for number in progress(range(len(bench.infos)), f'round {round_ + 1}'):
            # Another order for each image: who comes first finds cold caches.
            for way in np.roll(np.array(now, object), number).tolist():
                once(bench, way, number, measured[way.name], keep=round_ == 0)
    return measured


def once(bench: Bench, way: Way, number: int, measured: Measured, keep: bool) -> None:
    """See one image in one way."""
    counter = bench.counter
    before, start = (counter.pixels, counter.inputs), time.process_time()
    found = way.detect(number)
    measured.seconds[-1] += time.process_time() - start
    if keep:
        measured.pixels += counter.pixels - before[0]
        measured.inputs += counter.inputs - before[1]
        image = bench.infos[number]['img_id']
        measured.detections += [dict(one, image_id=image) for one in found]


def as_rows(
    bench: Bench, ways: Sequence[Way], measured: Mapping[str, Measured]
) -> list[dict[str, Any]]:
    """A row of each way; pixels and time also as fractions of the full pyramid's."""
    full = measured[FULL]
    rows = []
    for way in ways:
        one = measured[way.name]
        ratios = [mine / theirs for mine, theirs in zip(one.seconds, full.seconds)]
        rows.append(
            dict(
                name=way.name,
                group=way.group,
                settings=dict(way.settings),
                **bench.evaluate(one.detections),
                Mpx=round(one.pixels / 1e6, 2),
                pixels=round(one.pixels / full.pixels, 4),
                inputs=round(one.inputs / len(bench.infos), 2),
                time=round(median(ratios), 4),
                time_of_rounds=[round(ratio, 4) for ratio in ratios],
                cpu_seconds=[round(seconds, 2) for seconds in one.seconds],
            )
        )
    return rows


def frontier(rows: Sequence[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    """Rows that no other beats in both AP and cost, cheap to dear."""
    best: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row[cost], -row['AP'])):
        if not best or row['AP'] > best[-1]['AP']:
            best.append(row)
    return best


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """The cheapest AutoFocus within half a point of the full pyramid."""
    near = _near(rows)
    if not near:
        return 'No AutoFocus row is within 0.005 AP of the full pyramid.'
    pixels = min(near, key=lambda row: row['pixels'])
    seconds = min(near, key=lambda row: row['time'])
    return (
        f'Within 0.005 AP of the full pyramid, AutoFocus needs at best {1 / pixels["pixels"]:.2f} '
        f'times fewer pixels ({pixels["name"]}) and {1 / seconds["time"]:.2f} times less time '
        f'({seconds["name"]}).'
    )


def chosen(rows: Sequence[Mapping[str, Any]], elsewhere: Mapping[str, Any]) -> str:
    """What the way with the fewest pixels on other images, within half a point there, gives here.

    Args:
        rows: Of this run.
        elsewhere: The result of a run on images held out of the training set.
    """
    near = _near(elsewhere['rows'])
    if not near:
        return 'On the images held out no AutoFocus row is within 0.005 AP of the full pyramid.'
    name = min(near, key=lambda row: row['pixels'])['name']
    (full,) = (row for row in rows if row['group'] == FULL)
    (row,) = (row for row in rows if row['name'] == name)
    return (
        f'Chosen on {elsewhere["images"]} images held out of the training set, of what is within '
        f'0.005 AP there: {name}. Here it has {row["AP"]:.3f}, and the full pyramid '
        f'{full["AP"]:.3f}, with {1 / row["pixels"]:.2f} times fewer pixels and '
        f'{1 / row["time"]:.2f} times less time.'
    )


def _near(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """AutoFocus's rows within half a point of the full pyramid."""
    (full,) = (row for row in rows if row['group'] == FULL)
    return [
        row
        for row in rows
        if row['group'] in (HEAD, OWN, SMALL) and row['AP'] >= full['AP'] - 0.005
    ]


def as_table(result: Mapping[str, Any]) -> str:
    """The result as a page."""
    lines = [
        f'# AutoFocus, {result["data"]}',
        '',
        f'`{result["command"]}`',
        '',
        f'{result["images"]} validation images, one model of one training. Pixels and time are '
        f"fractions of the full pyramid's; time is processor time, the median of "
        f'{result["rounds"]} rounds (SAHI: one), {result["threads"]} thread.',
        '',
        '| way | AP | AP small | Mpx | pixels | inputs per image | time |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in result['rows']:
        lines.append(
            f'| {row["name"]} | {row["AP"]:.3f} | {row["AP_small"]:.3f} | {row["Mpx"]:.1f} | '
            f'{row["pixels"]:.3f} | {row["inputs"]:.1f} | {row["time"]:.3f} |'
        )
    lines += ['', result['verdict']]
    if not result['sahi']:
        lines += ['', 'Without SAHI.']
    return '\n'.join(lines) + '\n'


def draw(result: Mapping[str, Any], path: Path) -> None:
    """AP against pixels and against time."""
    figure = new_figure(11, 4.6)
    rows = result['rows']
    for place, (cost, label) in enumerate((('pixels', 'pixels'), ('time', 'processor time'))):
        axes = figure.add_subplot(1, 2, place + 1)
        for group in dict.fromkeys(row['group'] for row in rows):
            some = [row for row in rows if row['group'] == group]
            axes.plot(
                [row[cost] for row in some],
                [row['AP'] for row in some],
                'o',
                color=COLOURS[group],
                markersize=5,
                label=group,
            )
            best = frontier(some, cost)
            axes.plot(
                [row[cost] for row in best],
                [row['AP'] for row in best],
                color=COLOURS[group],
                linewidth=1,
            )
        (full,) = (row for row in rows if row['group'] == FULL)
        axes.axhline(full['AP'] - 0.005, color='#b4b4b4', linewidth=0.8, linestyle='--')
        axes.set_xscale('log')
        axes.set_xticks(TICKS, [f'{tick:g}' for tick in TICKS])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f'{label}, full pyramid = 1')
        axes.set_ylabel('AP')
        axes.grid(True, which='both', color='#eeeeee')
        axes.set_axisbelow(True)
    figure.axes[1].legend(fontsize=8)
    figure.suptitle(
        f'{result["data"]}: dots are settings, lines the best of each way; '
        f'dashed: 0.005 AP below the full pyramid',
        fontsize=9,
    )
    figure.tight_layout()
    save_figure(figure, path)


@contextlib.contextmanager
def all_ways(bench: Bench, sahi: bool, tiles: Sequence[str] | None) -> Iterator[list[Way]]:
    """Every way to test the model, and one that was trained on tiles: its config and weights."""
    ways = bench.ways()
    if not sahi:
        yield ways
        return
    with contextlib.ExitStack() as stack:
        first, second = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        ways += Slicer.of_bench(bench, first).ways()
        if tiles:
            detector = SlicedDetector(load_config(tiles[0]), Path(tiles[1]), second, DEVICE)
            ways += Slicer(bench, detector, TILES).ways()
        yield ways


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('data', choices=sorted(CONFIGS), help='which data set')
    parser.add_argument('checkpoint', type=Path, help='of an AutoFocus training')
    parser.add_argument('--config', type=Path, help="[the data set's in configs/autofocus]")
    parser.add_argument(
        '--images', type=at_least(1), help='only so many validation images, evenly spread [all]'
    )
    parser.add_argument(
        '--rounds',
        type=at_least(1),
        default=3,
        help='rounds to measure time in; SAHI is in the first',
    )
    parser.add_argument('--without-sahi', action='store_true', help='leave its rows out')
    parser.add_argument(
        '--tiles',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a detector that was trained on uniform tiles: tested by SAHI as well',
    )
    parser.add_argument('--out', type=Path, help='path of the results, without suffix')
    parser.add_argument(
        '--chosen-on',
        type=Path,
        metavar='JSON',
        help='the result on images held out of the training set, where the threshold is chosen',
    )
    add_config_arguments(parser, None)
    args = parser.parse_args(argv)
    args.config = args.config or CONFIGS[args.data]
    args.baseline = BASELINES[args.data]
    args.out = args.out or ROOT / 'benchmarks' / 'results' / f'autofocus_{args.data}'
    return args


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    register_all_modules(init_default_scope=True)
    installed = importlib.util.find_spec('sahi') is not None
    sahi = installed and not args.without_sahi
    if not installed:
        print(
            'SAHI is not installed (pip install -r requirements/benchmark.txt): '
            'its rows are left out.',
            file=sys.stderr,
        )
    elsewhere = [json.loads(args.chosen_on.read_text('utf-8'))] if args.chosen_on else []
    bench = Bench(args.config, args.checkpoint, args.baseline, args.images, args.cfg_options)
    with all_ways(bench, sahi, args.tiles) as ways:
        bench.counter.pixels = bench.counter.inputs = 0
        measured = measure(bench, ways, args.rounds)
    rows = as_rows(bench, ways, measured)
    result = dict(
        command=f'python benchmarks/autofocus.py {args.data} CHECKPOINT --rounds {args.rounds}'
        + (f' --images {args.images}' if args.images else '')
        + (' --without-sahi' if args.without_sahi else '')
        + (' --tiles CONFIG CHECKPOINT' if args.tiles else '')
        + (' --chosen-on JSON' if args.chosen_on else '')
        + (' --cfg-options ...' if args.cfg_options else ''),
        data=args.data,
        checkpoint=args.checkpoint.name,
        images=len(bench.infos),
        rounds=args.rounds,
        threads=torch.get_num_threads(),
        sahi=sahi,
        verdict=' '.join([verdict(rows), *(chosen(rows, part) for part in elsewhere)]),
        rows=rows,
    )
    table = as_table(result)
    write_results(args.out, result, table)
    draw(result, args.out.with_suffix('.png'))
    sys.stdout.write(table)
    return result


if __name__ == '__main__':
    main()
