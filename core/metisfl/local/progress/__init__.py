"""What a user sees while a federation runs."""
