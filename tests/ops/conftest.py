"""These tests cover operators: every backend against float64, dispatch, kernels compiled for GPUs."""
