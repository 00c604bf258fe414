"""`python -m metisfl` is the `metisfl` command."""

from metisfl.cli.main import main

main(prog_name="metisfl")
