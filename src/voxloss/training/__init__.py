"""Train one network of a study: batches, augmentation, network, optimisation, history."""
