"""The round state machine and its policies; pure code, time is passed in."""
