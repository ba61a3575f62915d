# SNIPER with Cascade R-CNN R-50 FPN on COCO, by the stock schedule.
_base_ = ['mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', '../mixins/sniper_two_stage.py']
