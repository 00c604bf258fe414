"""One module a system. Run as a process in that system's environment, each prints one JSON object on its last line."""
