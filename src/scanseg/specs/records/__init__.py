"""Records of work: fingerprint, store, run, predictions, reports, comparisons."""
