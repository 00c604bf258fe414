"""Copies of model versions go to an object store, in the background: spec.output."""
