"""These tests cover the exchange with other programs."""
