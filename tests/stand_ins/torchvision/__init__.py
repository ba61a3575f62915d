"""All of torchvision that our tests need: MMRotate imports ``transforms``, mmengine logs a version.

Where torch is one for CPUs only, pip finds no torchvision that goes with it.
"""

__version__ = 'a stand-in'
transforms = None
