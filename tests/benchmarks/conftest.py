"""These tests cover the benchmarks: their records, tables, pages and refusals, with tiny inputs."""
