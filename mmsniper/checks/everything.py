"""All that ``check.py`` tells: of the config, and of all that can be built from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from mmdet.registry import DATA_SAMPLERS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmsniper.checks.classes import check_objects, check_use
from mmsniper.checks.config import LOADERS, leaves
from mmsniper.checks.finding import ERROR, Finding, merged
from mmsniper.checks.images import ImageEntry, check_images, config_loading, image_entries
from mmsniper.checks.run import built_model, check_checkpoint, check_pretrained, check_run
from mmsniper.checks.scales import check_ranges, check_scales
from mmsniper.convert import load_config
from mmsniper.convert.training_chips import config_seed, samples_chips
from mmsniper.datasets.coco_reader import build_checked


def check_everything(
    config: str,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    images: bool = False,
    workers: int | None = None,
    checkpoint: str | None = None,
) -> list[Finding]:
    """Check a config file, its data and its checkpoint, as far as they can be read and built.

    What cannot be is a finding, and the rest goes on.

    Args:
        config (str): The config file.
        cfg_options (dict | None): Settings that replace those of the file, by their dotted keys.
            Defaults to None.
        images (bool): Open every image file, too. Defaults to False.
        workers (int | None): Threads for that, see :func:`~mmsniper.checks.images.check_images`.
            Defaults to None.
        checkpoint (str | None): Weights that are to be tested. Defaults to None.

    Returns:
        list[Finding]: The errors first.
    """
    try:
        cfg = load_config(config, cfg_options)
    except Exception as error:  # of whatever kind: it is what training would end in
        return [refused(config, error)]
    return check_loaded(cfg, images=images, workers=workers, checkpoint=checkpoint)


def refused(config: str, error: Exception) -> Finding:
    """That a config file cannot be loaded, and why."""
    return _failed(config, 'is refused', error)


class BuiltData:
    """What a config's data loaders read and plan, each built once, when it is first asked for.

    What cannot be built is tried again the next time, with the same error.

    Args:
        cfg (Config): The config. Left as it is.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = deepcopy(cfg)
        init_default_scope(self.cfg.get('default_scope') or 'mmdet')
        self._datasets: dict[str, Any] = {}
        self._sampler: Any = None

    def dataset(self, key: str) -> Any:
        """The data set of a loader; validation and test often have the same."""
        config = self.cfg[key].dataset
        same = next((k for k in self._datasets if self.cfg[k].dataset == config), None)
        self._datasets[key] = self._datasets[same] if same else build_checked(config)
        return self._datasets[key]

    def sampler(self) -> Any:
        """The training's sampler of chips, which has planned them."""
        if self._sampler is None:
            sampler = dict(self.cfg.train_dataloader.sampler)
            dataset = self.dataset('train_dataloader')
            self._sampler = DATA_SAMPLERS.build(
                dict(sampler, dataset=dataset, seed=config_seed(self.cfg))
            )
        return self._sampler


def check_loaded(
    cfg: Config,
    *,
    images: bool = False,
    workers: int | None = None,
    checkpoint: str | None = None,
    built: BuiltData | None = None,
) -> list[Finding]:
    """As :func:`check_everything`, of a config that has been loaded. Left as it is.

    ``built`` keeps what is built of it, for those who go on with that.
    """
    built = built or BuiltData(cfg)
    cfg = built.cfg
    failed: list[Finding] = []
    loaders = tuple(key for key in LOADERS if cfg.get(key))
    datasets: dict[str, Any] = {}
    for key in loaders:
        try:
            datasets[key] = built.dataset(key)
        except Exception as error:
            failed.append(_failed(f'{key}.dataset', 'cannot be built', error))
    model = _model(cfg, failed)
    findings = check_run(cfg, loaders, datasets, model)
    # The check before building says it better than what fails in building.
    known = {f.where.partition('.')[0] for f in findings if f.severity == ERROR}
    findings += [f for f in failed if f.where.partition('.')[0] not in known]
    opened: set[tuple[str, ImageEntry]] = set()
    for key, dataset in datasets.items():
        for where, leaf in leaves(dataset, f'{key}.dataset'):
            findings += check_use(leaf, where)
            findings += check_objects(leaf, where)
        if images and (loading := config_loading(cfg, key)):
            new = [e for e in image_entries(dataset) if (str(loading), e) not in opened]
            opened |= {(str(loading), entry) for entry in new}
            findings += check_images(new, loading, key, workers) if new else []
    if 'train_dataloader' in loaders:
        findings += check_pretrained(cfg)
    if 'train_dataloader' in datasets:
        findings += _check_chips(built)
    for file, testing in ((checkpoint, True), (cfg.get('load_from'), False)):
        if file:
            findings += check_checkpoint(cfg, file, model if testing else None)
    return merged(findings)


def _failed(where: str, how: str, error: Exception) -> Finding:
    what = str(error).strip() or type(error).__name__
    if not isinstance(error, (ValueError, OSError)):
        what = f'{type(error).__name__}: {what}'
    return Finding(ERROR, where, f'{how}: {what}')


def _model(cfg: Config, failed: list[Finding]) -> Any:
    try:
        return built_model(cfg)
    except Exception as error:
        failed.append(_failed('model', 'cannot be built', error))
        return None


def _check_chips(built: BuiltData) -> Iterator[Finding]:
    """Look at their scales and ranges, and plan them, as training does at its start."""
    if samples_chips(built.cfg.train_dataloader.get('sampler')):
        dataset = built.dataset('train_dataloader')
        yield from check_scales(built.cfg, dataset)
        yield from check_ranges(built.cfg, dataset)
        try:
            built.sampler()
        except Exception as error:
            yield _failed('train_dataloader.sampler', 'cannot plan chips', error)
