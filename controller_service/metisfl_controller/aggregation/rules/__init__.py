"""Aggregation rules, one a file: how the updates of a round become the next global model."""
