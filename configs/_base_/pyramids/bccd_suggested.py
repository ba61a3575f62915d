# Proposed by suggest_pyramid.py from bccd/train.json:
# 205 images, 2,804 boxes with sizes (sqrt of area) of 35.5 to 235 px.
# 3.12 chips per image, 0.183 of the pixels of whole images at 800x1333, 0 orphans.
pyramid = dict(
    chip_size=224,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 77)),
        dict(resize=dict(factor=0.47), valid_range=(52, None)),
    ],
)
