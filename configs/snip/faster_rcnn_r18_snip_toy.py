# SNIP on the toy scenes, from scratch, on a CPU: SNIPER's levels and ranges on whole images.
_base_ = '../sniper/faster_rcnn_r18_sniper_toy.py'
# Of the best proposals of a whole image few have the sizes of its level.
sniper = dict(whole_images=True, batch_size=1, range_first=True)
