"""The neck of the authors' detector."""

import pytest
import torch

from mmsniper.models import ConcatNeck


def test_every_map_has_a_part_in_every_channel():
    neck = ConcatNeck(in_channels=[1, 2], out_channels=2)
    with torch.no_grad():
        neck.conv.conv.weight[:] = torch.tensor([[1.0, 10, 100], [-1, 0, 0]])[..., None, None]
        neck.conv.conv.bias[:] = torch.tensor([0.5, 0])
    first, second = torch.ones(1, 1, 2, 3), torch.tensor([2.0, 3])[None, :, None, None]
    (out,) = neck((first, second.expand(1, 2, 2, 3)))
    assert out.shape == (1, 2, 2, 3)
    assert (out[0, 0] == 1 + 20 + 300 + 0.5).all()
    assert (out[0, 1] == 0).all(), 'ReLU'


def test_maps_of_other_strides_are_refused():
    neck = ConcatNeck(in_channels=[1, 1], out_channels=2)
    with pytest.raises(ValueError, match=r'one size, got \[\(4, 4\), \(2, 2\)\].*dilation'):
        neck((torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2)))
