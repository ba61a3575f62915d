"""What a config says of the chips that it trains on, as tools ask for it."""

import pytest
from mmengine.config import Config

from mmsniper.convert.training_chips import config_seed, negative_chip_hook, positive_sampler

PYRAMID = dict(chip_size=64, levels=[dict(resize=dict(factor=1.0), valid_range=(0, None))])
OTHER = dict(PYRAMID, chip_size=96)


def config(sampler=None, **more):
    return Config(dict(train_dataloader=dict(sampler=sampler), **more))


def test_a_chip_aware_sampler_is_taken_as_it_is_but_for_its_negative_chips():
    sampler = dict(type='mmdet.ChipAwareSampler', pyramid=OTHER, stride=16, negatives='pool.npz')
    cfg = config(sampler, pyramid=PYRAMID, randomness=dict(seed=3))
    assert positive_sampler(cfg) == dict(sampler, negatives=None, seed=3)
    assert cfg.train_dataloader.sampler.negatives == 'pool.npz'
    sampler['seed'] = 7
    assert positive_sampler(config(sampler, randomness=dict(seed=3)))['seed'] == 7


@pytest.mark.parametrize('sampler', [None, dict(type='DefaultSampler', shuffle=True)])
def test_instead_of_another_sampler_there_is_one_of_the_configs_pyramid(sampler):
    assert positive_sampler(config(sampler, pyramid=PYRAMID)) == dict(
        type='ChipAwareSampler', pyramid=PYRAMID, negatives=None, seed=0
    )
    with pytest.raises(ValueError, match='has no pyramid'):
        positive_sampler(config(sampler))


def test_a_seed_that_is_left_to_chance_is_0():
    assert config_seed(config(randomness=dict(seed=5))) == 5
    for more in ({}, dict(randomness=None), dict(randomness=dict(seed=None))):
        assert config_seed(config(**more)) == 0


def test_the_hook_is_found_by_its_name_in_any_scope():
    hook = dict(type='mmsniper.NegativeChipHook', chips_per_image=1)
    hooks = [dict(type='PixelCounterHook'), hook]
    assert negative_chip_hook(config(custom_hooks=hooks)) == hook
    for without in (dict(custom_hooks=hooks[:1]), dict(custom_hooks=None), {}):
        assert not negative_chip_hook(config(**without))
