# For VisDrone (960x540 to 2000x1500 px; most objects of 10 to 50 px, few above 300). Chosen by
# reasoning, not yet trained. Objects of 10 px are shown at 20 px, which a stride of 4 still tells
# from their neighbours; larger ones at 32 to 112 px, and at 40 px and more. A coarse level with the
# whole image in one chip, as for COCO, would show most objects at a few pixels.
# Factors, the same in training and testing: images are of many sizes.
pyramid = dict(
    chip_size=512,
    levels=[
        dict(resize=dict(factor=2.0), valid_range=(0, 48)),
        dict(resize=dict(factor=1.0), valid_range=(32, 112)),
        dict(resize=dict(factor=0.5), valid_range=(80, None)),
    ],
)
