"""From uploaded models to the next global model: staging, fold, finish."""
