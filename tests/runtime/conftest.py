"""These tests cover the machine: devices, worker processes, spawning, CUDA graphs."""
