"""A real single-node Kubernetes from Debian packages, for machines without a container engine.

Standard library only: it runs before there is a virtual environment. `hack/README.md` tells how to use it.
"""
