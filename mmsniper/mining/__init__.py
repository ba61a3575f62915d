"""How negative chips are found: an RPN over the images, rank by rank, part by part."""

from mmsniper.mining.miner import NegativeChipMiner, share_buffers
from mmsniper.mining.parts import stored_pool
from mmsniper.mining.planning import PLACED

__all__ = ['PLACED', 'NegativeChipMiner', 'share_buffers', 'stored_pool']
