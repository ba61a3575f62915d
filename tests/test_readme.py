"""What the README shows can be typed in."""

import re
from pathlib import Path

from mmsniper.chips import AnnotationTable, ScalePyramid, pyramid_config, suggest_pyramid
from mmsniper.convert import load_config

ROOT = Path(__file__).resolve().parents[1]


def test_the_config_for_ones_own_data_reaches_every_place_that_it_must(tmp_path):
    readme = (ROOT / 'README.md').read_text()
    block = next(b for b in re.findall(r'```python\n(.*?)```', readme, re.S) if '_base_' in b)
    bases, _, rest = block.partition(']\n')
    assert len(bases.splitlines()) == 1 + 3
    assert len(rest.splitlines()) == 6
    path = tmp_path / 'my_config.py'
    table = AnnotationTable.from_images([(4000, 3000, [[50, 50, 70, 70]], None)])
    pyramid = suggest_pyramid(table).pyramid
    (tmp_path / 'my_pyramid.py').write_text(pyramid_config(pyramid))
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
    assert pyramid.differences(ScalePyramid.from_config(cfg.train_dataloader.sampler.pyramid)) == []


def test_the_commands_before_it_write_and_check_that_pyramid():
    readme = (ROOT / 'README.md').read_text()
    section = readme.partition('### On your own')[2].partition('\n### ')[0]
    assert 'suggest_pyramid.py --ann-file data/mine/train.json --out my_pyramid.py' in section
    assert 'chip_stats.py my_config.py' in section
    assert 'coco_paper' not in section
