"""One differentiable pass over the voxels: logits and labels to the sums that every loss is a function of."""
