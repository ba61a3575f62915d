# DOTA as it is published, whole images, for configs of MMRotate: what their data sets are given
# (docs/howto/rotated_boxes.md).
dota_train = dict(
    data_root='data/DOTA/', ann_file='train/annfiles/', data_prefix=dict(img_path='train/images/')
)
dota_val = dict(
    data_root='data/DOTA/', ann_file='val/annfiles/', data_prefix=dict(img_path='val/images/')
)
