"""Benchmarks: what the operators and the networks take, on one machine, after their checks have passed.

- `python -m benchmarks.run` measures and writes a record.
- `python -m benchmarks.page` makes `docs/performance.md` of records.
- `python -m benchmarks.growth` measures growth with the number of tokens.
- `python -m benchmarks.fp16_run` trains in float16 and counts what is not finite.
- `benchmarks/sweeps/` has the sweeps by which kernels were set.
"""
