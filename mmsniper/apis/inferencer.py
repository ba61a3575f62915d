"""The detector in one of the modes, for image files and arrays."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS
from torch import nn

from mmsniper.apis.images import VIS, ImagePipeline, are_large, find_images
from mmsniper.apis.modes import PYRAMID, SINGLE, mode_config
from mmsniper.apis.results import Classes, ImageIds, coco_results, content_of
from mmsniper.apis.texts import takes_texts, text_classes, text_names
from mmsniper.checks import refuse_errors
from mmsniper.checks.checkpoint_file import check_checkpoint_file, unpickling_fault
from mmsniper.checks.classes import check_numbers, check_weights, saved_weights
from mmsniper.convert import load_config, sniper_version
from mmsniper.convert.inference import sees_coarse_to_fine
from mmsniper.datasets.windowed_files import is_zarr
from mmsniper.datasets.wrappers import type_name
from mmsniper.models.runtime import Runtime
from mmsniper.utils.read_ahead import read_ahead as made_ahead
from mmsniper.visualization.picture import as_picture, picture_name
from mmsniper.visualization.shrunk import shrunk_sample

Image = str | os.PathLike[str] | np.ndarray


class SNIPERInferencer(DetInferencer):
    """``DetInferencer`` for any config, image files of any size and folders, with COCO results.

    Args:
        model (str | os.PathLike | Config): Config file, or a config that has been read.
        weights (str | os.PathLike): Checkpoint of the detector or of AutoFocus. All weights of the
            config's model must be in it.
        mode (str | None): ``'pyramid'``, all levels; ``'autofocus'``, coarse to fine, by an
            AutoFocus config or, without FocusHead, any SNIPER config; ``'single'``, the image once,
            in its own pixels unless the config's pipeline resizes it, as MMDetection tests, to
            compare with. Defaults to None, as the config tests.
        thresholds (float | Sequence[float] | None): Of AutoFocus: minimum probability of a
            FocusPixel, for each step, coarse to fine, or one for all. Defaults to None, those of
            the config.
        device (str | None): Such as ``'cuda:0'``. Defaults to None, the GPU if there is one.
        palette (str): Colours of the classes, ``'none'`` for those of the data set. Defaults to
            ``'none'``.
        show_progress (bool): Whether to show a bar. Defaults to True.
        read_ahead (int): Batches of images that are loaded while the model sees one, but none while
            it sees more than 268 MB of decoded images. Defaults to 1.
        precision (str | None): ``'bf16'`` or ``'fp16'``, of any detector, see
            :class:`~mmsniper.models.runtime.Runtime`. Defaults to None, as the config says.
        compiled (bool | dict): Whether ``torch.compile`` compiles backbone, neck and dense head, or
            its arguments. Defaults to False, as the config says.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If the config lacks what the mode needs, the checkpoint lacks weights of the
            model, or there is no such precision.

    Example:
        >>> detect = SNIPERInferencer('my_config.py', 'epoch_7.pth')
        >>> detect('images/')['detections'][0]  # COCO's results
        {'image_id': 1, 'category_id': 3, 'bbox': [10.0, 20.0, 30.0, 40.0], 'score': 0.98}
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Config,
        weights: str | os.PathLike[str],
        mode: str | None = None,
        thresholds: float | Sequence[float] | None = None,
        device: str | None = None,
        palette: str = 'none',
        show_progress: bool = True,
        read_ahead: int = 1,
        precision: str | None = None,
        compiled: bool | Mapping[str, Any] = False,
    ) -> None:
        self.weights = os.fspath(weights)
        self._named: dict[Any, Classes] = {}  # what labels mean for a text
        self.read_ahead, self.runtime = read_ahead, Runtime(precision, compiled)
        cfg = sniper_version(model) if isinstance(model, Config) else load_config(model)
        config, self._transforms = mode_config(cfg, mode)
        if thresholds is not None:
            if mode in (SINGLE, PYRAMID) or not sees_coarse_to_fine(config):
                raise ValueError(
                    f"thresholds are AutoFocus's, but the model is a {type_name(config)}: detect "
                    f"with mode='autofocus'"
                )
            config.thresholds = thresholds
        if '://' not in self.weights and not Path(self.weights).is_file():
            raise FileNotFoundError(f'there is no checkpoint {self.weights}')
        refuse_errors(check_checkpoint_file(self.weights))
        cfg = copy(cfg)
        # A visualizer of its own: the config's may log to elsewhere.
        cfg.model, cfg.visualizer = config, ConfigDict(type='mmdet.DetLocalVisualizer')
        scope = cfg.get('default_scope') or 'mmdet'
        try:
            super().__init__(cfg, self.weights, device, scope, palette)
        except UnpicklingError as error:
            raise ValueError(f'{self.weights} {unpickling_fault(error)}') from error
        self.show_progress = show_progress

    palette: Any

    def _load_weights_to_model(
        self, model: nn.Module, checkpoint: Mapping[str, Any], cfg: Config
    ) -> None:
        """Load all weights; what labels mean is known from the config as well."""
        state = saved_weights(checkpoint)
        refuse_errors(check_numbers(model, state, self.weights))
        self.classes = Classes.of(cfg, checkpoint, self.palette)
        self.palette = self.classes.palette
        if getattr(model, 'focus_head', None) is None:  # a detector of an AutoFocus's weights
            state = {key: w for key, w in state.items() if not key.startswith('focus_head.')}
        meta = dict(dataset_meta=dict(classes=list(self.classes.names) or None))
        refuse_errors(check_weights(model, dict(checkpoint, state_dict=state), self.weights))
        super()._load_weights_to_model(model, dict(state_dict=state, meta=meta), cfg)

    def _init_pipeline(self, cfg: Config) -> ImagePipeline:
        pipeline = ImagePipeline(self._transforms)
        if takes_texts(self.model) and self.classes.names:  # as data sets tell it
            pipeline.texts = dict(text=tuple(self.classes.names), custom_entities=True)
        return pipeline

    def _init_collate(self, cfg: Config) -> Callable[..., Any]:
        """As ``DetInferencer``, which looks in MMDetection's registry of functions: it has none."""
        name = (cfg.get('test_dataloader') or {}).get('collate_fn')
        return FUNCTIONS.get(name) if name else pseudo_collate

    def _inputs_to_list(self, inputs: Image | Sequence[Image]) -> list[str | np.ndarray]:
        """Files and arrays, and of folders all images in and below them."""
        if isinstance(inputs, str | os.PathLike | np.ndarray):
            inputs = [inputs]
        listed: list[str | np.ndarray] = []
        for image in inputs:
            if isinstance(image, np.ndarray):
                listed.append(image)
            elif os.path.isdir(image) and not is_zarr(image):
                listed += map(str, find_images([image]).values())
            else:
                listed.append(os.fspath(image))
        return listed

    def preprocess(self, inputs: Sequence[Any], batch_size: int = 1, **kwargs: Any) -> Iterator:
        """Load batches of images, the next ones while one is detected."""
        batches = super().preprocess(inputs, batch_size, **kwargs)
        return made_ahead(batches, self.read_ahead, lambda batch: are_large(batch[1]['inputs']))

    def look_for(self, text: str, custom_entities: bool = False) -> None:
        """Have a detector that takes texts find what a text names, from now on.

        Without it, and without ``texts`` in a call, such a detector finds the classes of the
        config or checkpoint.

        Args:
            text (str): What to find.
            custom_entities (bool): The text is names with full stops between them, such as
                ``'person . car'``. Defaults to False: its noun phrases are found, by nltk.

        Raises:
            ValueError: If the detector takes no texts.
        """
        [told] = self._told([text], custom_entities)
        self.pipeline.texts = dict(text=told, custom_entities=custom_entities)

    def _told(
        self, texts: Sequence[str], custom_entities: bool, tokens_positive: Any = None
    ) -> list[Any]:
        """The texts as the model gets them; what its labels mean for each, and all, is noted."""
        told = [text_names(text) if custom_entities else text for text in texts]
        names = {
            text: text_classes(self.model, text, custom_entities, tokens_positive)
            for text in dict.fromkeys(told)
        }
        # A name that several texts have is one category.
        every = dict.fromkeys(chain.from_iterable(names.values()))
        self.classes = Classes.named(self.cfg, list(every))
        ids = dict(zip(self.classes.names, self.classes.ids))
        self._named = {
            text: replace(self.classes, names=of_text, ids=[ids[name] for name in of_text])
            for text, of_text in names.items()
        }
        return told

    def forward(self, inputs: Mapping[str, Any], **kwargs: Any) -> SampleList:
        """Detect in a batch of images."""
        with self.runtime.of(self.model):
            results = super().forward(inputs, **kwargs)
        for result in results:
            found, text = result.pred_instances, result.metainfo.get('text')
            if text in self._named:  # as MMDetection's detectors do, for pictures
                classes = self._named[text]
                found.label_names = [classes.name(label) for label in found.labels.tolist()]
        return results

    def postprocess(self, preds: SampleList, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Note the results for COCO as well."""
        for sample in preds:
            classes = self._named.get(sample.metainfo.get('text'), self.classes)
            self._contents.append(content_of(sample, classes))
        return super().postprocess(preds, *args, **kwargs)

    def visualize(
        self,
        inputs: Sequence[str | np.ndarray],
        preds: SampleList,
        return_vis: bool = False,
        show: bool = False,
        wait_time: float = 0,
        draw_pred: bool = True,
        pred_score_thr: float = 0.3,
        no_save_vis: bool = False,
        img_out_dir: str = '',
        **kwargs: Any,
    ) -> list[np.ndarray | None] | None:
        """Draw what was detected, on images of any bands and depth.

        Images that are read by windows are drawn reduced, at most 1600 px a side.

        Args:
            inputs (Sequence[str | np.ndarray]): Files and arrays, which are loaded anew.
            preds (SampleList): What was detected.
            return_vis (bool): Whether to return the pictures. Defaults to False.
            show (bool): Whether to show them in a window. Defaults to False.
            wait_time (float): Seconds that each is shown. Defaults to 0, until a key is pressed.
            draw_pred (bool): Whether to draw the detections. Defaults to True.
            pred_score_thr (float): Minimum score of what is drawn. Defaults to 0.3.
            no_save_vis (bool): Whether to write no pictures. Defaults to False.
            img_out_dir (str): They are written to the folder ``vis`` in it. Defaults to ``''``,
                nowhere.
            **kwargs: Ignored.

        Returns:
            list[np.ndarray | None] | None: Pictures (h, w, 3), RGB; None for one that cannot be
            drawn, of which the log says why. None if there is nothing to do.
        """
        folder = Path(img_out_dir, VIS) if img_out_dir and not no_save_vis else None
        if not (show or return_vis or folder):
            return None
        drawn: list[np.ndarray | None] = []
        for image, pred in zip(inputs, preds):
            name = f'{self.num_visualized_imgs:08}.jpg'
            if isinstance(image, str):
                name = os.path.basename(image)
            self.num_visualized_imgs += 1
            try:
                img = self.pipeline.load(image)['img']
                picture = as_picture(img)
                self.visualizer.add_datasample(
                    name,
                    picture[..., ::-1],
                    shrunk_sample(pred, img.shape[:2], picture.shape[:2]),
                    draw_gt=False,
                    draw_pred=draw_pred,
                    show=show,
                    wait_time=wait_time,
                    out_file=None if folder is None else str(folder / picture_name(name)),
                    pred_score_thr=pred_score_thr,
                )
                drawn.append(self.visualizer.get_image())
            except Exception as error:  # of whatever kind: the detections are to be kept
                drawn.append(None)
                print_log(
                    f'the picture of {name} cannot be drawn: {type(error).__name__}: {error}',
                    logger='current',
                    level=logging.WARNING,
                )
        return drawn

    def __call__(
        self,
        inputs: Image | Sequence[Image],
        *args: Any,
        texts: str | Sequence[str] | None = None,
        custom_entities: bool = False,
        **kwargs: Any,
    ) -> dict:
        """Detect in images.

        Args:
            inputs (str | os.PathLike | np.ndarray | Sequence): Image files, folders, and arrays
                (h, w) or (h, w, bands), BGR if of three.
            *args: As for ``DetInferencer``.
            texts (str | Sequence[str] | None): What a detector that takes texts is to find, in all
                images or in each. Defaults to None, what :meth:`look_for` has told last.
            custom_entities (bool): As for :meth:`look_for`. Defaults to False.
            **kwargs: As for ``DetInferencer``.

        Returns:
            dict: ``DetInferencer``'s ``predictions`` and ``visualization``; ``detections``, COCO
            results in original pixels; and ``images``, their images and categories in COCO's
            annotation format and, of AutoFocus, the chips of each level. Images have the ids of the
            annotation file of the config's test data, if they are in it; else they are numbered
            from 1. An array's name is its place.

        Raises:
            ValueError: If there are texts, but not as many as images, or the detector takes none.
        """
        images, before = self._inputs_to_list(inputs), (self.classes, self._named)
        try:
            if texts is not None:
                texts = [texts] * len(images) if isinstance(texts, str) else texts
                if len(texts) != len(images):
                    raise ValueError(f'{len(images)} images need as many texts, got {len(texts)}')
                told = self._told(texts, custom_entities, kwargs.get('tokens_positive'))
                kwargs.update(texts=told, custom_entities=custom_entities)
            self._contents: list[dict[str, Any]] = []
            results = super().__call__(images, *args, **kwargs)
            names = [im if isinstance(im, str) else str(k) for k, im in enumerate(images, 1)]
            numbers = ImageIds.of(self.cfg, {name: Path(name) for name in names})
            results.update(detections=[], images=self.classes.coco(numbers))
        finally:
            self.classes, self._named = before
        for name, content in zip(names, self._contents):
            about, detections = coco_results(numbers.ids[name], name, content)
            results['images']['images'].append(about)
            results['detections'] += detections
        return results

    def load(self, image: Image, picture_side: int) -> tuple[dict[str, Any], np.ndarray]:
        """Load an image for :meth:`detect`.

        Args:
            image (str | os.PathLike | np.ndarray): File, or array (h, w) or (h, w, bands), BGR if
                of three.
            picture_side (int): Largest side of the picture.

        Returns:
            tuple[dict, np.ndarray]: What the model takes, and the image, reduced, to draw on it,
            (h, w, 3) uint8 BGR.
        """
        results = self.pipeline.load(image)
        # A copy, which no transform can change.
        picture = as_picture(results['img'], picture_side)
        return self.pipeline.prepare(results), picture

    def detect(self, loaded: Sequence[Mapping[str, Any]]) -> list[DetDataSample]:
        """Detect in images that are loaded, together.

        Args:
            loaded (Sequence[dict]): What the model takes, as :meth:`load` gives it.

        Returns:
            list[DetDataSample]: What the model predicts.
        """
        return self.forward(self.collate_fn(loaded))
