"""When a federation ends: one file per criterion, all of them pure; `termination` gathers them."""
