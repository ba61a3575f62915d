"""custom_imports: a config's own do not disable ours."""

import pytest
from mmengine.config import Config

from mmsniper.convert import load_config, sniper_version
from mmsniper.convert.imports import with_imports

PYRAMID = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])


@pytest.mark.parametrize('imports', ['theirs', ['theirs']])
@pytest.mark.parametrize(
    'using',
    [
        dict(pyramid=PYRAMID),
        dict(train_dataloader=dict(dataset=dict(type='ChipDataset'))),
        dict(custom_hooks=[dict(type='EMAHook'), dict(type='mmdet.PixelCounterHook')]),
    ],
    ids=['pyramid', 'dataset', 'hook'],
)
def test_a_config_that_uses_ours_imports_it_beside_its_own(using, imports):
    cfg = Config(dict(custom_imports=dict(imports=imports, allow_failed_imports=False), **using))
    added = with_imports(cfg)
    assert added.custom_imports == dict(imports=['theirs', 'mmsniper'], allow_failed_imports=False)
    assert cfg.custom_imports.imports == imports
    assert sniper_version(cfg).custom_imports == added.custom_imports
    assert with_imports(added) is added


def test_a_config_that_uses_nothing_of_ours_stays_as_it_is():
    cfg = Config(dict(model=dict(type='FasterRCNN'), custom_hooks=[dict(type='EMAHook')]))
    assert sniper_version(cfg) is cfg
    assert 'custom_imports' not in cfg


def test_the_imports_are_in_what_a_run_dumps(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f"pyramid = {PYRAMID!r}\ncustom_imports = dict(imports=['json'])\n")
    cfg = load_config(path)
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').custom_imports.imports == ['json', 'mmsniper']
