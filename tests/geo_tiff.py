"""GeoTIFF and JPEG 2000 as GIS programs write them, made by rasterio."""

import warnings

import cv2
import numpy as np
import pytest


def smooth_scene(width, height, bands=3, dtype='u1', most=255, seed=0):
    """Values of 0 to ``most``, smooth, so that overviews of them are near to what they show."""
    rng = np.random.default_rng(seed)
    noise = rng.random((height // 8 + 2, width // 8 + 2, bands)).astype(np.float32)
    img = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    img = img.reshape(height, width, bands)
    img = (img - img.min()) / (img.max() - img.min())
    return (img * most).astype(dtype)


def write_raster(path, img, overviews=(), tile=64, driver='GTiff', **options):
    """Write an image (h, w, bands), with the bands in this order; returns the path as str."""
    rasterio = pytest.importorskip('rasterio')
    height, width, bands = img.shape
    layout = dict(tiled=True, blockxsize=tile, blockysize=tile) if tile else {}
    if driver == 'JP2OpenJPEG':
        layout = dict(reversible='YES', quality=100, blockxsize=tile, blockysize=tile)
    facts = dict(driver=driver, width=width, height=height, count=bands, dtype=img.dtype.name)
    if bands in (3, 4) and driver == 'GTiff':
        layout['photometric'] = 'RGB'
        if bands == 4:
            layout['alpha'] = 'NO'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that it is not georeferenced
        with rasterio.open(path, 'w', **facts, **{**layout, **options}) as file:
            file.write(np.moveaxis(img, 2, 0))
        if overviews:
            with rasterio.open(path, 'r+') as file:
                file.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    return str(path)
