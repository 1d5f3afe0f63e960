"""Clip, resample and normalise cases into a cache of memory-mapped arrays."""
