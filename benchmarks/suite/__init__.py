"""All benchmarks of docs/benchmarks.md, one after the other: `python -m benchmarks.suite`."""
