"""A stand-in: the process's behaviour without training."""
