"""Learners with the training loop already written, one module a framework; each imports its framework itself."""
