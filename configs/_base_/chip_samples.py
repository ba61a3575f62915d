# A small chip has fewer objects than a whole image: fewer samples and proposals than MMDetection's
# 512 and 1000. RoIAlign is what takes the time on a CPU. `model = dict(**_base_.chip_samples)`.
chip_samples = dict(
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
