"""Test a detector. The command line is that of MMDetection's tools/test.py."""

from __future__ import annotations

import argparse
import os
from copy import deepcopy

from _launch import build_runner, launch_parser, load_config
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config

from mmsniper.checks.run import TESTING, refuse_weights, refuse_wrong
from mmsniper.convert.config import draw_any_image
from mmsniper.convert.inference import wrap_in_tta
from mmsniper.datasets.wrappers import read_datasets
from mmsniper.utils.command_line import exit_on_error, exit_on_unregistered
from mmsniper.utils.files import check_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = launch_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions to this folder')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show shows an image'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation by the config's tta_model and tta_pipeline, such as mirror "
        'images; SNIPER sees all levels of the pyramid without it',
    )
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out}: the file must end in .pkl or .pickle')
    return args


def main() -> None:
    args = parse_args()
    with exit_on_error():
        cfg = load_config(args)
        if args.out:
            check_folder(os.path.dirname(args.out) or '.', '--out')
        cfg.load_from = args.checkpoint
        cfg.resume = False
        if args.show or args.show_dir:
            cfg = trigger_visualization_hook(cfg, args)
            draw_any_image(cfg)
        if args.tta:
            use_tta(cfg)
        # Of the processes that torchrun starts on a machine, one reads the annotation files.
        if os.environ.get('LOCAL_RANK', '0') == '0':
            refuse_wrong(cfg, TESTING)
            refuse_weights(cfg)
    with exit_on_unregistered():
        runner = build_runner(cfg)
        if args.out:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
        runner.test()


def use_tta(cfg: Config) -> None:
    """Wrap the model in the config's ``tta_model`` and test with its ``tta_pipeline``.

    What the config lacks of the two is MMDetection's default: the image and its mirror image,
    merged by NMS.
    """
    if 'tta_model' not in cfg:
        nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=nms)
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pack = [dict(type='PackDetInputs')]
        pipeline = deepcopy(next(read_datasets(cfg.test_dataloader.dataset)).pipeline)
        cfg.tta_pipeline = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, pack])]
    wrap_in_tta(cfg, cfg.model)


if __name__ == '__main__':
    main()
