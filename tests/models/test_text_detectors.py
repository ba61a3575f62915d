"""Detectors that find what a text names: they ignore invalid objects, and every window has it."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from embedded_words import GROUNDING_DINO, make_small
from mmdet.datasets import ODVGDataset
from mmdet.datasets.transforms import text_transformers
from mmdet.models.dense_heads import ATSSVLFusionHead
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData

from mmsniper.chips.pyramid import ScalePyramid
from mmsniper.datasets import ChipAwareSampler, ChipDataset
from mmsniper.models import IgnoreInvalidAssigner

NAMES = ('car', 'person', 'bicycle')
SIZE = 128
VALID = ([20.0, 24.0, 60.0, 60.0], 0)
INVALID = ([50.0, 44.0, 90.0, 82.0], 2)
REGION = ([100.0, 100.0, 120.0, 120.0], -1)
PYRAMID = dict(
    chip_size=128,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 64)),
        dict(resize=dict(factor=0.5), valid_range=(48, None)),
    ],
)


@pytest.fixture(scope='module')
def grounding_dino():
    model = get_config(GROUNDING_DINO).model
    make_small(model, len(NAMES))
    model.bbox_head.type = 'SNIPERGroundingDINOHead'
    model.train_cfg.assigner = ConfigDict(
        type='IgnoreInvalidAssigner', assigner=model.train_cfg.assigner
    )
    model.update(type='PyramidDetector', detector='SNIPERGroundingDINO', pyramid=PYRAMID)
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    return built


def objects(of):
    return InstanceData(
        bboxes=torch.tensor([box for box, _ in of]).reshape(-1, 4),
        labels=torch.tensor([label for _, label in of], dtype=torch.long),
    )


def sample(valid, ignored):
    shape = (SIZE, SIZE)
    return DetDataSample(
        metainfo=dict(
            img_shape=shape, batch_input_shape=shape, pad_shape=shape, text=NAMES, img_id=0
        ),
        gt_instances=objects(valid),
        ignored_instances=objects(ignored),
    )


def step(model, valid, ignored):
    """Losses, and the gradient at the words' scores (layers, queries, words) behind the noise."""
    outputs = []

    def keep(_, __, output):
        output[0].retain_grad()
        outputs.append(output[0])

    torch.manual_seed(1)
    image = torch.randn(1, 3, SIZE, SIZE)
    model.train()
    model.zero_grad()
    hook = model.bbox_head.register_forward_hook(keep)
    given = sample(valid, ignored)
    losses = model.loss(image, [given])
    hook.remove()
    assert 'num_valid' not in given.gt_instances
    sum(loss.sum() for loss in losses.values()).backward()
    gradient = outputs[0].grad[:, 0]
    return losses, gradient[:, -model.num_queries :], gradient[:, : -model.num_queries]


def test_grounding_dino_ignores_a_query_of_each_layer_for_an_invalid_object(grounding_dino):
    marked, of_marked, noise_of_marked = step(grounding_dino, [VALID], [REGION, INVALID])
    dropped, of_dropped, noise_of_dropped = step(grounding_dino, [VALID], [REGION])
    ignored = (of_marked == 0).all(dim=-1)
    assert ignored.sum(dim=1).tolist() == [1] * len(ignored)
    assert (of_dropped[ignored] > 0).any(dim=-1).all()
    assert torch.equal(of_marked[~ignored], of_dropped[~ignored])
    assert torch.equal(noise_of_marked, noise_of_dropped)
    assert noise_of_marked.abs().sum() > 0
    changed = {name for name in marked if not torch.equal(marked[name], dropped[name])}
    assert changed <= {'loss_cls', 'd0.loss_cls', 'enc_loss_cls'}
    assert changed


def test_without_a_valid_object_grounding_dino_learns_the_background(grounding_dino):
    losses, gradient, _ = step(grounding_dino, [], [INVALID])
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert (gradient == 0).all(dim=-1).sum(dim=1).tolist() == [1] * len(gradient)


def test_every_window_is_seen_with_the_text_of_its_image(grounding_dino):
    told = []
    predict = type(grounding_dino).predict

    def noted(inputs, samples, **kwargs):
        told.extend(sample.text for sample in samples)
        return predict(grounding_dino, inputs, samples, **kwargs)

    images = [torch.randint(0, 255, (3, 150, 200), dtype=torch.uint8) for _ in range(2)]
    texts = [NAMES, NAMES[:2]]
    samples = [
        DetDataSample(
            metainfo=dict(img_id=i, ori_shape=(150, 200), text=text, custom_entities=True)
        )
        for i, text in enumerate(texts)
    ]
    grounding_dino.eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grounding_dino, 'predict', noted)
        results = grounding_dino.test_step(dict(inputs=images, data_samples=samples))
    assert sorted(told) == sorted(texts * len(PYRAMID['levels']))
    for result, text in zip(results, texts):
        assert len(result.pred_instances)
        assert result.pred_instances.labels.max() < len(text)


def test_glip_gives_no_weight_to_the_anchors_of_an_invalid_object():
    """Its head needs transformers; which anchors it weighs does not."""
    assigner = IgnoreInvalidAssigner(dict(type='ATSSAssigner', topk=9))
    head = SimpleNamespace(
        assigner=assigner,
        sampler=PseudoSampler(),
        feat_channels=8,
        reg_decoded_bbox=True,
        train_cfg=dict(pos_weight=-1),
    )
    at = torch.arange(4.0, SIZE, 8)
    centres = torch.stack(torch.meshgrid(at, at, indexing='xy'), dim=-1).reshape(-1, 2)
    anchors = torch.cat([centres - 20, centres + 20], dim=1)

    def weights(valid, ignored):
        given = objects(valid)
        given.positive_maps = torch.eye(8)[given.labels]
        _, labels, weights, *_ = ATSSVLFusionHead._get_targets_single(
            head, anchors.clone(), None, [len(anchors)], given, {}, objects(ignored)
        )
        return labels, weights

    labels, marked = weights([VALID], [REGION, INVALID])
    of_dropped, dropped = weights([VALID], [REGION])
    alone, _ = weights([INVALID], [])
    positive = labels.any(dim=1)
    assert torch.equal(labels, of_dropped)
    assert torch.equal(marked == 0, alone.any(dim=1) & ~positive)
    assert (marked == 0).any()
    assert (dropped == 1).all()


def test_names_that_are_drawn_for_a_chip_have_those_of_its_invalid_objects(tmp_path, monkeypatch):
    """``RandomSamplingNegPos`` numbers the classes anew."""
    tokenizer = SimpleNamespace(tokenize=str.split)
    monkeypatch.setattr(
        text_transformers, 'AutoTokenizer', SimpleNamespace(from_pretrained=lambda _: tokenizer)
    )
    boxes = [([10, 10, 40, 40], 0), ([30, 30, 110, 110], 2)]
    instances = [dict(bbox=box, label=label, category=NAMES[label]) for box, label in boxes]
    image = dict(filename='a.png', height=128, width=128, detection=dict(instances=instances))
    (tmp_path / 'odvg.jsonl').write_text(json.dumps(image))
    (tmp_path / 'names.json').write_text(json.dumps(dict(enumerate(NAMES))))
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((128, 128, 3), np.uint8))
    dataset = ODVGDataset(
        data_root=str(tmp_path),
        ann_file='odvg.jsonl',
        label_map_file='names.json',
        data_prefix=dict(img=''),
        return_classes=True,
        pipeline=[],
    )
    keys = ('img_shape', 'scale_factor', 'text', 'tokens_positive')
    chips = ChipDataset(
        dataset,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='ChipSampler', pyramid=PYRAMID),
            dict(type='ScaleRangeFilter', pyramid=PYRAMID),
            dict(type='RandomSamplingNegPos', tokenizer_name='', num_sample_negative=2),
            dict(type='PackDetInputs', meta_keys=keys),
        ],
    )
    samples = [
        chips[index]['data_samples']
        for index in ChipAwareSampler(chips, pyramid=ScalePyramid.from_config(PYRAMID), seed=0)
    ]
    [sample] = [sample for sample in samples if sample.metainfo['level'] == 0]

    def named(instances):
        spans = [sample.tokens_positive[label] for label in instances.labels.tolist()]
        return [sample.text[start:end] for [[start, end]] in spans]

    assert named(sample.gt_instances) == ['car']
    assert named(sample.ignored_instances) == ['bicycle']
