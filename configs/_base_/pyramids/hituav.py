# Proposed by suggest_pyramid.py from HIT-UAV (every second image):
# 1,099 images, 8,886 boxes with sizes (sqrt of area) of 10.3 to 121 px.
# 4.38 chips per image, 0.140 of the pixels of whole images at 800x1333, 1 orphans.
pyramid = dict(
    chip_size=160,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 53)),
        dict(resize=dict(factor=0.66), valid_range=(31, None)),
    ],
)
