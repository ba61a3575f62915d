"""AutoFocus, the full pyramid, one scale and SAHI on scenes of 1 to 100 megapixels.

Toy scenes of these sizes, whose objects are known, are detected by one model in one process:

- AutoFocus, the full pyramid and one scale, through SNIPERInferencer, from the image file on;
- SAHI (`pip install -r requirements/benchmark.txt`) with the same detector and the same weights. Up
  to 4 megapixels in a grid of settings; larger scenes with its defaults, with the fastest setting
  that had hardly less than the best AP at 4 and, up to 16, with the one that had it;
- AutoFocus with options that change what the hardware does and not what is looked at.

All ways see a scene in turn, in another order each round; a way's time is given relative to
AutoFocus's in the same round, the median over rounds. Memory is what the process takes beyond what
it had before the call, of a GPU what it holds. AP is COCO's with up to 3000 detections an image.

Without CHECKPOINT a detector is trained first, on the toy data set, which takes minutes. A GPU is
used if there is one.

Writes benchmarks/results/inference.json and .md, size by size.

    OMP_NUM_THREADS=1 python benchmarks/inference.py work_dirs/autofocus_toy/epoch_10.pth
    python benchmarks/inference.py --sizes 16 100        # the others stay in the JSON file
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from autofocus import InputCounter
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from harness.costs import Cost, cost_of
from harness.demo import make_toy_data
from harness.large_toy_scenes import BLOCK, IMAGES, SceneSize, write_scenes
from harness.random_weights import random_weights
from harness.results import machine, markdown_table, write_results
from harness.slicing import SOFT_NMS, SlicedDetector, Slicing
from mmsniper.apis import SNIPERInferencer
from mmsniper.convert import load_config
from mmsniper.models.autofocus import step_thresholds
from mmsniper.models.runtime import Runtime
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error, progress

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/inference.json'
FOLDER = ROOT / 'work_dirs/inference'
CONFIG = ROOT / 'configs/autofocus/faster_rcnn_r18_autofocus_toy.py'
ONE_SCALE = ROOT / 'configs/baselines/faster_rcnn_r18_single_scale_toy.py'
SIZES = (
    SceneSize(1, filled=1, count=8, rounds=3),
    SceneSize(2, filled=2, count=2, rounds=3),
    SceneSize(4, filled=2, rounds=3),
    SceneSize(4, filled=16),
    SceneSize(10, filled=10),
)
GRID_BLOCKS = 2  # scenes up to this size see SAHI's whole grid
BEST_BLOCKS = 4  # and up to this one the setting with the best AP, which is slow
OWN_PIXELS_BLOCKS = 4  # and a single pass at the scenes' own size
MAX_PER_IMG = 3000
REFERENCE, DEFAULT_SAHI = 'AutoFocus', 'SAHI: defaults'
FOCUS_BIAS = -9.0  # of random weights: AutoFocus sees a third of the pixels, as after training
HARDLY_LESS = 0.03  # AP: by so much a faster setting of SAHI may be below its best

Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Way:
    """One way to detect.

    Attributes:
        name: Of the row.
        detect: Boxes (n, 4) xyxy, scores and labels of each image file.
        option: Whether it is AutoFocus with an option.
        rounds: In how many rounds it is measured, at most. Defaults to 1000.
    """

    name: str
    detect: Callable[[Sequence[str]], list[Found]]
    option: bool = False
    rounds: int = 1000


@dataclass
class Measured:
    """What a way has found in the scenes of a size, and what it has cost.

    Attributes:
        found: Of each scene, in the first round.
        pixels: That have entered the detector in the first round.
        inputs: So many inputs of the network were they.
        costs: Of each round, of all scenes.
    """

    found: list[Found] = field(default_factory=list)
    pixels: int = 0
    inputs: int = 0
    costs: list[Cost] = field(default_factory=list)


class Detectors:
    """One detector behind our API, as stock MMDetection has it, and behind SAHI.

    Args:
        config (Path): Config of an AutoFocus.
        checkpoint (Path): Its weights.
        folder (Path): For the files that SAHI reads.
        device (str): Such as ``'cuda:0'``.
    """

    def __init__(self, config: Path, checkpoint: Path, folder: Path, device: str) -> None:
        self.device, cfg = device, load_config(config)
        cfg.model.merge_cfg = dict(cfg.model.get('merge_cfg') or {}, max_per_img=MAX_PER_IMG)
        self.counter, self._watched = InputCounter(), set()
        self.autofocus = self._inferencer(cfg, checkpoint, device)
        self.own_scale = self._inferencer(cfg, checkpoint, device, 'single')
        stock = load_config(ONE_SCALE)
        stock.model.test_cfg.rcnn.max_per_img = MAX_PER_IMG
        self.one_scale = self._inferencer(stock, checkpoint, device)
        self.model = self.autofocus.model
        self.thresholds = self.model.thresholds
        weights = folder / 'detector.pth'
        state = self.model.state_dict()
        state = {key: w.cpu() for key, w in state.items() if not key.startswith('focus_head.')}
        classes = list(self.autofocus.classes.names)
        torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=classes))), weights)
        self.sahi = SlicedDetector(cfg, weights, folder, device)

    def _inferencer(
        self, cfg: Config, checkpoint: Path, device: str, mode: str | None = None
    ) -> SNIPERInferencer:
        made = SNIPERInferencer(cfg, checkpoint, mode, device=device, show_progress=False)
        self.counter.watch(made.model.data_preprocessor)
        return made

    def focus(self, together: bool = False, **settings: Any) -> Callable[[Sequence[str]], Any]:
        """AutoFocus, with some settings of the model, on one image at a time or on all."""

        def detect(paths: Sequence[str]) -> list[Found]:
            with _set(self.model, settings):
                return _through(self.autofocus, paths, len(paths) if together else 1)

        return detect

    def read_on_demand(self, paths: Sequence[str]) -> list[Found]:
        """AutoFocus, with no image loaded ahead of others."""
        with _set(self.autofocus, dict(read_ahead=0)):
            return _through(self.autofocus, paths)

    def full_pyramid(self) -> Callable[[Sequence[str]], list[Found]]:
        """All of every level."""
        steps = self.model.pyramid.num_levels - 1
        return self.focus(thresholds=step_thresholds(0.0, steps), min_rpn_proposals=None)

    def slices(self, slicing: Slicing) -> Callable[[Sequence[str]], list[Found]]:
        """SAHI."""
        slicing = replace(slicing, max_per_img=MAX_PER_IMG)
        model = self.sahi.model(slicing)
        if id(model) not in self._watched:  # some settings share one
            self._watched.add(id(model))
            self.counter.watch(model.model.model.data_preprocessor)
        return lambda paths: [self.sahi.detect(path, slicing) for path in paths]

    def ways(self, size: SceneSize, slicings: Mapping[str, Slicing]) -> list[Way]:
        """How scenes of a size are detected; SAHI in some settings, by their names."""
        paper = step_thresholds(None, self.model.pyramid.num_levels - 1)
        ways = [
            Way(REFERENCE, self.focus()),
            Way('full pyramid', self.full_pyramid()),
            Way('one scale, 500 px', lambda paths: _through(self.one_scale, paths)),
        ]
        if self.thresholds != paper:
            ways.append(Way("AutoFocus, the release's thresholds", self.focus(thresholds=paper)))
        if size.blocks <= OWN_PIXELS_BLOCKS:
            ways.append(Way('one scale, own pixels', lambda ps: _through(self.own_scale, ps)))
        return ways + [
            Way(name, self.slices(slicing), rounds=1) for name, slicing in slicings.items()
        ]

    def options(self, size: SceneSize, compiled: bool) -> list[Way]:
        """AutoFocus with options."""
        options: dict[str, dict[str, Any]] = {'bf16': dict(runtime=Runtime('bf16'))}
        if self.device.startswith('cuda'):
            options['fp16'] = dict(runtime=Runtime('fp16'))
        options['unlike windows together, 1.5'] = dict(max_padding=1.5)
        if size.count > 1:
            options['all scenes together'] = dict(together=True)
            options['all scenes and unlike windows together, 1.5'] = dict(
                together=True, max_padding=1.5
            )
        if compiled:
            options['compiled'] = dict(runtime=Runtime(compiled=dict(dynamic=True)))
        ways = [Way(name, self.focus(**given), option=True) for name, given in options.items()]
        if size.count > 1:
            ways.append(Way('no scene read ahead', self.read_on_demand, option=True))
        return ways


def _through(inferencer: SNIPERInferencer, paths: Sequence[str], batch_size: int = 1) -> list:
    """What is found in image files, through the steps of the API."""
    found: list[Found] = []
    for _, data in inferencer.preprocess(list(paths), batch_size):
        found += map(_arrays, inferencer.forward(data))
    return found


def _arrays(sample: DetDataSample) -> Found:
    found = sample.pred_instances
    return found.bboxes.cpu().numpy(), found.scores.cpu().numpy(), found.labels.cpu().numpy()


@contextmanager
def _set(owner: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """Set attributes for a while."""
    before = {key: getattr(owner, key) for key in settings}
    try:
        vars(owner).update(settings)
        yield
    finally:
        vars(owner).update(before)


def slicings() -> dict[str, Slicing]:
    """Settings of SAHI, by name. Slices are seen at their own size, but for the last."""
    best = Slicing(512, merge='NMS', metric='IOU', confidence=0.01)
    grid = {DEFAULT_SAHI: Slicing(512)}
    for side in (160, 320, 512):
        grid[f'SAHI: {side} px'] = replace(best, slice=side)
    grid['SAHI: 512 px, without the full image'] = replace(best, full_image=False)
    grid['SAHI: 512 px, Soft-NMS'] = replace(best, merge=SOFT_NMS)
    grid['SAHI: 1024 px, overlap 0.4'] = replace(best, slice=1024, overlap=0.4)
    grid['SAHI: 1024 px, overlap 0.4, at half size'] = replace(
        best, slice=1024, overlap=0.4, zoom=0.5
    )
    return grid


def measure(
    ways: Sequence[Way], paths: Sequence[str], counter: InputCounter, rounds: int, device: str
) -> dict[str, Measured]:
    """Detect in all ways, in turn, once in every round."""
    measured = {way.name: Measured() for way in ways}
    for round_ in range(rounds):
        now = [way for way in ways if round_ < way.rounds]
        # Another order each time: who comes first finds cold caches.
        for way in progress(np.roll(np.array(now, object), round_).tolist(), 'ways', unit=' ways'):
            one = measured[way.name]
            before = counter.pixels, counter.inputs
            found, cost = cost_of(lambda way=way: way.detect(paths), device)
            one.costs.append(cost)
            if not one.found:
                one.found = found
                one.pixels = counter.pixels - before[0]
                one.inputs = counter.inputs - before[1]
    return measured


def average_precision(
    truth: COCO, image_ids: Sequence[int], found: Sequence[Found]
) -> dict[str, float]:
    """COCO's AP, and that of small objects, with as many detections as there are.

    Args:
        truth (COCO): The annotations; categories are numbered in the order of the labels, from 1.
        image_ids (Sequence[int]): The images.
        found (Sequence): Boxes, scores and labels of each.
    """
    rows = [
        np.column_stack([np.full(len(scores), image), boxes[:, :2], sizes, scores, labels + 1])
        for image, (boxes, scores, labels) in zip(image_ids, found)
        for sizes in [boxes[:, 2:] - boxes[:, :2]]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        results = np.concatenate(rows)
        if not len(results):
            return dict(AP=0.0, AP_small=0.0)
        evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.maxDets = [1, 10, MAX_PER_IMG]
        evaluation.evaluate()
        evaluation.accumulate()
    means = []
    for area in (0, 1):  # all, small
        precision = evaluation.eval['precision'][:, :, :, area, -1]
        means.append(float(precision[precision > -1].mean()) if (precision > -1).any() else None)
    return dict(AP=means[0], AP_small=means[1])


def as_rows(
    ways: Sequence[Way],
    measured: Mapping[str, Measured],
    evaluate: Callable[[Sequence[Found]], dict[str, float]],
) -> list[dict[str, Any]]:
    """A row of each way. Ratios are to AutoFocus in the same round, medians over rounds."""
    reference = measured[REFERENCE]
    rows = []
    for way in ways:
        one = measured[way.name]
        rows.append(
            dict(
                name=way.name,
                option=way.option,
                **evaluate(one.found),
                Mpx=one.pixels / 1e6,
                inputs=one.inputs,
                pixels=one.pixels / reference.pixels,
                cpu=_median_ratio(one, reference, 'cpu_seconds'),
                clock=_median_ratio(one, reference, 'seconds'),
                cpu_seconds=[cost.cpu_seconds for cost in one.costs],
                seconds=[cost.seconds for cost in one.costs],
                peak_bytes=_most(cost.peak_bytes for cost in one.costs),
                device_bytes=_most(cost.device_bytes for cost in one.costs),
            )
        )
    return rows


def _median_ratio(one: Measured, other: Measured, what: str) -> float:
    return median(getattr(a, what) / getattr(b, what) for a, b in zip(one.costs, other.costs))


def _most(numbers: Iterator[int | None]) -> int | None:
    return max((number for number in numbers if number is not None), default=None)


def best_slicings(rows: Sequence[Mapping[str, Any]], time: str) -> list[Mapping[str, Any]]:
    """SAHI's row with the best AP, and the fastest one with hardly less."""
    sahi = [row for row in rows if row['name'].startswith('SAHI')]
    if not sahi:
        return []
    best = max(sahi, key=lambda row: row['AP'])
    near = [row for row in sahi if row['AP'] >= best['AP'] - HARDLY_LESS]
    return [best, min(near, key=lambda row: row[time])]


def verdict(size: str, rows: Sequence[Mapping[str, Any]], time: str) -> str:
    """How many times less time AutoFocus takes than SAHI at its best, and at about its best."""
    (ours,) = (row for row in rows if row['name'] == REFERENCE)
    compared = [
        f'{row[time]:.2f} times less time than {row["name"]}, AP {row["AP"]:.3f}'
        for row in best_slicings(rows, time)
    ]
    told = '; '.join(dict.fromkeys(compared)) or 'without SAHI'
    return f'- {size}: AutoFocus, AP {ours["AP"]:.3f}: {told}'


def as_table(result: Mapping[str, Any]) -> str:
    """The result as a page."""
    time = result['time']
    lines = [
        '# Inference, from 1 to 100 megapixels',
        '',
        f'`{result["command"]}`',
        '',
        f"Toy scenes, one detector ({Path(result['config']).stem}). Times are AutoFocus's in the "
        f'same round = 1, medians of the rounds: of the processor, and by the clock, which tells '
        f'little where the load is high. SAHI is in the first round only. Memory is beyond what '
        f'the process had.',
        '',
    ]
    for part in result['sizes']:
        for is_option, title in ((False, part['size']), (True, f'{part["size"]}: options')):
            rows = [
                (
                    row['name'],
                    f'{row["AP"]:.3f}',
                    '' if row['AP_small'] is None else f'{row["AP_small"]:.3f}',
                    f'{row["Mpx"]:.1f}',
                    str(row['inputs']),
                    f'{row["cpu"]:.2f}',
                    f'{row["clock"]:.2f}',
                    f'{median(row["cpu_seconds"]):.1f}',
                    _megabytes(row['peak_bytes']),
                    _megabytes(row['device_bytes']),
                )
                for row in part['rows']
                if row['option'] == is_option or row['name'] == REFERENCE
            ]
            if len(rows) == 1 and is_option:
                continue
            columns = ['way', 'AP', 'AP small', 'Mpx', 'inputs', 'CPU time', 'clock time', 'CPU s']
            facts = part['machine']
            on = f'on a {facts["device"]}, load before {facts["load_before"]} of {facts["cpus"]}'
            told = f'{part["count"]} scenes, {part["rounds"]} rounds, {on} cores.'
            lines += [f'## {title}', '', told, '']
            lines += markdown_table([*columns, 'memory, MB', 'GPU, MB'], rows)
    lines += ['SAHI at its best AP, and its fastest setting within 0.03 of that:', '']
    lines += [verdict(part['size'], part['rows'], time) for part in result['sizes']]
    return '\n'.join(lines) + '\n'


def _megabytes(number: int | None) -> str:
    return '' if number is None else f'{number / 1e6:.0f}'


def earlier_sizes(out: Path) -> list[dict[str, Any]]:
    """The sizes that an earlier call has measured."""
    path = out.with_suffix('.json')
    known = {size.name for size in SIZES}
    earlier = json.loads(path.read_text('utf-8'))['sizes'] if path.is_file() else []
    return [part for part in earlier if part['size'] in known]


def _few(
    grid: Mapping[str, Slicing], result: Mapping[str, Any], size: SceneSize
) -> dict[str, Slicing]:
    """SAHI's defaults, and what was best of the grid; of the largest scenes the faster of these."""
    seen = {size.name for size in SIZES if size.blocks == GRID_BLOCKS}
    rows = [row for part in result['sizes'] if part['size'] in seen for row in part['rows']]
    if grid and not rows:
        raise ValueError(f'the best settings of SAHI are chosen on --sizes {GRID_BLOCKS**2} first')
    best = [row['name'] for row in best_slicings(rows, result['time'])]
    if size.blocks > BEST_BLOCKS:
        best = best[1:]
    return {name: grid[name] for name in grid if name in (DEFAULT_SAHI, *best)}


def measure_size(
    size: SceneSize, ways: Sequence[Way], detectors: Detectors, folder: Path
) -> dict[str, Any]:
    """Measure the ways on scenes of a size, which are made if they are not there."""
    folder = folder / f'{size.blocks}x{size.blocks}_{size.filled}'
    content = write_scenes(folder, [replace(size, rounds=1)])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
    paths = [str(folder / IMAGES / image['file_name']) for image in content['images']]
    ids = [image['id'] for image in content['images']]
    ways[0].detect(paths[:1])  # what is slow once only
    measured = measure(ways, paths, detectors.counter, size.rounds, detectors.device)
    rows = as_rows(ways, measured, lambda found: average_precision(truth, ids, found))
    return dict(size=size.name, count=size.count, rounds=size.rounds, rows=rows)


def train(folder: Path) -> Path:
    """Train the detector, if an earlier call has not; returns its weights."""
    make_toy_data()
    epochs = load_config(CONFIG).train_cfg.max_epochs
    weights = folder / f'epoch_{epochs}.pth'
    if not weights.is_file():
        tool = str(ROOT / 'tools' / 'train.py')
        arguments = [str(CONFIG), '--work-dir', str(folder), '--resume']
        subprocess.run([sys.executable, tool, *arguments], cwd=ROOT, check=True)
    return weights


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'checkpoint', type=Path, nargs='?', help='of a training of CONFIG [trained first]'
    )
    parser.add_argument(
        '--random-weights',
        action='store_true',
        help='instead of a training: costs can be compared, AP means nothing',
    )
    parser.add_argument('--config', type=Path, default=CONFIG, help='of an AutoFocus')
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        metavar='MP',
        help=f'measure these megapixels, of {sorted({size.blocks**2 for size in SIZES})}, and keep '
        f'what the JSON file has of the others [all]',
    )
    parser.add_argument('--rounds', type=at_least(1), help='rounds of every size [1 or 3]')
    parser.add_argument('--device', help='such as cuda:0 or cpu [the GPU if there is one]')
    parser.add_argument('--without-sahi', action='store_true', help='leave its rows out')
    parser.add_argument(
        '--compile', action='store_true', help='torch.compile as an option, too; takes minutes'
    )
    parser.add_argument('--folder', type=Path, default=FOLDER, help='where scenes are made')
    parser.add_argument('--out', type=Path, default=RESULT, help='JSON file')
    args = parser.parse_args(argv)
    args.device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    if args.checkpoint and args.random_weights:
        parser.error('give a checkpoint or --random-weights, not both')
    known = {size.blocks**2 for size in SIZES}
    if not set(args.sizes or known) <= known:
        parser.error(f'--sizes must be some of {sorted(known)}, got {args.sizes}')
    return args


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what the JSON file holds."""
    args = parse_args(argv)
    on_gpu = args.device.startswith('cuda')
    facts = machine(device=torch.cuda.get_device_name() if on_gpu else 'CPU')
    facts.update(torch=torch.__version__)
    register_all_modules(init_default_scope=True)
    sizes = [s for s in SIZES if args.sizes is None or s.blocks**2 in args.sizes]
    if args.rounds:
        sizes = [replace(size, rounds=args.rounds) for size in sizes]
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.random_weights:
        checkpoint = random_weights(args.config, args.folder, FOCUS_BIAS)
    else:
        checkpoint = args.checkpoint or train(args.folder / 'training')
    detectors = Detectors(args.config, checkpoint, args.folder, args.device)
    installed = importlib.util.find_spec('sahi') is not None and not args.without_sahi
    grid = slicings() if installed else {}
    result = dict(
        command='python benchmarks/inference.py'
        + (' CHECKPOINT' if args.checkpoint else '')
        + (' --random-weights' if args.random_weights else '')
        + (f' --rounds {args.rounds}' if args.rounds else '')
        + (' --without-sahi' if args.without_sahi else '')
        + (' --compile' if args.compile else ''),
        config=args.config.name,
        block=BLOCK,
        time='clock' if on_gpu else 'cpu',
        sizes=earlier_sizes(args.out) if args.sizes else [],
    )
    for size in sizes:
        chosen = grid if size.blocks <= GRID_BLOCKS else _few(grid, result, size)
        ways = detectors.ways(size, chosen) + detectors.options(size, args.compile)
        part = measure_size(size, ways, detectors, args.folder)
        others = [one for one in result['sizes'] if one['size'] != size.name]
        names = [one.name for one in SIZES]
        result['sizes'] = sorted(
            [*others, dict(part, machine=facts)], key=lambda one: names.index(one['size'])
        )
        write_results(args.out, result, as_table(result))
    sys.stdout.write(as_table(result))
    return result


if __name__ == '__main__':
    main()
