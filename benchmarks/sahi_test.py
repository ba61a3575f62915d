"""Test a detector by SAHI's sliced prediction, and evaluate as tools/test.py does.

Takes what tools/test.py takes, and how the images are sliced. Needs SAHI (`pip install -r
requirements/benchmark.txt`).

    python benchmarks/sahi_test.py configs/baselines/faster_rcnn_yolox_nano_tiles_hituav.py \
        work_dirs/tiles/epoch_1.pth --slice 160 --zoom 2 --merge NMS --metric IOU --confidence 0.01
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation import DumpDetResults
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.registry import EVALUATOR
from mmengine.structures import InstanceData

from harness.slicing import SOFT_NMS, SlicedDetector, Slicing
from mmsniper.convert import load_config
from mmsniper.utils.command_line import (
    add_config_arguments,
    command_parser,
    exit_on_error,
    progress,
)
from mmsniper.utils.files import write_json


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--work-dir', type=Path, required=True, help='folder of the metrics')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--slice', type=int, required=True, help='side of a slice, px')
    parser.add_argument('--zoom', type=float, default=1.0, help='a slice is resized by it [1]')
    parser.add_argument('--overlap', type=float, default=0.2, help="of slices, a slice's share")
    parser.add_argument(
        '--merge', default='GREEDYNMM', choices=('NMS', 'NMM', 'GREEDYNMM', SOFT_NMS)
    )
    parser.add_argument('--metric', default='IOS', choices=('IOU', 'IOS'))
    parser.add_argument('--confidence', type=float, default=0.25, help='the lowest score')
    parser.add_argument('--without-full-image', action='store_true')
    return parser.parse_args(argv)


@exit_on_error(ModuleNotFoundError)
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the test; returns the metrics."""
    args = parse_args(argv)
    register_all_modules(init_default_scope=True)
    cfg = load_config(args.config, args.cfg_options)
    slicing = Slicing(
        slice=args.slice,
        overlap=args.overlap,
        full_image=not args.without_full_image,
        merge=args.merge,
        metric=args.metric,
        confidence=args.confidence,
        zoom=args.zoom,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    evaluator = EVALUATOR.build(dict(type='Evaluator', metrics=cfg.test_evaluator))
    if args.out:
        evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    evaluator.dataset_meta = dataset.metainfo
    with tempfile.TemporaryDirectory() as folder:
        detector = SlicedDetector(cfg, args.checkpoint, Path(folder))
        for number in progress(range(len(dataset)), 'sliced'):
            sample = _sample(detector, dataset.get_data_info(number), slicing)
            evaluator.process([sample])
    metrics = evaluator.evaluate(len(dataset))
    name = time.strftime('%Y%m%d_%H%M%S')
    write_json(args.work_dir / name / f'{name}.json', metrics)
    return metrics


def _sample(detector: SlicedDetector, info: dict[str, Any], slicing: Slicing) -> DetDataSample:
    """The detections of an image, as a test of MMDetection returns them."""
    boxes, scores, labels = map(torch.from_numpy, detector.detect(info['img_path'], slicing))
    shape = info['height'], info['width']
    sample = DetDataSample(
        metainfo=dict(img_id=info['img_id'], img_path=info['img_path'], ori_shape=shape)
    )
    sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
    return sample


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main()
