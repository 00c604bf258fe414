"""What training comes to under some condition: real runs of `metisfl run`, with tables and plots for docs/."""
