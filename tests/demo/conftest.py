"""These tests cover the demo: its data set, its training and its picture."""
