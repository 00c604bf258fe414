"""One level-based pass: observe, compute what should be, apply the difference, report."""
