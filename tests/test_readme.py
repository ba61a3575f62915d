"""What the README shows can be typed in."""

import re
from pathlib import Path

from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[1]


def test_the_config_for_ones_own_data_reaches_every_place_that_it_must(tmp_path):
    readme = (ROOT / 'README.md').read_text()
    block = next(b for b in re.findall(r'```python\n(.*?)```', readme, re.S) if '_base_' in b)
    assert len(block.splitlines()) == 1 + 6
    path = tmp_path / 'my_config.py'
    path.write_text(block.replace("'configs/", f"'{ROOT}/configs/"))
    cfg = load_config(path)
    train = cfg.train_dataloader.dataset.dataset
    assert (train.data_root, train.ann_file) == ('data/mine/', 'train.json')
    assert train.metainfo.classes == ('car', 'bus')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert (loader.dataset.data_root, loader.dataset.ann_file) == ('data/mine/', 'val.json')
        assert loader.dataset.metainfo.classes == ('car', 'bus')
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == 'data/mine/val.json'
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.model.roi_head.type == 'SNIPERRoIHead'
    assert cfg.train_dataloader.sampler.type == 'ChipAwareSampler'
