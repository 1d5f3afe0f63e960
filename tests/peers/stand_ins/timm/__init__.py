"""Stands in for timm, which requires torchvision: nnU-Net imports all of its trainers when it looks for one, and some
have networks made of these parts. None of them is used here, and whoever tries is told."""
