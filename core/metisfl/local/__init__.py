"""One federation as processes on this machine."""
