"""Weights of the published code: name maps and verification."""
