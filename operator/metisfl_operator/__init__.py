"""The operator: watches Federation objects and makes the cluster match them."""
