"""Federations in a cluster, as the command line sees and changes them, with the user's own kubeconfig and rights."""
