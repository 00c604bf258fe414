"""The metisfl command."""
