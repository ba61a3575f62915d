"""Any bands and depth through the API: how an image is packed, and what is drawn of it."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from small_tiff import scene, tiff_bytes

from mmsniper.apis import SNIPERInferencer, inferencer
from mmsniper.apis.images import ImagePipeline
from mmsniper.datasets.decoding import ImageDecodingError
from mmsniper.visualization import as_picture


@pytest.fixture
def pipeline():
    register_all_modules(init_default_scope=True)

    def make(**options):
        return ImagePipeline([dict(type='mmdet.LoadLargeImageFromFile', **options)])

    return make


@pytest.mark.parametrize('bands', [0, 1, 3, 4, 8])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'f4'])
def test_arrays_are_packed_as_they_are(pipeline, bands, dtype):
    image = scene(30, 40, bands, dtype, 250)
    data = pipeline()(image)
    packed = data['inputs'].numpy()
    assert packed.shape == (max(bands, 1), 30, 40)
    np.testing.assert_array_equal(np.moveaxis(packed, 0, 2), image.reshape(30, 40, -1))
    assert np.shares_memory(packed, image)
    assert data['data_samples'].ori_shape == (30, 40)


@pytest.mark.parametrize('bands', [0, 4])
def test_files_are_packed_with_all_bands_and_bits(pipeline, tmp_path, bands):
    image = scene(30, 40, bands, 'u2', 4095)
    (tmp_path / 'x.tif').write_bytes(tiff_bytes(image))
    packed = pipeline(color_type='unchanged')(tmp_path / 'x.tif')['inputs'].numpy()
    assert packed.dtype == np.uint16
    first = image if bands == 0 else image[..., 2]  # RGB to BGR
    np.testing.assert_array_equal(packed[0], first)


def test_pillow_turns_its_array_around(pipeline, tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), scene(30, 40, 3, 'u1', 255))
    ours, theirs = (
        pipeline(imdecode_backend=backend)(tmp_path / 'x.png')['inputs']
        for backend in ('cv2', 'pillow')
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize('image', [np.zeros((9, 9, 3), np.int64), np.zeros((1, 9, 9, 3), np.uint8)])
def test_arrays_that_no_detector_takes_are_refused(pipeline, image):
    with pytest.raises(ImageDecodingError, match='the image is an array of shape'):
        pipeline().load(image)


# --- pictures -------------------------------------------------------------------------------------


@pytest.fixture
def drawing(pipeline):
    """(options of the loader) -> an inferencer that can draw, without a model."""

    def make(**options):
        made = SNIPERInferencer.__new__(SNIPERInferencer)
        made.visualizer = DetLocalVisualizer()
        made.visualizer.dataset_meta = dict(classes=('a',), palette=[(0, 255, 0)])
        made.pipeline, made.num_visualized_imgs = pipeline(**options), 0
        return made

    return make


def sample():
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 30, 20]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.9]),
    )
    return DetDataSample(pred_instances=found)


@pytest.mark.parametrize('bands', [0, 1, 3, 4, 8])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'f4'])
def test_arrays_are_drawn(drawing, tmp_path, bands, dtype):
    image = scene(60, 80, bands, dtype, 250)
    (drawn,) = drawing().visualize([image], [sample()], return_vis=True, img_out_dir=str(tmp_path))
    np.testing.assert_array_equal(drawn[40:], as_picture(image)[40:, :, ::-1])  # RGB
    assert (drawn[10, 12:28, 1] > 150).all()
    written = cv2.imread(str(tmp_path / 'vis' / '00000000.jpg'))
    assert np.abs(written[40:].mean() - drawn[40:].mean()) < 3


def test_files_are_drawn_and_failures_are_told(drawing, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(inferencer, 'print_log', lambda text, **_: said.append(text))
    image = scene(60, 80, 4, 'u2', 4095)
    for name, bands in (('a.tif', image), ('b.tif', scene(60, 80, 8, 'u2', 4095))):
        (tmp_path / name).write_bytes(tiff_bytes(bands))
    draw = drawing(color_type='unchanged')
    files = [str(tmp_path / name) for name in ('b.tif', 'a.tif')]
    samples = [sample(), sample()]
    nothing, drawn = draw.visualize(files, samples, return_vis=True, img_out_dir=str(tmp_path))
    assert nothing is None
    assert 100 < drawn[40:].mean() < 155
    assert [path.name for path in (tmp_path / 'vis').iterdir()] == ['a.tif.png']
    (message,) = said
    assert message.startswith('the picture of b.tif cannot be drawn: ImageDecodingError')
    assert draw.visualize(files, samples) is None
    assert draw.visualize(files, samples, img_out_dir=str(tmp_path), no_save_vis=True) is None
