"""These tests cover preprocessing: cases, their geometry, and stores."""
