# Toy scenes: small shapes at full resolution, medium ones at two fifths, large ones at a fifth.
pyramid = dict(
    chip_size=160,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 48)),
        dict(resize=dict(factor=0.4), valid_range=(32, 128)),
        dict(resize=dict(factor=0.2), valid_range=(96, None)),
    ],
)
