"""Weights of the published implementations: name maps and verification."""
