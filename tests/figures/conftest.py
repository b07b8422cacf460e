"""These tests cover figures that are drawn from records."""
