"""These tests cover layers against their definitions in PyTorch."""
