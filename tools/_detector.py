"""What infer.py and serve.py share: which detector, and how it is to detect."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import Config

from mmsniper.apis import AUTOFOCUS, MODES, PYRAMID, SINGLE, SNIPERInferencer
from mmsniper.models.runtime import PRECISIONS


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`build_inferencer` obeys, beside ``--cfg-options``."""
    parser.add_argument('config', metavar='CONFIG', help='config of the detector')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='its weights')
    parser.add_argument(
        '--mode',
        choices=MODES,
        help=f'{PYRAMID}: all levels of the pyramid; {AUTOFOCUS}: coarse to fine, by an AutoFocus '
        f'config or, without FocusHead, any SNIPER config; {SINGLE}: the image once, in its own '
        f'pixels, to compare with [as the config tests]',
    )
    parser.add_argument(
        '--thresholds',
        type=float,
        nargs='+',
        metavar='T',
        help='of AutoFocus: least probability of a FocusPixel for each step, coarse to fine, '
        "or one for all; higher is faster [the config's]",
    )
    parser.add_argument(
        '--texts',
        metavar='TEXT',
        help="what Grounding DINO or GLIP is to find, such as 'person . car' [the classes of the "
        'config or checkpoint]',
    )
    parser.add_argument(
        '--custom-entities',
        action='store_true',
        help='--texts are names with full stops between them, not sentences, whose noun phrases '
        'nltk finds',
    )
    parser.add_argument('--device', help='such as cuda:0 or cpu [the GPU if there is one]')
    parser.add_argument(
        '--precision',
        choices=sorted(PRECISIONS),
        help='compute in half precision: bf16 on GPUs and CPUs that have it, fp16 on GPUs [as the '
        'config says, which is float32]',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='torch.compile the network; takes a minute for each new size of windows',
    )


def check_detector_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with the usage where arguments of a detector do not go together."""
    if args.custom_entities and not args.texts:
        parser.error('--custom-entities says what --texts are: add --texts, or leave it out')


def build_inferencer(cfg: Config, args: argparse.Namespace, **options: Any) -> SNIPERInferencer:
    """The detector that the arguments describe.

    Args:
        cfg (Config): The config, converted.
        args (argparse.Namespace): With the arguments of :func:`add_detector_arguments`.
        **options: Others of ``SNIPERInferencer``.

    Raises:
        ValueError: As of ``SNIPERInferencer``, and of ``--texts`` for a detector that takes none.
    """
    thresholds = args.thresholds
    if thresholds and len(thresholds) == 1:
        thresholds = thresholds[0]
    inferencer = SNIPERInferencer(
        cfg,
        args.checkpoint,
        args.mode,
        thresholds,
        args.device,
        precision=args.precision,
        compiled=args.compile,
        **options,
    )
    if args.texts:
        inferencer.look_for(args.texts, args.custom_entities)
    return inferencer
