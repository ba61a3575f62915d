"""A config has one pyramid: pieces get the variable's, and another one is refused."""

from copy import deepcopy

import pytest
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmsniper.convert import load_config
from mmsniper.convert.pyramid import bind_pyramid, config_pyramid

PYRAMID = dict(
    chip_size=64,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 24)),
        dict(resize=dict(factor=0.5), valid_range=(16, None)),
    ],
)
SPELLED_OUT = 'faster_rcnn_r101_sniper.py'


def spelled_out(pyramid=PYRAMID):
    """A config whose pieces have no pyramid yet."""
    chips = [dict(type='ChipSampler'), dict(type='mmdet.ScaleRangeFilter')]
    dataset = dict(type='ChipDataset', dataset=dict(type='CocoDataset'), pipeline=chips)
    sampler = dict(type='ChipAwareSampler')
    views = dict(type='TestTimeAug', transforms=[[dict(type='LevelResize', level=0)]])
    detector = dict(
        type='PyramidDetector',
        detector='FasterRCNN',
        rpn_head=dict(type='SNIPERRPNHead'),
        roi_head=dict(type='SNIPERRoIHead'),
    )
    return Config(
        dict(
            pyramid=pyramid,
            model=detector,
            train_dataloader=dict(
                sampler=sampler, dataset=dict(type='RepeatDataset', dataset=dataset, times=2)
            ),
            tta_pipeline=[views],
        )
    )


def pyramids(cfg):
    """Those of all pieces below."""
    data = cfg.train_dataloader
    return [
        cfg.model.roi_head.pyramid,
        cfg.model.rpn_head.pyramid,
        cfg.model.pyramid,
        data.sampler.pyramid,
        *(transform.pyramid for transform in data.dataset.dataset.pipeline),
        cfg.tta_pipeline[0].transforms[0][0].pyramid,
    ]


def test_pieces_without_a_pyramid_get_the_configs():
    cfg = spelled_out()
    bind_pyramid(cfg)
    assert pyramids(cfg) == [PYRAMID] * 7


def test_the_same_pyramid_written_otherwise_is_the_same():
    other = deepcopy(PYRAMID)
    other['levels'][1]['valid_range'] = [16.0, None]
    cfg = spelled_out()
    cfg.model.roi_head.pyramid = other
    bind_pyramid(cfg)
    assert pyramids(cfg) == [other] + [PYRAMID] * 6


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(chip_size=96), 'chip_size is 96, but model.roi_head.pyramid.chip_size is 64'),
        (
            dict(levels=[PYRAMID['levels'][0], dict(PYRAMID['levels'][1], valid_range=(8, None))]),
            r'pyramid.levels\[1\].valid_range is \(8.0, inf\), but model.*valid_range is \(16.0',
        ),
        (dict(levels=PYRAMID['levels'][:1]), r'pyramid.levels is .*, but model.roi_head.pyramid.l'),
    ],
)
def test_another_pyramid_is_refused_with_both_values_and_the_way_out(change, message):
    cfg = spelled_out(dict(PYRAMID, **change))
    for piece in (cfg.model.roi_head, cfg.train_dataloader.sampler):
        piece.pyramid = PYRAMID
    with pytest.raises(ValueError, match=message + r'.*_base_ = \[detector, sniper.py'):
        bind_pyramid(cfg)


def test_each_piece_is_looked_at():
    for path, name in (
        ('model', 'PyramidDetector'),
        ('train_dataloader.sampler', 'ChipAwareSampler'),
        ('train_dataloader.dataset.dataset.pipeline.1', 'ScaleRangeFilter'),
        ('tta_pipeline.0.transforms.0.0', 'LevelResize'),
    ):
        cfg = spelled_out()
        node = cfg
        for part in path.split('.'):
            node = node[int(part)] if part.isdigit() else node[part]
        assert name in node.type
        node.pyramid = dict(PYRAMID, chip_size=32)
        with pytest.raises(ValueError, match=r'is 64, but .*\.pyramid\.chip_size is 32'):
            bind_pyramid(cfg)


def test_a_head_of_ones_own_is_looked_at_if_it_has_a_pyramid():
    cfg = spelled_out()
    cfg.model.bbox_head = dict(type='Mine', pyramid=dict(PYRAMID, chip_size=32))
    with pytest.raises(ValueError, match=r'model.bbox_head.pyramid.chip_size is 32'):
        bind_pyramid(cfg)


def test_variables_of_a_file_that_nothing_is_built_from_do_not_count():
    cfg = spelled_out()
    cfg.train_pipeline = [dict(type='ChipSampler', pyramid=dict(PYRAMID, chip_size=32))]
    bind_pyramid(cfg)


def test_a_config_without_a_pyramid_is_left_alone_or_asked_for_one():
    cfg = Config(dict(model=dict(type='FasterRCNN')))
    bind_pyramid(cfg)
    assert cfg.to_dict() == dict(model=dict(type='FasterRCNN'))
    with pytest.raises(ValueError, match=r'no pyramid; add one to _base_.*suggest_pyr'):
        config_pyramid(cfg)


class TestChildConfigs:
    """Of the ready configs, by a child's variable and by --cfg-options."""

    @pytest.fixture(scope='class')
    def configs(self, pytestconfig):
        return pytestconfig.rootpath / 'configs' / 'sniper'

    def child(self, configs, tmp_path, base):
        file = tmp_path / 'mine.py'
        file.write_text(f"_base_ = '{configs / base}'\npyramid = dict(chip_size=96)\n")
        return file

    @pytest.mark.parametrize('way', ['variable', 'option'])
    def test_all_pieces_of_a_fragment_config_get_the_last_pyramid(self, configs, tmp_path, way):
        base = 'faster_rcnn_r18_sniper_toy.py'
        if way == 'variable':
            cfg = load_config(self.child(configs, tmp_path, base))
        else:
            cfg = load_config(configs / base, {'pyramid.chip_size': 96})
        data, model = cfg.train_dataloader, cfg.model
        pieces = [data.sampler, *data.dataset.pipeline[2:4], model, model.roi_head]
        assert [piece.pyramid.chip_size for piece in pieces] == [96] * 5
        assert model.data_preprocessor.batch_augments[0].size == (96, 96)

    @pytest.mark.parametrize('way', ['variable', 'option'])
    def test_one_that_is_spelled_out_is_refused(self, configs, tmp_path, way):
        file, options = configs / SPELLED_OUT, {'pyramid.chip_size': 96}
        if way == 'variable':
            file, options = self.child(configs, tmp_path, SPELLED_OUT), None
        with pytest.raises(ValueError, match=r'chip_size is 96, but .*chip_size is 512'):
            load_config(file, options)

    def test_the_runner_refuses_it_too(self, configs, tmp_path, monkeypatch):
        """With MMDetection's own tools, which do not know of pyramids."""
        monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: cfg))
        RUNNERS.build(Config.fromfile(configs / SPELLED_OUT))
        with pytest.raises(ValueError, match='has two pyramids'):
            RUNNERS.build(Config.fromfile(self.child(configs, tmp_path, SPELLED_OUT)))
