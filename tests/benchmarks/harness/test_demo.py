"""What the demo shows: five pictures of detections, and a table that fits a terminal."""

import io
import pickle

import pytest
import torch
from mmengine.config import Config
from rich.console import Console

from harness import demo
from harness.comparison import Comparison, Contestant, summarise
from harness.training_run import COSTS, METRICS, TrainingRun
from mmsniper.testing import ToyDatasetSpec, make_toy_dataset


@pytest.fixture
def toy_run(tmp_path, monkeypatch):
    """A run whose tests have found one object in every image of a small toy data set."""
    spec = ToyDatasetSpec(num_train=1, num_val=7, min_side=200, max_side=260)
    make_toy_dataset(tmp_path, spec, processes=1)
    val = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        metainfo=dict(classes=('disc', 'ring', 'square', 'cross')),
    )
    cfg = Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=val)))
    monkeypatch.setattr(demo.Config, 'fromfile', lambda path, **options: cfg)
    run = TrainingRun('toy.py', 1, 0, tmp_path, tmp_path)
    found = dict(
        bboxes=torch.tensor([[10.0, 10, 50, 50]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.9]),
    )
    predictions = [dict(img_id=i + 1, pred_instances=found) for i in range(7)]
    run.predictions('test').write_bytes(pickle.dumps(predictions))
    return run


def test_five_pictures_of_the_busiest_test_images(toy_run, tmp_path):
    demo.draw_predictions(toy_run, tmp_path / 'out')
    pictures = sorted((tmp_path / 'out').iterdir())
    assert len(pictures) == 5
    assert all(picture.read_bytes().startswith(b'\x89PNG') for picture in pictures)


def test_the_busiest_images_come_in_their_order():
    class Dataset:
        counts = (3, 0, 9, 4, 1)

        def __len__(self):
            return len(self.counts)

        def get_data_info(self, index):
            return {'instances': [None] * self.counts[index]}

    assert demo.busiest(Dataset(), 3) == [0, 2, 3]
    assert demo.busiest(Dataset(), 9) == [0, 1, 2, 3, 4]


def test_the_table_fits_into_80_columns_and_has_all_numbers(tmp_path):
    contestants = []
    for name, seen in (('SNIPER', 'all levels'), ('single-scale', 'one scale')):
        run = TrainingRun(f'{name}.py', 7, 0, tmp_path / name, tmp_path)
        run.work_dir.mkdir()
        for stage in run.stages:
            content = dict.fromkeys(COSTS if stage == 'train' else METRICS, 0.123)
            run.result_file(stage).write_text(str(content).replace("'", '"'))
        contestants.append(Contestant(name, run.config, 1.0, (run,), dict(test=seen)))
    comparison = Comparison({c.name: c.config for c in contestants}, 1e6, seeds=(0,))

    out = io.StringIO()
    Console(file=out, width=80).print(demo.demo_table(summarise(comparison, contestants)))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for name in ('training Mpx', 'minutes', 'AP50', 'AP small', 'AP medium', 'AP large', 'AR'):
        row = next(line for line in lines if name in line)
        assert '…' not in row
    assert sum(line.count('0.123') for line in lines) == 2 * 6
    assert 'all levels' in out.getvalue()


def test_the_tool_asks_for_what_the_demo_does_by_itself(load_tool):
    args = load_tool('demo').parse_args([])
    assert args.pixels == demo.PIXELS
    assert args.seed == 0
    assert 1 <= args.jobs <= 2
    with pytest.raises(SystemExit):
        load_tool('demo').parse_args(['--jobs', '0'])
