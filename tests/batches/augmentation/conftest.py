"""These tests cover augmentation: intensities, warps, elastic deformation, and nnU-Net's distributions."""
