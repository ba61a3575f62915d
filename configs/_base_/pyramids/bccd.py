# Blood cells: platelets at full resolution, red cells at half, white cells at three tenths.
pyramid = dict(
    chip_size=192,
    levels=[
        dict(resize=dict(factor=1.0), valid_range=(0, 72)),
        dict(resize=dict(factor=0.5), valid_range=(48, 176)),
        dict(resize=dict(factor=0.3), valid_range=(128, None)),
    ],
)
