"""The learner: trains next to the data and dials out to the controller."""
