"""Pure builders: from a Federation to the objects Kubernetes should hold for it."""
