# The pyramid of the authors' release for all data but COCO, such as PASCAL VOC: training and
# testing resize to the same resolutions. (On COCO it trains at factors: coco_paper.py.)
#
# For images with a longer side of 400 to 1000 px. The valid ranges are in pixels of the image, so
# they suit one size of images only: the middle level shows an object of 32 px at 53 px in an image
# of 640x480, at 21 px in one of 1920x1080 (too small), and the fine level shows one of 80 px at
# 467 px in one of 320x240 (too large for what a chip of 512 can show around it). For images of
# other sizes, or of very different ones, take what tools/analysis_tools/suggest_pyramid.py writes:
# its levels are factors, so that a size in the image is always the same size for the network.
pyramid = dict(
    chip_size=512,
    levels=[
        dict(resize=dict(short_side=1400, long_side=2000), valid_range=(0, 80), test_range=(0, 90)),
        dict(
            resize=dict(short_side=800, long_side=1280), valid_range=(32, 150), test_range=(32, 180)
        ),
        dict(
            resize=dict(long_side=512),
            valid_range=(120, None),
            # Differs where an image is nearly square, by 7% at most.
            test_resize=dict(short_side=480, long_side=512),
            test_range=(75, None),
        ),
    ],
)
