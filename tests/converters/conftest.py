"""These tests cover the converters of named data sets, on small sources in their published layouts."""
