"""Server optimisers: what the mean of the updates does to the global model."""
