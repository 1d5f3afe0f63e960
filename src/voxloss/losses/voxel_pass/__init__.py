"""One differentiable pass over the voxels, from logits and labels to the sums that every loss is a function of."""
