"""The losses in nnU-Net v2: a trainer for each, which differs from nnU-Net's own only in the loss."""
