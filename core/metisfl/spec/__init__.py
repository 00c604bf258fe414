"""The Federation object: parse, default, validate."""

from metisfl.spec.federation import API_GROUP, API_VERSION, KIND, PLURAL, Federation, FederationSpec
from metisfl.spec.groups import LearnerGroup
from metisfl.spec.loading import SpecError, load_federation, parse_federation

__all__ = [
    "API_GROUP",
    "API_VERSION",
    "KIND",
    "PLURAL",
    "Federation",
    "FederationSpec",
    "LearnerGroup",
    "SpecError",
    "load_federation",
    "parse_federation",
]
