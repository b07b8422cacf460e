"""These tests cover raw data sets: layout, description, check, fingerprint, splits."""
