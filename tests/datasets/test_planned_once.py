"""In a training of several processes one reads and all plan a share; each has the whole plan."""

import json
import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.runner import Runner

from mmsniper.chips import targets
from mmsniper.chips.coco_file import CocoFile
from mmsniper.datasets import samplers

EPOCHS = 2


def loaded(config, files):
    """What a process makes of the config of a data loader; ``files`` gets what it reads."""
    read, annotations = CocoFile.read, samplers.read_annotations

    def counted(*args, **kwargs):
        files.append('coco')
        return read(*args, **kwargs)

    def counted_annotations(*args):
        table = annotations(*args)
        files.append(len(table))
        return table

    CocoFile.read, samplers.read_annotations = counted, counted_annotations
    boxes, targets._BOXES = targets._BOXES, 4  # chunks, of which there are shares
    try:
        loader = Runner.build_dataloader(config, seed=3)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    finally:
        CocoFile.read, samplers.read_annotations = read, annotations
        targets._BOXES = boxes
    dataset, sampler = loader.dataset, loader.sampler
    result = dict(
        infos=[dataset.get_data_info(i) for i in range(len(dataset))],
        metainfo=dict(dataset.metainfo),
        unproven=sampler.planner.unproven,
        epochs=[],
    )
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        chips = [(int(index), index.chip, index.left) for index in sampler]
        drawn = [sample.chip for batch in loader for sample in batch['data_samples']]
        plan = [a.tobytes() for a in vars(sampler.plan).values()]
        result['epochs'].append(dict(chips=chips, drawn=drawn, plan=plan))
    return result


def _rank_main(rank, world_size, folder, configs):
    register_all_modules(init_default_scope=True)
    tempfile.tempdir = f'{folder}/temporary'
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
    )
    seen = {}
    for name, config in configs.items():
        files = []
        seen[name] = loaded(config, files), files
    Path(f'{folder}/{rank}.pkl').write_bytes(pickle.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture
def plain(five_images, tmp_path):
    """The five images as a data set in OpenMMLab's own format, which is no COCO file."""
    coco = DATASETS.build(five_images(name='plain'))
    infos = [coco.get_data_info(i) for i in range(len(coco))]
    file = tmp_path / 'plain.json'
    file.write_text(json.dumps(dict(metainfo=dict(classes=['a', 'b']), data_list=infos)))
    return dict(type='BaseDetDataset', ann_file=str(file), data_prefix={})


@pytest.fixture
def configs(five_images, plain, chips_of, pyramid):
    """Data loaders of data sets with wrappers around them and below."""
    twice = dict(type='RepeatDataset', times=2, dataset=five_images(name='one'))
    rare = dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=five_images(name='two'))
    both = dict(type='ConcatDataset', datasets=[twice, rare])
    faulty = five_images(name='faulty')
    (Path(faulty['data_root']) / 'ann.json').write_text('{}')
    datasets = dict(
        coco=chips_of(five_images(name='alone')),
        wrapped=chips_of(both),
        wrapping=dict(type='RepeatDataset', times=2, dataset=chips_of(five_images(name='in'))),
        plain=chips_of(plain),
        unserialized=chips_of(five_images(name='lists', serialize_data=False)),
        faulty=chips_of(faulty),
    )
    sampler = dict(type='ChipAwareSampler', pyramid=pyramid)
    configs = {
        name: dict(batch_size=3, num_workers=0, sampler=sampler, dataset=dataset)
        for name, dataset in datasets.items()
    }
    configs['coco'].update(num_workers=2, persistent_workers=True)
    configs['wrapped']['sampler'] = sampler | dict(lanes=3, background=0.1)
    configs['plain']['sampler'] = sampler | dict(strategy='grid')
    return configs


def test_two_processes_have_what_one_has(configs, tmp_path):
    (tmp_path / 'temporary').mkdir()
    mp.spawn(_rank_main, args=(2, str(tmp_path), configs), nprocs=2)
    ranks = [pickle.loads((tmp_path / f'{rank}.pkl').read_bytes()) for rank in range(2)]
    faulty = [seen.pop('faulty')[0] for seen in ranks]
    assert faulty[0] == faulty[1]
    assert "ann.json has no list 'images'" in faulty[0]
    del configs['faulty']
    for name, config in configs.items():
        alone = loaded(config, files := [])
        (first, read), (second, other) = (seen[name] for seen in ranks)
        *files, images = files
        assert read == [*files, images // 2]
        files = files if name == 'unserialized' else []
        assert other == [*files, images - images // 2]
        for seen in (first, second):
            for key in ('infos', 'metainfo', 'unproven'):
                assert seen[key] == alone[key], (name, key)
        for epoch in range(EPOCHS):
            here, there, whole = (seen['epochs'][epoch] for seen in (first, second, alone))
            assert here['plan'] == there['plan'] == whole['plan'], name
            for rank in (here, there):
                assert rank['drawn'] == [chip for _, chip, _ in rank['chips']]
            shares = {(image, chip) for rank in (here, there) for image, chip, _ in rank['chips']}
            assert shares == {(image, chip) for image, chip, _ in whole['chips']}
            if not config['sampler'].get('lanes'):
                assert here['chips'] == whole['chips'][::2]
    assert os.listdir(tmp_path / 'temporary') == []
