"""Archives of federations: one tar file with what a controller goes on from, verified before anything is made of it.

Any tar program lists and unpacks one. This package reads them by rules of its own, which are narrower: the first member
is the manifest, the others follow as it lists them, and their names are from a short list, so that none leads anywhere.
"""

from metisfl.archive.manifest import ArchiveError, Manifest, Member, Plan
from metisfl.archive.reading import unpack, verify
from metisfl.archive.writing import archive_bytes, write

__all__ = ["ArchiveError", "Manifest", "Member", "Plan", "archive_bytes", "unpack", "verify", "write"]
