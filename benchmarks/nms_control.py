"""How much of the BCCD comparison is due to Soft-NMS: test its detectors with the other NMS.

SNIPER's multi-scale test merges with Soft-NMS, the whole-image configs have MMDetection's hard NMS.
This gives the detectors of `compare_training.py bccd` the other one and writes
benchmarks/results/bccd_nms.json and .md.

    python benchmarks/compare_training.py bccd
    python benchmarks/nms_control.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmengine.config import Config

from harness.results import write_results
from harness.training_run import RunError
from mmsniper.models.nms import MERGE_NMS as SOFT
from mmsniper.utils.command_line import at_least, command_parser, exit_on_error, progress

ROOT = Path(__file__).resolve().parents[1]
HARD = dict(type='nms', iou_threshold=0.5)


def soft_at_one_scale(cfg: Config) -> None:
    """One pass, Soft-NMS, as many detections as SNIPER's test has."""
    cfg.model.test_cfg.rcnn = dict(score_thr=0.001, nms=SOFT, max_per_img=100)


def soft_merge(cfg: Config) -> None:
    """Scales return all that they find and Soft-NMS merges, as in SNIPER's test."""
    cfg.model.test_cfg.rcnn = dict(score_thr=0.001, nms=None, max_per_img=500)
    cfg.tta_model.tta_cfg = dict(nms=SOFT, max_per_img=100)


def hard_merge(cfg: Config) -> None:
    """SNIPER's test with hard NMS."""
    cfg.model.merge_cfg = {**cfg.model.get('merge_cfg', {}), 'nms': HARD}


# Name in the comparison, how its test is named here, what is changed, whether it is the --tta test.
CONTROLS = (
    ('SNIPER', 'every level, ranges, hard NMS', hard_merge, False),
    ('single-scale', 'one scale, Soft-NMS', soft_at_one_scale, False),
    ('multi-scale', 'one scale, Soft-NMS', soft_at_one_scale, False),
    ('multi-scale', 'the three scales, Soft-NMS', soft_merge, True),
)


def test(run_dir: Path, change: Any, tta: bool) -> dict[str, float]:
    """Test the last checkpoint of a run with a changed config.

    Returns:
        dict[str, float]: COCO's metrics.

    Raises:
        RunError: If the test fails; the message has the end of its output.
    """
    (config,) = run_dir.glob('*.py')
    checkpoint = max(run_dir.glob('epoch_*.pth'), key=lambda p: int(p.stem.split('_')[1]))
    cfg = Config.fromfile(config)
    change(cfg)
    with tempfile.TemporaryDirectory() as folder:
        cfg.dump(Path(folder) / config.name)
        done = subprocess.run(
            [
                sys.executable,
                str(ROOT / 'tools' / 'test.py'),
                str(Path(folder) / config.name),
                str(checkpoint),
                '--work-dir',
                folder,
                *(['--tta'] if tta else []),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RunError(f'the test of {checkpoint} failed:\n{done.stderr[-3000:]}')
        (metrics,) = Path(folder).glob('*/*.json')
        return json.loads(metrics.read_text('utf-8').splitlines()[-1])


@exit_on_error(RunError)
def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--runs',
        type=Path,
        default=ROOT / 'work_dirs' / 'compare' / 'bccd',
        help='work folder of the comparison',
    )
    parser.add_argument('--jobs', type=at_least(1), default=2, help='tests at a time')
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'benchmarks' / 'results' / 'bccd_nms',
        help='path of the results, without suffix',
    )
    args = parser.parse_args()
    jobs = [
        (control, run_dir)
        for control in CONTROLS
        for run_dir in sorted(args.runs.glob(f'{control[0]}_seed*'))
    ]
    if not jobs:
        raise FileNotFoundError(
            f'no runs in {args.runs}: run benchmarks/compare_training.py bccd first'
        )
    with ThreadPoolExecutor(args.jobs) as pool:
        tested = pool.map(lambda job: test(job[1], *job[0][2:]), jobs)
        found = list(progress(tested, 'tests', len(jobs), unit=' tests'))
    rows = []
    for control in CONTROLS:
        name, how, _, _ = control
        aps = [m['coco/bbox_mAP'] for (c, _), m in zip(jobs, found) if c is control]
        rows.append(
            dict(
                config=name,
                test=how,
                AP=aps,
                mean=round(statistics.mean(aps), 4),
                std=round(statistics.stdev(aps), 4) if len(aps) > 1 else None,
            )
        )
    table = '| config | test | AP of each seed | mean | std |\n|---|---|---|---|---|\n' + ''.join(
        f'| {r["config"]} | {r["test"]} | {", ".join(f"{a:.3f}" for a in r["AP"])} | '
        f'{r["mean"]:.3f} | {r["std"]} |\n'
        for r in rows
    )
    write_results(args.out, rows, '# BCCD, the other NMS\n\n' + table)
    sys.stdout.write(table)


if __name__ == '__main__':
    main()
