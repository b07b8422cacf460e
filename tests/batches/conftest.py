"""These tests cover batches: sampling, cases in memory and on disk, transfer to a device, shards."""
