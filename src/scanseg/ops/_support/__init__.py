"""Dispatch, contracts and launching shared by all operators."""
