"""The folder that nnU-Net searches. It imports every module here by its bare name, so it must hold nothing else."""
