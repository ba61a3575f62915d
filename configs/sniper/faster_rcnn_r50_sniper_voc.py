# SNIPER with Faster R-CNN R-50 FPN on PASCAL VOC 07+12, by the stock schedule and with the pyramid
# of the authors' release. Boxes under 32 px, which the stock config ignores, are objects here.
_base_ = [
    'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
    '../_base_/sniper.py',
    '../_base_/pyramids/resolution.py',
]
