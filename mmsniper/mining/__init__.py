"""How negative chips are found: an RPN over the images, rank by rank, part by part."""

from mmsniper.mining.miner import NegativeChipMiner

__all__ = ['NegativeChipMiner']
