"""A mean and a standard deviation of each band."""

import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from mmsniper.models import BandDataPreprocessor


def batch(*shapes, dtype=np.uint16):
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(rng.integers(0, 200, shape).astype(dtype)) for shape in shapes]
    samples = [DetDataSample(metainfo=dict(img_shape=shape[1:])) for shape in shapes]
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('bands', [1, 2, 3, 4, 13])
def test_each_band_has_its_own(bands):
    mean, std = list(range(100, 100 + bands)), list(range(1, 1 + bands))
    config = dict(type='BandDataPreprocessor', mean=mean, std=std, pad_size_divisor=32)
    data = batch((bands, 20, 40), (bands, 33, 8))
    made = MODELS.build(config)(data)['inputs']
    assert made.shape == (2, bands, 64, 64)
    for image, input in zip(data['inputs'], made):
        height, width = image.shape[1:]
        for band in range(bands):
            wanted = (image[band].float() - mean[band]) / std[band]
            torch.testing.assert_close(input[band, :height, :width], wanted)
            assert input[band, height:].abs().max() == 0


def test_of_three_bands_it_is_the_stock_one():
    values = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True)
    ours = BandDataPreprocessor(**values)(batch((3, 9, 9)))
    stock = DetDataPreprocessor(**values)(batch((3, 9, 9)))
    torch.testing.assert_close(ours['inputs'], stock['inputs'])


def test_what_does_not_fit_is_refused():
    """One band would be spread over four without an error."""
    with pytest.raises(ValueError, match='an image of 1 bands .* of 4'):
        BandDataPreprocessor([1.0] * 4, [1.0] * 4)(batch((1, 9, 9)))
    with pytest.raises(ValueError, match='got 4 and 3'):
        BandDataPreprocessor([1.0] * 4, [1.0] * 3)
    with pytest.raises(ValueError, match='got 0 and 0'):
        BandDataPreprocessor([], [])
    with pytest.raises(ValueError, match='bgr_to_rgb=False'):
        BandDataPreprocessor([1.0] * 4, [1.0] * 4, bgr_to_rgb=True)
