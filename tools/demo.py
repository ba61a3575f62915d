"""SNIPER in a few minutes: real images, toy data, training, a test, pictures and a table.

Detects in real images, with weights that are there. Makes the toy data set; trains SNIPER and the
same detector on whole images at a single scale, with the same number of training pixels; tests
both; draws chips and detections. Interrupted, it goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

from harness.training_run import RunError, exit_on_sigterm
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--pixels', type=float, default=146e6, help='training pixels of each of the two detectors'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    parser.add_argument(
        '--jobs',
        type=at_least(1),
        default=min(2, available_cores()),
        help='trainings at a time, one thread each',
    )
    parser.add_argument(
        '--out-dir', type=Path, default=ROOT / 'work_dirs' / 'demo', help='folder of the results'
    )
    return parser.parse_args(argv)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@exit_on_error(RunError, subprocess.CalledProcessError)
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from rich.console import Console

    from harness.demo import Demo, run_demo

    console = Console(highlight=False)
    start = time.perf_counter()
    out_dir = args.out_dir.resolve()
    try:
        run_demo(Demo(ROOT, out_dir, args.pixels, args.seed, args.jobs), console)
    except KeyboardInterrupt:
        sys.exit('interrupted; start it again to go on')
    shown = out_dir.relative_to(ROOT) if out_dir.is_relative_to(ROOT) else out_dir
    console.print(
        f'Chips of toy scenes: {shown}/chips\nDetections in them: {shown}/detections\n'
        f'All numbers: {shown}/summary.json\n'
        f'The demo took {(time.perf_counter() - start) / 60:.1f} minutes.'
    )


if __name__ == '__main__':
    exit_on_sigterm()
    main()
