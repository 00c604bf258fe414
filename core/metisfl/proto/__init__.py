"""Protocol buffers of package metisfl.v1."""
