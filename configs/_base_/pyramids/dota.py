# DOTA: vehicles and ships of 10 to 40 px at half as large again, what is larger at 3/4 and 1/4. By
# the sizes that are known of DOTA, not by training on it. For your own data: suggest_pyramid.py.
pyramid = dict(
    chip_size=512,
    levels=[
        dict(resize=dict(factor=1.5), valid_range=(0, 64)),
        dict(resize=dict(factor=0.75), valid_range=(48, 256)),
        dict(resize=dict(factor=0.25), valid_range=(192, None)),
    ],
)
