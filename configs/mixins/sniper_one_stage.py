# _base_ = [a one-stage config, this file] is its SNIPER version, with the paper's pyramid for COCO.
_base_ = ['../_base_/sniper_one_stage.py', '../_base_/pyramids/coco_paper.py']
