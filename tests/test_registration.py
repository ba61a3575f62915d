"""Importing mmsniper makes it known to MMDetection, where there is one to know it."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.registry import DATASETS, METRICS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

import mmsniper
from mmsniper.chips import ScalePyramid
from mmsniper.convert import load_config

INHERITING = """
_base_ = 'mmsniper::sniper/faster_rcnn_r101_sniper.py'
train_dataloader = dict(dataset=dict(pipeline=[*_base_.train_pipeline]))
val_evaluator = _base_.val_evaluator
"""


@pytest.fixture
def inheriting(tmp_path):
    """A config outside of the repository that inherits one of ours by the scope."""
    path = tmp_path / 'inheriting.py'
    path.write_text(INHERITING)
    return path


def run(code, *arguments):
    """Run code in a Python that has imported nothing yet."""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *map(str, arguments)], check=True)


def test_the_chips_alone_load_neither_torch_nor_mmdetection():
    run('import sys, mmsniper.chips\nassert not {"torch", "mmcv", "mmdet"} & set(sys.modules)\n')


def test_a_config_that_imports_mmsniper_registers_everything(tmp_path):
    path = tmp_path / 'importing.py'
    path.write_text("custom_imports = dict(imports=['mmsniper'])")
    run(
        'import sys\n'
        'from mmengine.config import Config\n'
        'Config.fromfile(sys.argv[1])\n'
        'from mmdet.registry import DATASETS, MODELS, TRANSFORMS\n'
        'from mmengine.registry import HOOKS\n'
        'assert "ChipDataset" in DATASETS.module_dict\n'
        'assert "NegativeChipHook" in HOOKS.module_dict\n'
        'assert "SNIPERRoIHead" in MODELS.module_dict\n'
        'assert "ChipSampler" in TRANSFORMS.module_dict\n',
        path,
    )


def test_our_fragments_register_everything_though_a_config_replaces_the_imports(tmp_path):
    runtime = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'sniper_runtime.py'
    path = tmp_path / 'importing.py'
    path.write_text(f"_base_ = '{runtime}'\ncustom_imports = dict(imports=['json'])")
    run(
        'import sys\n'
        'from mmengine.config import Config\n'
        'Config.fromfile(sys.argv[1])\n'
        'from mmdet.registry import DATASETS\n'
        'assert "ChipDataset" in DATASETS.module_dict\n',
        path,
    )


def test_load_config_registers_everything_though_the_chips_came_first(inheriting):
    run(
        'import sys\n'
        'import mmsniper.chips\n'
        'from mmdet.registry import DATASETS\n'
        'assert "ChipDataset" not in DATASETS.module_dict\n'
        'from mmsniper.convert import load_config\n'
        'assert load_config(sys.argv[1]).train_dataloader.dataset.type == "ChipDataset"\n'
        'assert "ChipDataset" in DATASETS.module_dict\n',
        inheriting,
    )


def test_our_configs_are_bases_whichever_package_was_imported_first(inheriting):
    run(
        'import sys\n'
        'import mmsniper\n'
        'from mmengine.config import Config\n'
        'assert Config.fromfile(sys.argv[1]).pyramid\n',
        inheriting,
    )


def test_registering_twice_is_no_error():
    mmsniper.register_all_modules()
    assert 'ChipDataset' in DATASETS.module_dict


def test_a_config_of_ours_is_a_base_under_its_scope_and_its_variables_can_be_used(inheriting):
    cfg, ours = Config.fromfile(inheriting), load_config(inheriting)
    assert cfg.pyramid == ours.pyramid
    assert ScalePyramid.from_config(cfg.pyramid).chip_size == 512
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert pipeline[0]._scope_ == 'mmsniper'
    with DefaultScope.overwrite_default_scope('mmdet'):
        kinds = [type(transform).__name__ for transform in Compose(pipeline).transforms]
        assert {'ChipSampler', 'PackDetInputs'} <= set(kinds)
        metric = METRICS.build({**cfg.val_evaluator, 'ann_file': None, '_scope_': 'mmsniper'})
        assert type(metric).__name__ == 'CocoMetric'
        assert TRANSFORMS.get('mmsniper.ChipSampler') is TRANSFORMS.get('ChipSampler')
