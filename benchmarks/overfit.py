"""Whether each family of detectors learns from chips: its config, reduced, overfits 8 images.

The SNIPER configs, trained from scratch on the chips of 8 images of a sample of COCO, on a CPU, and
tested on the same images: at all levels, and by the stock detector with the same weights at one
scale. A family passes with an AP50 of 0.5; set-prediction detectors, which would take far longer,
with a training loss that falls by half, and so any config file that is named; and one with masks
if these are better at all levels.

Writes benchmarks/results/overfit.json and .md. Families that are finished are kept, and an
interrupted training goes on where it was when the script is started again.

    python benchmarks/overfit.py --jobs 2
    python benchmarks/overfit.py fcos atss --epochs 20
    python benchmarks/overfit.py mask_rcnn --out-dir benchmarks/results  # overfit_mask_rcnn.json
    python benchmarks/overfit.py my_config.py  # any other detector's
    python benchmarks/overfit.py mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py  # stock's, too
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import CheckpointLoader
from rich.console import Console
from rich.table import Table

from harness.comparison import Comparison, Contestant, execute_all, plan_contestant
from harness.comparison_options import noted_command
from harness.reduced import ReducedSize, reduced
from harness.results import markdown_table, write_results
from harness.stock_detector import stock_detector
from harness.training_run import TEST, TRAIN, OtherTest, RunError, TrainingRun, exit_on_sigterm
from mmsniper.convert import load_config
from mmsniper.datasets.wrappers import read_datasets
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error
from mmsniper.utils.compat import allow_checkpoint_globals
from mmsniper.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]

FAMILIES = {
    'faster_rcnn': 'faster_rcnn_r50_sniper',
    'faster_rcnn_dcn_c5': 'faster_rcnn_r101_dcn_c5_sniper',
    'faster_rcnn_mobilenetv2': 'faster_rcnn_mobilenetv2_sniper',
    'mask_rcnn': 'mask_rcnn_r101_sniper',
    'cascade_rcnn': 'cascade_rcnn_r50_sniper',
    'retinanet': 'retinanet_r50_sniper',
    'fcos': 'fcos_r50_sniper',
    'atss': 'atss_r50_sniper',
    'rtmdet': 'rtmdet_s_sniper',
    'yolox': 'yolox_s_sniper',
    'vfnet': 'vfnet_r50_sniper',
    'paa': 'paa_r50_sniper',
    'foveabox': 'foveabox_r50_sniper',
    'deformable_detr': 'deformable_detr_r50_sniper',
    'dino': 'dino_r50_sniper',
    'ddq': 'ddq_r50_sniper',
    'rtmdet_ins': 'rtmdet_ins_s_sniper',
    'queryinst': 'queryinst_r50_sniper',
    'mask2former': 'mask2former_r50_sniper',
}
SET_PREDICTION = ('deformable_detr', 'dino', 'ddq', 'queryinst', 'mask2former')
AP50_GOAL = 0.5
MASK_AP = 'mask AP'  # as in SEGM_METRICS
LOSS_GOAL = 0.5  # of set prediction: the last losses over the first
LOSSES = 20  # iterations whose mean stands for the first and the last loss

SIZE = ReducedSize(base_channels=16, channels=32, fc_channels=128)
# The blocks of a ResNet-50 have four times the channels of those of a ResNet-18.
SIZES = {'faster_rcnn_dcn_c5': replace(SIZE, base_channels=8)}
# RTMDet-s predicts distances as they are and begins with boxes of no size, which its assigner, by
# IoU, leaves alone: from scratch, a level may stay so for long. RTMDet-l predicts logarithms.
CHANGES = {'rtmdet': {'model.bbox_head.exp_on_reg': True}}
EPOCHS, BATCH = 150, 8
LR = 0.001

# For images of 640x480 px on a CPU: chips of 192 px that hold objects of up to 64 px at twice their
# size, of 48 to 160 px at three quarters, and of 128 px and more at three tenths.
PYRAMID = dict(
    chip_size=192,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 64)),
        dict(resize=dict(factor=0.75), valid_range=(48, 160)),
        dict(resize=dict(factor=0.3), valid_range=(128, None)),
    ],
)
ONE_SCALE = 'one_scale'  # the stage that tests the stock detector
STOCK_SCALE = (1333, 800)  # of the test pipelines of MMDetection's configs for COCO
META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

# Names that configs give to parts of themselves; a Runner reads none of them.
_NAMES = ('train_pipeline', 'train_pipeline_stage2', 'test_pipeline', 'img_scales', 'coco_train')


def choose_images(annotations: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The part of COCO annotations that is learned by heart.

    That is the first images, in the order of their ids, with 3 to 10 objects and no crowd.

    Args:
        annotations (dict): A COCO file's content. Left as it is.
        count (int): Number of images.

    Raises:
        ValueError: If there are fewer.
    """
    objects: dict[int, list] = {image['id']: [] for image in annotations['images']}
    for item in annotations['annotations']:
        objects[item['image_id']].append(item)
    fit = [
        image
        for image in sorted(annotations['images'], key=lambda image: image['id'])
        if 3 <= len(objects[image['id']]) <= 10
        and not any(item.get('iscrowd') for item in objects[image['id']])
    ]
    if len(fit) < count:
        raise ValueError(
            f'{count} images are wanted, but only {len(fit)} of {len(objects)} have 3 to 10 '
            f'objects and no crowd: ask for fewer with --images'
        )
    chosen = fit[:count]
    return {
        **annotations,
        'images': chosen,
        'annotations': [item for image in chosen for item in objects[image['id']]],
    }


def path_of(family: str) -> str:
    """The config file of a family, as seen from the project's root."""
    return family if _is_file(family) else f'configs/sniper/{FAMILIES[family]}.py'


def name_of(family: str) -> str:
    """What a family is called in file names."""
    return Path(family).stem if _is_file(family) else family


def _is_file(family: str) -> bool:
    return family.endswith('.py')


def overfit_config(family: str, ann_file: Path, img_dir: Path, epochs: int = EPOCHS) -> Config:
    """A family's SNIPER config, reduced, with a few images in place of its data and our schedule.

    Its detector (losses, assigners, heads, test settings), pipelines and sampler stay.
    Negative chips are left out: how many there are depends on the detector, and all are to train
    equally long.

    Args:
        family (str): One of ``FAMILIES``, a config file, or one of MMDetection's (``mmdet::...``),
            to which our fragment is added.
        ann_file (Path): COCO annotations of the images.
        img_dir (Path): Folder of the images.
        epochs (int): Length of the training.
    """
    whole = _whole_config(path_of(family))
    cfg = reduced(whole, SIZES.get(family, SIZE), unfreeze=True)
    # Tested with as many proposals as ever: of a whole image, a few would not be enough.
    cfg.model.test_cfg = whole.model.test_cfg
    cfg.merge_from_dict(CHANGES.get(family, {}))
    for key in _NAMES:
        cfg.pop(key, None)
    _use_pyramid(cfg)
    where = dict(data_root='', ann_file=str(ann_file), data_prefix=dict(img=str(img_dir)))
    for part in ('train', 'val', 'test'):
        for dataset in read_datasets(cfg[f'{part}_dataloader'].dataset):
            dataset.update(where)
    cfg.train_dataloader.batch_size = BATCH
    metric = whole.val_evaluator.metric  # boxes, and masks where it has them
    for part in ('val', 'test'):
        cfg[f'{part}_dataloader'].batch_size = 1
        evaluator = dict(type='CocoMetric', ann_file=str(ann_file), metric=metric)
        cfg[f'{part}_evaluator'] = ConfigDict(evaluator)
    hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'NegativeChipHook']
    cfg.custom_hooks = hooks
    _use_schedule(cfg, epochs)
    return cfg


def _whole_config(path: str) -> Config:
    """The SNIPER version of a config, of a stock one with our fragment and COCO's pyramid."""
    if '::' not in path:
        return load_config(ROOT / path)
    fragments = (
        f'{ROOT}/configs/_base_/{name}' for name in ('sniper.py', 'pyramids/coco_paper.py')
    )
    with TemporaryDirectory() as folder:
        file = Path(folder) / 'of_stock.py'
        write_text(file, f'_base_ = {[path, *fragments]}')
        return load_config(file)


def one_scale_config(cfg: Config) -> Config:
    """A family's config with the stock detector, tested at MMDetection's scale for COCO.

    Args:
        cfg (Config): From :func:`overfit_config`. Left as it is.
    """
    cfg = deepcopy(cfg)
    cfg.model = stock_detector(cfg.model)
    queries = (cfg.model.get('rpn_head') or {}).get('num_proposals')
    if queries:  # stock QueryInst gives so many boxes for its masks, and not another number
        cfg.model.test_cfg.rcnn.max_per_img = queries
    for dataset in read_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=STOCK_SCALE, keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=META_KEYS),
        ]
    return cfg


def _use_pyramid(cfg: Config) -> None:
    for part in _dicts(cfg._cfg_dict):
        if 'pyramid' in part:
            part['pyramid'] = deepcopy(PYRAMID)
        if part.get('type') == 'BatchFixedSizePad':
            part['size'] = (PYRAMID['chip_size'],) * 2


def _dicts(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _dicts(item)


def _use_schedule(cfg: Config, epochs: int) -> None:
    """The same for all: AdamW, a constant learning rate but for a warm-up and the last fifth."""
    cfg.optim_wrapper = ConfigDict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=LR, weight_decay=1e-4),
        clip_grad=dict(max_norm=10),
    )
    cfg.param_scheduler = [
        ConfigDict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
        ConfigDict(type='MultiStepLR', milestones=[int(0.8 * epochs)], gamma=0.1),
    ]
    cfg.train_cfg = ConfigDict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs)
    cfg.default_hooks.checkpoint.update(interval=10, max_keep_ckpts=1, by_epoch=True)
    cfg.log_processor = ConfigDict(by_epoch=True)  # Mask2Former's counts iterations
    cfg.randomness = dict(seed=0)


def write_config(cfg: Config, path: Path) -> None:
    """Write a config file of plain settings. (``Config.dump`` formats them, for many seconds.)"""
    settings = {key: value for key, value in cfg.to_dict().items() if not key.startswith('_')}
    write_text(path, ''.join(f'{key} = {value!r}\n' for key, value in settings.items()))


def plan_families(args: argparse.Namespace, work_dir: Path) -> list[Contestant]:
    """Write the images' annotations and the configs, and plan a run of each family."""
    ann_file = work_dir / f'{args.images}_images.json'
    chosen = choose_images(json.loads(args.ann_file.read_text('utf-8')), args.images)
    write_text(ann_file, json.dumps(chosen))
    configs, at_one_scale = {}, {}
    for family in args.families:
        name = name_of(family)
        path = work_dir / 'configs' / f'{name}.py'
        cfg = overfit_config(family, ann_file, args.img_dir.resolve(), args.epochs)
        write_config(cfg, path)
        write_config(one_scale_config(cfg), path.with_stem(f'{name}_{ONE_SCALE}'))
        configs[name] = str(path)
        at_one_scale[name] = {ONE_SCALE: OtherTest(str(path.with_stem(f'{name}_{ONE_SCALE}')))}
    comparison = Comparison(configs, pixels=1e18, seeds=(args.seed,))  # more than any epoch
    planned = (
        plan_contestant(comparison, family, lambda *_: args.epochs, ROOT, work_dir)
        for family in configs
    )
    return [
        replace(
            item, runs=tuple(replace(run, other_tests=at_one_scale[item.name]) for run in item.runs)
        )
        for item in planned
    ]


def loss_fall(checkpoint: Path) -> tuple[float, float]:
    """Mean training loss of the first and of the last iterations, as a checkpoint notes them."""
    allow_checkpoint_globals()
    content = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu')
    history, _ = content['message_hub']['log_scalars']['train/loss'].data
    losses = [float(loss) for loss in history]
    return statistics.fmean(losses[:LOSSES]), statistics.fmean(losses[-LOSSES:])


def summary_of(family: str, run: TrainingRun) -> dict[str, Any]:
    """What a family's run, which is finished, has come to. Of a config file the loss is judged."""
    results = run.results()
    first, last = loss_fall(run.checkpoint)
    everywhere, one_scale = results[TEST], results[ONE_SCALE]
    by_loss = family in SET_PREDICTION or _is_file(family)
    goal = 'loss halved' if by_loss else f'AP50 >= {AP50_GOAL}'
    passed = last <= LOSS_GOAL * first if by_loss else everywhere['AP50'] >= AP50_GOAL
    if MASK_AP in everywhere:
        goal += ', masks better than at one scale'
        passed &= everywhere[MASK_AP] > one_scale[MASK_AP]
    return {
        'family': name_of(family),
        'config': path_of(family),
        'goal': goal,
        'passed': passed,
        'first_loss': first,
        'last_loss': last,
        **results[TRAIN],
        'every_level': everywhere,
        'one_scale': one_scale,
    }


TOLD = ('AP50', 'AP', MASK_AP)
COLUMNS = (
    'family',
    'iterations',
    'CPU min',
    'loss',
    *(f'{metric}: all levels, one scale' for metric in TOLD),
    'goal',
    'reached',
)


def table_rows(families: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the table, under ``COLUMNS``."""
    return [
        [
            item['family'],
            str(item['iterations']),
            f'{item["train_cpu_seconds"] / 60:.1f}',
            f'{item["first_loss"]:.2f} to {item["last_loss"]:.2f}',
            *(
                f'{item["every_level"][metric]:.3f}, {item["one_scale"][metric]:.3f}'
                if metric in item['every_level']
                else '-'
                for metric in TOLD
            ),
            item['goal'],
            'yes' if item['passed'] else 'NO',
        ]
        for item in families
    ]


def markdown(families: Sequence[Mapping[str, Any]], description: str, command: str) -> str:
    """The page of the results."""
    lines = [
        '# Every family overfits a few images',
        '',
        description,
        '',
        f'Made by `{command}`.',
        '',
        *markdown_table(COLUMNS, table_rows(families)),
    ]
    return '\n'.join(lines)


def describe(args: argparse.Namespace) -> str:
    """How the results were made, in words."""
    levels = ', '.join(
        f'{level["resize"]["factor"]} for sizes {level["valid_range"]}'
        for level in PYRAMID['levels']
    )
    return (
        f'The SNIPER config of each family, its detector reduced (ResNet-18 of '
        f'{SIZE.base_channels} base channels, or 50 of 8 with deformable convolutions; '
        f'{SIZE.channels} channels behind the backbone, 256 in DINO and Co-DETR; RTMDet with '
        f'exp_on_reg) and trained from scratch on the chips of {args.images} images: the first of '
        f'the sample of COCO, by their ids, with 3 to 10 objects and no crowd. The same schedule '
        f'for all: {args.epochs} epochs of batches of {BATCH} chips, AdamW, learning rate {LR}, a '
        f'tenth of it in the last fifth, no negative chips. Chips of {PYRAMID["chip_size"]} px at '
        f'the factors {levels}. Tested on the same images: at all levels, merged; and at one '
        f'scale, {STOCK_SCALE[0]}x{STOCK_SCALE[1]}, by the stock detector with the same weights. '
        f'Losses are means of {LOSSES} iterations. One thread a process.'
    )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    data = ROOT / 'data' / 'coco_tiny'
    parser.add_argument(
        'families',
        nargs='*',
        metavar='FAMILY',
        help=f'{", ".join(FAMILIES)}, or a config file [all of them]',
    )
    for name, least, default, what in (
        ('images', 1, 8, 'number of images'),
        ('epochs', 1, EPOCHS, 'length of the trainings'),
        ('seed', 0, 0, 'random seed'),
        ('jobs', 1, 1, 'families at a time'),
    ):
        parser.add_argument(f'--{name}', type=at_least(least), default=default, help=what)
    for name, default, what in (
        (
            'ann-file',
            data / 'annotations' / 'instances_train2017.json',
            'COCO annotations to choose the images from',
        ),
        ('img-dir', data / 'train2017', 'folder of the images'),
        ('work-dir', ROOT / 'work_dirs' / 'overfit', 'folder of the runs'),
    ):
        parser.add_argument(f'--{name}', type=Path, default=default, help=what)
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='folder of the two files, whose names tell the families unless it is all of them '
        '[benchmarks/results for all, else none]',
    )
    parser.add_argument('--name', help='of the two files, instead of that')
    args = parser.parse_args(argv)
    unknown = sorted(name for name in {*args.families} - {*FAMILIES} if not _is_file(name))
    if unknown:
        parser.error(
            f'there is no family {", ".join(unknown)}; there are {", ".join(FAMILIES)}, and any '
            f"config file (.py), also MMDetection's (mmdet::...)"
        )
    if not args.families and args.out_dir is None:
        args.out_dir = ROOT / 'benchmarks' / 'results'
    args.name = args.name or '_'.join(['overfit', *map(name_of, args.families)])
    args.families = args.families or list(FAMILIES)
    return args


@exit_on_error(RunError)
def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    console = Console()
    work_dir = args.work_dir.resolve()
    os.chdir(ROOT)
    failure = None
    try:
        with console.status('planning the chips'):
            contestants = plan_families(args, work_dir)
        execute_all(contestants, args.jobs, console)
    except RunError as error:
        failure = error  # of one family; the others are told of
    runs = dict(zip(args.families, (item.runs[0] for item in contestants)))
    families = [summary_of(family, run) for family, run in runs.items() if run.finished]
    table = Table(*COLUMNS, title='Overfitting')
    for row in table_rows(families):
        table.add_row(*row)
    console.print(table)
    if failure:
        raise failure
    if args.out_dir:
        out = args.out_dir.resolve() / args.name
        summary = {'description': describe(args), 'families': families}
        command = noted_command('benchmarks/overfit.py', argv)
        write_results(out, summary, markdown(families, summary['description'], command))
        console.print(f'{out}.json, {out}.md')


if __name__ == '__main__':
    exit_on_sigterm()
    main()
