"""One walk through wrappers, for data sets that are built and for their configs."""

import pytest
from mmdet.datasets import CocoDataset
from mmdet.models import FCOSHead, NASFCOSHead
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyObject

from mmsniper.datasets.wrappers import (
    all_configs,
    all_datasets,
    all_transforms,
    class_names,
    inner_datasets,
    read_datasets,
    replace_datasets,
    type_name,
)

A, B = dict(type='CocoDataset', ann_file='a.json'), dict(type='XMLDataset', ann_file='b.txt')


def wrapped(a=A, b=B):
    """A repeated A and a B, together."""
    repeated = dict(type='RepeatDataset', times=2, dataset=a)
    return dict(type='ConcatDataset', datasets=[repeated, b])


def built():
    """Two data sets, both of them together, repeated."""
    part = dict(type='CocoDataset', lazy_init=True)
    together = dict(type='ConcatDataset', datasets=[part, part], lazy_init=True)
    both = DATASETS.build(dict(type='RepeatDataset', dataset=together, times=2, lazy_init=True))
    return (*both.dataset.datasets, both)


class TestTypeName:
    @pytest.mark.parametrize(
        'config',
        [
            dict(type='FCOSHead'),
            dict(type='mmdet.FCOSHead'),
            dict(type='mmdet.models.FCOSHead'),
            dict(type=FCOSHead),
            ConfigDict(type=FCOSHead),
            FCOSHead,
            'mmdet.FCOSHead',
        ],
    )
    def test_scope_module_and_class_are_one_name(self, config):
        assert type_name(config) == 'FCOSHead'

    def test_an_object_is_known_by_its_class(self):
        assert type_name(CocoDataset(lazy_init=True)) == 'CocoDataset'

    @pytest.mark.parametrize('nothing', [None, {}, dict(type=None)])
    def test_nothing_has_no_name(self, nothing):
        assert type_name(nothing) == ''


class TestClassNames:
    @pytest.mark.parametrize(
        'config',
        [
            dict(type='mmdet.NASFCOSHead'),
            'NASFCOSHead',
            NASFCOSHead,
            dict(type=NASFCOSHead),
            dict(type=LazyObject('mmdet.models').NASFCOSHead),  # of a config in Python, not built
        ],
    )
    def test_what_a_class_derives_from_is_told_nearest_first(self, config):
        names = class_names(config, MODELS)
        assert names[0] == 'NASFCOSHead'
        assert names.index('FCOSHead') < names.index('AnchorFreeHead')

    def test_what_is_not_registered_has_its_own_name(self):
        assert class_names(dict(type='theirs.Head'), MODELS) == ['Head']
        assert class_names(dict(type=None), MODELS) == class_names(None, MODELS) == []
        assert class_names(dict(type=''), MODELS) == []

    def test_an_object_is_known_by_its_class(self):
        assert 'BaseDetDataset' in class_names(CocoDataset(lazy_init=True), DATASETS)


class TestWalk:
    def test_configs_are_found_below_their_wrappers(self):
        assert list(read_datasets(wrapped())) == [A, B]
        assert list(read_datasets(A)) == [A]
        assert [type_name(d) for d in all_datasets(wrapped())] == [
            'ConcatDataset',
            'RepeatDataset',
            'CocoDataset',
            'XMLDataset',
        ]

    def test_built_data_sets_are_found_in_the_same_way(self):
        a, b, both = built()
        assert list(read_datasets(both)) == [a, b]
        assert inner_datasets(a) == []


class TestReplace:
    def test_what_reads_images_is_replaced_and_the_wrappers_stay(self):
        before = wrapped()
        after = replace_datasets(
            before, lambda d: None if inner_datasets(d) else dict(type='New', old=d['ann_file'])
        )
        assert after == wrapped(dict(type='New', old='a.json'), dict(type='New', old='b.txt'))
        assert before == wrapped()

    def test_a_wrapper_can_be_replaced_with_all_below_it(self):
        seen = []

        def replacement(dataset):
            seen.append(type_name(dataset))
            return B if type_name(dataset) == 'RepeatDataset' else None

        assert replace_datasets(wrapped(), replacement)['datasets'] == [B, B]
        assert seen == ['ConcatDataset', 'RepeatDataset', 'XMLDataset']

    def test_configs_of_mmengine_stay_what_they_are(self):
        cfg = Config(dict(data=wrapped())).data
        after = replace_datasets(cfg, lambda d: None)
        assert isinstance(after.datasets[0], ConfigDict)
        assert after == cfg

    def test_built_wrappers_are_copied_and_share_what_stays(self):
        a, b, both = built()
        after = replace_datasets(both, lambda d: 'new' if d is a else None)
        assert (after.times, after.dataset.datasets) == (2, ['new', b])
        assert both.dataset.datasets == [a, b]


def test_all_dicts_of_a_config_are_found_with_their_paths():
    model = dict(type='RPN', neck=[dict(type='FPN'), 'text'], rpn_head=dict(loss=dict(type='L1')))
    found = dict(all_configs(dict(model=model, hooks=(dict(type='EMAHook'),))))
    assert found.pop('')['model'] is model
    assert {path: type_name(part) for path, part in found.items()} == {
        'model': 'RPN',
        'model.neck[0]': 'FPN',
        'model.rpn_head': '',
        'model.rpn_head.loss': 'L1',
        'hooks[0]': 'EMAHook',
    }


def test_transforms_inside_others_are_found_as_well():
    pipeline = [
        dict(type='Load'),
        dict(type='RandomChoice', transforms=[[dict(type='Flip')], [dict(type='Crop')]]),
        dict(type='RandomApply', transforms=[dict(type='Blur')]),
    ]
    assert [type_name(t) for t in all_transforms(pipeline)] == [
        'Load',
        'RandomChoice',
        'Flip',
        'Crop',
        'RandomApply',
        'Blur',
    ]
    assert list(all_transforms(None)) == []
