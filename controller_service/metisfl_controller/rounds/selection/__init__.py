"""Who takes part in a round: one file per policy, all of them pure."""
