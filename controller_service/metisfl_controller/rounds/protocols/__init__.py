"""When a round closes, and who has a part in it: one file per protocol."""
