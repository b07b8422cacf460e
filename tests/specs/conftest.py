"""These tests cover documents: plans, descriptions of data sets, their checks and messages."""
