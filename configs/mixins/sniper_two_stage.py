# _base_ = [a two-stage config, this file] is its SNIPER version, with the paper's pyramid for COCO.
_base_ = ['../_base_/sniper_two_stage.py', '../_base_/pyramids/coco_paper.py']
