"""Records: fingerprints, stores, trainings, predictions, reports and comparisons."""
