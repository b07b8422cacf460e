"""Dispatch, argument checks and kernel launching, shared by all operators."""
