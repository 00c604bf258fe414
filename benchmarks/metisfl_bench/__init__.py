"""`metisfl bench`: what the controller's engine reaches on this machine, as ratios measured in one run."""
