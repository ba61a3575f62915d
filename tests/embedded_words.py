"""A small Grounding DINO whose language model needs no transformers: it only looks words up."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

GROUNDING_DINO = 'mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py'


class Tokens:
    """A text in words, as far as MMDetection asks a tokenizer of transformers for them."""

    def __init__(self, text):
        self.words = text.split()
        self.input_ids = torch.tensor([[sum(map(ord, word)) % 50 for word in self.words]])
        self.of_char, at = [], 0
        for number, word in enumerate(self.words):
            at = text.index(word, at)
            self.of_char += [None] * (at - len(self.of_char)) + [number] * len(word)
            at += len(word)

    def char_to_token(self, char):
        return self.of_char[char] if char < len(self.of_char) else None


@MODELS.register_module()
class EmbeddedWords(nn.Module):
    """A language model that only looks words up."""

    pad_to_max, max_tokens = False, 256

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.language_backbone = SimpleNamespace(body=SimpleNamespace(language_dim=8))

    @staticmethod
    def tokenizer(texts, **_):
        return Tokens(texts[0])

    def forward(self, texts):
        ids = [Tokens(text).input_ids[0] for text in texts]
        known = nn.utils.rnn.pad_sequence([i > -1 for i in ids], batch_first=True)
        ids = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        number, length = ids.shape
        return dict(
            embedded=self.words(ids),
            masks=torch.eye(length, dtype=torch.bool).repeat(number, 1, 1),
            position_ids=torch.arange(length).repeat(number, 1),
            text_token_mask=known,
        )


def make_small(model: ConfigDict, num_classes: int) -> None:
    """Make the model of :data:`GROUNDING_DINO` one of a fraction of a second; changed in place."""
    norm = dict(type='BN', requires_grad=True)
    model.backbone = ConfigDict(
        type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3), norm_cfg=norm
    )
    model.neck.in_channels = [16, 32, 64]
    model.language_model = ConfigDict(type='EmbeddedWords')
    model.encoder.update(num_layers=1, num_cp=0)
    model.encoder.fusion_layer_cfg.embed_dim = 16
    model.decoder.num_layers = 2
    model.num_queries = 12
    model.dn_cfg.group_cfg.num_dn_queries = 4
    model.test_cfg.max_per_img = 12
    model.bbox_head.num_classes = num_classes
