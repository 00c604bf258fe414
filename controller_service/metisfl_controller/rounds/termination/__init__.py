"""When a federation ends: one file per criterion."""
