"""docs/benchmarks.md, its tables and plots, from the files of results: `python -m benchmarks.report`."""
