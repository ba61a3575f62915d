"""What ``tools/test.py --out`` has written, and the images and objects that it is about."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

from mmsniper.chips.coco_file import CocoFile
from mmsniper.datasets.coco_reader import build_checked
from mmsniper.datasets.data_pickle import load_data
from mmsniper.datasets.decoding import load_or_raise, run_checked
from mmsniper.datasets.transforms.load_large_image import in_large_version
from mmsniper.datasets.wrappers import read_datasets, type_name
from mmsniper.utils.coco_matching import Matching, match_as_coco

_FIELDS = ('bboxes', 'labels', 'scores')


@dataclass(frozen=True, eq=False)
class PredictedData:
    """The images of a config's test, and what is annotated in them.

    Attributes:
        images (list[dict]): The images' entries in the COCO file, in the order of the data set.
        paths (list[str]): Their files.
        classes (tuple[str, ...]): The name of each label.
        content (dict): ``images``, ``annotations`` and ``categories`` of a COCO file, with these
            images and, in the order of the labels, these classes.
        loader (Callable): The transform that loads an image.
    """

    images: list[dict]
    paths: list[str]
    classes: tuple[str, ...]
    content: Mapping[str, Any]
    loader: Callable[[dict], dict | None]

    @classmethod
    def from_config(cls, cfg: Config) -> PredictedData:
        """The data of a config's ``test_dataloader``. No image is opened.

        Raises:
            ValueError: If the config has no test data, several data sets, or none of COCO's.
        """
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        config = _only_dataset(cfg)
        loading = next(iter(config.get('pipeline') or ()), dict(type='LoadImageFromFile'))
        dataset = build_checked({**config, 'pipeline': []})
        if not isinstance(dataset, CocoDataset) or not hasattr(dataset, 'cat_ids'):
            raise ValueError(
                f'the data set of test_dataloader is a {type_name(dataset)}; detections are '
                f'compared with the annotations of a CocoDataset'
            )
        file = CocoFile.read(dataset.ann_file, test=True)
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        image_of = {image['id']: image for image in file.images}
        category_of = {category['id']: category for category in file.categories}
        images = [image_of[info['img_id']] for info in infos]
        categories = [category_of[key] for key in dataset.cat_ids]
        return cls(
            images,
            [info['img_path'] for info in infos],
            tuple(category['name'] for category in categories),
            dict(images=images, annotations=file.annotations, categories=categories),
            TRANSFORMS.build(in_large_version(loading)),
        )

    def match(self, path: str | os.PathLike) -> Matching:
        """Match the predictions in a file to the annotated objects, as COCO does it.

        Args:
            path (str | os.PathLike): What ``tools/test.py --out`` has written.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it has no predictions, or those of other images or classes.
        """
        predictions = read_predictions(path)
        try:
            return match_as_coco(predictions, self.content)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from None

    def load(self, image: int) -> NDArray:
        """Load an image as the test does, (h, w) or (h, w, bands)."""
        given = dict(img_path=self.paths[image], img_id=0)
        return load_or_raise(partial(run_checked, self.loader), given)['img']


def _only_dataset(cfg: Config) -> Mapping[str, Any]:
    loader = cfg.get('test_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has no test_dataloader, whose data were predicted')
    datasets = list(read_datasets(loader.dataset.to_dict()))
    if len(datasets) != 1:
        raise ValueError(
            f'the test_dataloader of {cfg.filename} has {len(datasets)} data sets: write a config '
            f'for each, and test each by itself'
        )
    return datasets[0]


def read_predictions(path: str | os.PathLike) -> Sequence[Mapping[str, Any]]:
    """Read what ``tools/test.py --out`` has written. No code that the file names is run.

    Args:
        path (str | os.PathLike): The pickle.

    Returns:
        Sequence[dict]: A dict for each image, with ``img_id`` and, in ``pred_instances``,
        ``bboxes`` (n, 4) xyxy in original pixels, ``labels`` (n,) and ``scores`` (n,).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """
    content = load_data(path)
    samples: Sequence[Any] = content if isinstance(content, list | tuple) else [None]
    for i, sample in enumerate(samples):
        found = sample.get('pred_instances') if isinstance(sample, Mapping) else None
        if not isinstance(found, Mapping) or 'img_id' not in sample or set(_FIELDS) - set(found):
            raise ValueError(
                f'{path} does not hold predictions: expected a list of dicts with img_id and '
                f'pred_instances, with {", ".join(_FIELDS)} of each image; entry {i} is another. '
                f'Write the file by tools/test.py CONFIG CHECKPOINT --out {path}'
            )
    return samples
