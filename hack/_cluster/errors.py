"""What can go wrong, with the exit code that each kind of failure gets."""


class ClusterError(Exception):
    """Something failed; the message says what, and where to look."""

    exit_code = 1


class NotPossibleHereError(ClusterError):
    """This machine cannot run the cluster at all, so that tests may skip with the message instead of failing."""

    exit_code = 3
