"""These tests cover images: reading, writing and resampling, with their geometry."""
