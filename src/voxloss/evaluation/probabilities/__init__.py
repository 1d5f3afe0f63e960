"""What predicted probabilities say beyond the largest: other thresholds, calibration, lesions by threshold."""
