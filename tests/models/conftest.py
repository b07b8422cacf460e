"""These tests cover model folders: files, checkpoints, full disks, published checkpoints."""
