# The paper's pyramid for COCO. Training: factors 3 and 1.667 and a long side of 512. Testing: the
# resolutions of the authors' release. Ranges are of sqrt(box area) in original pixels, [lo, hi).
pyramid = dict(
    chip_size=512,
    levels=[
        dict(
            resize=dict(factor=3.0),
            valid_range=(0, 80),
            test_resize=dict(short_side=1400, long_side=2000),
            test_range=(0, 90),
        ),
        dict(
            resize=dict(factor=1.667),
            valid_range=(32, 150),
            test_resize=dict(short_side=800, long_side=1280),
            test_range=(32, 180),
        ),
        dict(
            resize=dict(long_side=512),
            valid_range=(120, None),
            test_resize=dict(short_side=480, long_side=512),
            test_range=(75, None),
        ),
    ],
)
