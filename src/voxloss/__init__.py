"""voxloss: losses for segmenting rare structures in medical volumes."""

__version__ = "0.1.0"
