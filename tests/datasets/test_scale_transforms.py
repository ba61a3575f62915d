"""Which transforms change the scale of objects."""

from types import SimpleNamespace

import pytest

from mmsniper.datasets.scale_transforms import rescaling


@pytest.mark.parametrize(
    ('step', 'found'),
    [
        (dict(type='ShiftScaleRotate', scale_limit=0.2), ['ShiftScaleRotate']),
        (dict(type='ShiftScaleRotate'), ['ShiftScaleRotate']),  # by 10% if it is not said
        (dict(type='ShiftScaleRotate', scale_limit=0.0, rotate_limit=5), []),
        (dict(type='Affine', scale=(1, 1)), []),
        (dict(type='OneOf', transforms=[dict(type='RandomScale')], p=1.0), ['RandomScale']),
        (dict(type='RandomBrightnessContrast'), []),
    ],
)
def test_what_albumentations_do_is_known_by_their_names(step, found):
    """mmdet's ``Albu`` keeps their configs, and records nothing of what they do."""
    albu = SimpleNamespace(transforms=[dict(type='Blur'), step])
    assert rescaling([albu]) == found
