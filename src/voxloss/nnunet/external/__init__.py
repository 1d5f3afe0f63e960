"""What nnU-Net searches. It imports every module here by its bare name, so there is nothing else in this folder."""
