"""Utilities of all parts: errors, files that appear whole, this machine, texts."""
