"""What claims ask for, and which claims pods mount."""

from __future__ import annotations

from metisfl.spec.fields import quantity_bytes
from metisfl_operator.resources.metadata import Manifest

_SCALES = ((1024, ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")), (1000, ("", "k", "M", "G", "T", "P", "E")))


def claim_spec(size: str, storage_class: str | None) -> Manifest:
    """Of a PersistentVolumeClaim that one pod at a time mounts."""
    found: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": canonical(size)}}}
    return found if storage_class is None else {**found, "storageClassName": storage_class}


def canonical(size: str) -> str:
    """A quantity of bytes as the API server writes it, so that it compares equal to what is read back."""
    number = quantity_bytes(size)
    for base, units in _SCALES:
        power = 0
        while number and number % base == 0 and power + 1 < len(units):
            number, power = number // base, power + 1
        if power:
            return f"{number}{units[power]}"
    return str(number)


def settled(claim: Manifest, current: Manifest) -> Manifest:
    """The claim as it can still be applied to the one that is there: a volume never shrinks nor changes its class."""
    found = current["spec"]
    sizes = [spec["resources"]["requests"]["storage"] for spec in (found, claim["spec"])]
    request = {"storage": max(sizes, key=quantity_bytes)}
    kept = claim_spec(request["storage"], found.get("storageClassName"))
    return {**claim, "spec": {**kept, "resources": {"requests": request}}}


def mounted_claims(workload: Manifest) -> set[str]:
    """Names of the claims that the pods of a StatefulSet mount, by its templates and by name; no pods mount none."""
    spec = workload.get("spec", {})
    replicas = spec.get("replicas", 0)
    if not replicas:
        return set()
    volumes = spec["template"]["spec"].get("volumes", ())
    named = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    templates = [template["metadata"]["name"] for template in spec.get("volumeClaimTemplates", ())]
    return named | {
        claim_of(template, workload["metadata"]["name"], ordinal)
        for template in templates
        for ordinal in range(replicas)
    }


def claim_of(template: str, workload: str, ordinal: int) -> str:
    """The name under which a StatefulSet looks for the claim of one of its pods."""
    return f"{template}-{workload}-{ordinal}"
