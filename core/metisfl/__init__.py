"""What the controller, the learners and the operator share: the Federation object, the wire, the command line."""

__version__ = "0.1.0"
