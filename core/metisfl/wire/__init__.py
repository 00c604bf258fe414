"""How models travel: layout, chunks, checksums, limits, and the RPC method table."""
