"""What survives a restart: committed models and the history, in one directory."""
