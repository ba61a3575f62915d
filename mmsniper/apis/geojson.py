"""Detections as GeoJSON, in the coordinates of the scene that they were found in."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsniper.apis.results import Classes
from mmsniper.utils.image_header import read_header

WGS84 = 'EPSG:4326'

_FORMATS = ('TIFF', 'JPEG 2000')
_DECIMALS = dict(degrees=9, metres=4)  # 0.1 mm


@dataclass(frozen=True)
class GeoReference:
    """Where on the earth an image is.

    Attributes:
        crs: Coordinate reference system, a rasterio ``CRS``.
        transform: (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f,
            of the edges of pixels, so that (0, 0) is the image's corner.
    """

    crs: Any
    transform: tuple[float, ...]

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> GeoReference | None:
        """That of an image file.

        Returns:
            GeoReference | None: None if it is no TIFF or JPEG 2000, has no CRS and transform, or
            rasterio is not installed.
        """
        header = read_header(path)
        if header is None or header.format not in _FORMATS or find_spec('rasterio') is None:
            return None
        import rasterio

        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that it is not georeferenced
            try:
                with rasterio.open(path) as file:
                    crs, transform = file.crs, file.transform
            except rasterio.errors.RasterioIOError:  # OpenCV has read it
                return None
        return None if not crs or transform.is_identity else cls(crs, tuple(transform)[:6])

    def places(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates (n, 2), east and north, of points (n, 2) in original pixels, x and y."""
        a, b, c, d, e, f = self.transform
        return points @ np.array([[a, d], [b, e]]) + [c, f]


def check_crs(name: str) -> None:
    """Check that there is a coordinate reference system of a name.

    Raises:
        ImportError: If rasterio is not installed.
        ValueError: If PROJ knows none of this name.
    """
    if find_spec('rasterio') is None:
        raise ImportError(
            'GeoJSON is written by rasterio, which is not installed: pip install rasterio'
        )
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        CRS.from_user_input(name)
    except CRSError as error:
        raise ValueError(
            f'--geojson-crs {name}: there is no such CRS ({error}); give one as EPSG:4326'
        ) from error


def feature_collection(
    name: str,
    content: Mapping[str, Any],
    classes: Classes,
    reference: GeoReference,
    crs: str | None = None,
) -> dict[str, Any]:
    """The detections of an image as GeoJSON: their boxes as polygons.

    Corners are in the scene's own CRS, which is named in a member ``crs`` as GDAL and QGIS write
    and read it. RFC 7946 knows WGS 84 alone, longitude first, and no such member: that is written
    for ``crs='EPSG:4326'``, for scenes that are in it, and for those whose CRS has no number of
    EPSG to be named by.

    Args:
        name (str): The image's.
        content (dict): What :func:`~mmsniper.apis.results.content_of` returns.
        classes (Classes): The classes.
        reference (GeoReference): Where the image is.
        crs (str | None): CRS of the coordinates, such as ``'EPSG:4326'``; the four corners of each
            box are taken there. Defaults to None, the scene's own.

    Returns:
        dict: A ``FeatureCollection``. Properties of a feature are ``class``, ``category_id``,
        ``score``, and ``level`` where several levels were seen.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    target = CRS.from_user_input(crs) if crs else reference.crs
    number = target.to_epsg()
    if number is None:
        target, number = CRS.from_user_input(WGS84), 4326
    found = content['detections']
    boxes = np.array([one['bbox'] for one in found], np.float64).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    corners = [
        low,
        np.stack([low[:, 0], high[:, 1]], 1),
        high,
        np.stack([high[:, 0], low[:, 1]], 1),
    ]
    places = reference.places(np.stack(corners, axis=1).reshape(-1, 2))
    if target != reference.crs and len(places):
        places = np.array(transform(reference.crs, target, *places.T)).T
    a, b, _, d, e, _ = reference.transform
    rings: NDArray = places.reshape(-1, 4, 2)
    if a * e - b * d > 0:  # rows go north: the same corners are clockwise
        rings = rings[:, ::-1]
    rings = rings.round(_DECIMALS['degrees' if target.is_geographic else 'metres'])
    names = dict(zip(classes.ids, classes.names))
    levels = content.get('levels') or [None] * len(found)
    collection: dict[str, Any] = dict(type='FeatureCollection', name=name)
    if number != 4326:
        urn = f'urn:ogc:def:crs:EPSG::{number}'
        collection['crs'] = dict(type='name', properties=dict(name=urn))
    collection['features'] = [
        _feature(ring, one, names.get(one['category_id']), level)
        for ring, one, level in zip(rings.tolist(), found, levels)
    ]
    return collection


def _feature(
    ring: list[list[float]], detection: Mapping[str, Any], name: str | None, level: int | None
) -> dict[str, Any]:
    number = detection['category_id']
    properties = {'class': name or f'class {number}', 'category_id': number}
    properties['score'] = detection['score']
    if level is not None:
        properties['level'] = level
    polygon = dict(type='Polygon', coordinates=[[*ring, ring[0]]])
    return dict(type='Feature', geometry=polygon, properties=properties)
