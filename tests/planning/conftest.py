"""These tests cover planning: recipes, patches, memory, and the plans of nnU-Net."""
