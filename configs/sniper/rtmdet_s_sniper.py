# SNIPER with RTMDet-s on COCO, by the stock schedule.
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../mixins/sniper_one_stage.py']
