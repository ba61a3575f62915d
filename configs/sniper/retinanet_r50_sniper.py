# SNIPER with RetinaNet R-50 FPN on COCO, by the stock schedule.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../mixins/sniper_one_stage.py']
