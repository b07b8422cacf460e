"""Benchmarks: time and memory of operators and networks.

Each program checks its entries on the machine before it measures them.

- `python -m benchmarks.run` measures and writes a record.
- `python -m benchmarks.page` makes `docs/performance.md` from records.
- `python -m benchmarks.growth` measures growth with the number of tokens.
- `python -m benchmarks.fp16_run` trains in float16 and counts values that are not finite.
- `benchmarks/sweeps/` has the sweeps that chose the constants of the kernels.
"""
