"""The controller beside Flower and NVIDIA FLARE, at the same work on the same machine.

`python -m benchmarks.compare` installs the other two into environments of their own, measures all three, and writes
benchmarks/results/compare-aggregate.json and compare-round.json. Modules of `systems` that measure another system run
in its environment, so they and what they import (`work`, `arrays`) need NumPy and that system only.
"""
