"""Connects the pure state machine to the world, all on one event loop."""
