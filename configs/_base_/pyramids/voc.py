# For PASCAL VOC (500x375 px; objects of 20 to 400 px). Chosen by reasoning, not yet trained. The
# middle level has the scale of MMDetection's VOC configs, 1000x600; the fine one shows objects of
# 20 px at 50 px and none above 180 px; the coarse one shows the whole image in one chip, where
# objects of 112 px and more have about the size that COCO's large objects have there.
pyramid = dict(
    chip_size=512,
    levels=[
        dict(resize=dict(factor=2.5), valid_range=(0, 72)),
        dict(resize=dict(factor=1.6), valid_range=(48, 144)),
        dict(resize=dict(long_side=512), valid_range=(112, None)),
    ],
)
