"""The words that conditions and events give as their reason. They are part of the API: people write alerts on them."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The operator's reasons; those of the run itself are `metisfl.api.reasons.RunReason`."""

    # The spec, or the objects made from it.
    INVALID_SPEC = "InvalidSpec"
    """The spec breaks a rule that this API server does not judge itself."""
    NAME_CONFLICT = "NameConflict"
    """An object of a name that is needed belongs to somebody else."""
    WAITING_FOR_CLEANUP = "WaitingForCleanup"
    """Objects of a deleted federation of the same name are still going away."""
    APPLY_REJECTED = "ApplyRejected"
    """The API server refuses an object made from the spec: a volume or resource that is not valid, or a quota."""
    PLAN_UNREADABLE = "PlanUnreadable"
    """The stored partition plan was damaged; dividing the data anew could move it between sites."""
    NO_PARTITION_LEFT = "NoPartitionLeft"
    """A group wants more learners than there are shares of the data for it."""

    # Pods.
    STARTING = "Starting"
    """Pods are being made, images pulled, kernels compiled, connections opened."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes a pod, in the scheduler's words."""
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    """A volume, or a ConfigMap mounted as one, cannot be had."""
    PODS_REJECTED = "PodsRejected"
    """The API server lets no pods be made: a quota, a pod security level, an admission webhook."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """A node cannot get an image: its name, or the pull secret."""
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    """The node cannot start the container as it is described."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A container was killed at its memory limit."""
    CRASHED = "Crashed"
    """A container ended for another reason, told by its last words."""
    SETTINGS_INVALID = "SettingsInvalid"
    """A controller or learner does not take its settings: it is of another release than the operator."""
    STATE_UNUSABLE = "StateUnusable"
    """The controller cannot use its volume."""
    ENTRYPOINT_INVALID = "EntrypointInvalid"
    """spec.learner.entrypoint cannot be imported, or is no learner."""
    LEARNER_CODE_FAILED = "LearnerCodeFailed"
    """The learner's class raised, told by the end of its stack trace."""
    LEARNER_REFUSED = "LearnerRefused"
    """The controller refused a learner, for example because its model has another shape."""
    CONTROLLER_UNREACHABLE = "ControllerUnreachable"
    """A learner has not reached the controller for so long that it gave up."""
    LEARNER_LOST = "LearnerLost"
    """The controller has not heard of a learner for longer than its lease."""

    # The controller.
    SERVING = "Serving"
    """The controller answers at status.endpoint."""
    NO_ANSWER = "NoAnswer"
    """The controller's pod is ready and does not answer the operator."""
    EXPIRED = "Expired"
    """Removed ttlSecondsAfterFinished after the end."""

    # Security.
    MUTUAL_TLS = "MutualTls"
    """Learners and controller show each other certificates, and nobody else gets in."""
    TLS_DISABLED = "TlsDisabled"
    """Whoever reaches the controller may join, and everything travels in clear text."""
    CERTIFICATES_MISSING = "CertificatesMissing"
    """A Secret that somebody else makes, cert-manager or you, is not there."""
    CERTIFICATES_UNUSABLE = "CertificatesUnusable"
    """A Secret that certificates are made from is damaged, expired, or lacks a part."""

    # Learners.
    ALL_CONNECTED = "AllConnected"
    """As many learners as wanted are connected."""
    SCALED_DOWN = "ScaledDown"
    """No learner should run: suspended, or ended."""
    WAITING_FOR_SITES = "WaitingForSites"
    """No learner of an external group has joined yet."""

    # spec.output.
    DELIVERED = "Delivered"
    """All that was committed and is wanted lies at the destination."""
    DELIVERING = "Delivering"
    """Models are on their way to the destination."""
    NOTHING_TO_DELIVER = "NothingToDeliver"
    """The destination can be written to, and waits for a model."""
    DELIVERY_FAILED = "DeliveryFailed"
    """The destination takes nothing; it is tried again, and training goes on."""

    # The run.
    SUSPENDED = "Suspended"
    """spec.suspend is true."""
    NOT_SUSPENDED = "NotSuspended"
    """spec.suspend is false."""
    IN_PROGRESS = "InProgress"
    """The run has not ended."""
    NOT_FAILED = "NotFailed"
    """Nothing ended the run before its time."""
    COMPLETED = "Completed"
    """The run is over; the condition Complete has the controller's reason."""
    FAILED = "Failed"
    """The run has failed; the condition Failed has the controller's reason."""
    WAITING_FOR_CONTROLLER = "WaitingForController"
    """The controller is on its way."""


# Exit codes that controller and learner document, as reasons; the learner's and the controller's differ.
LEARNER_EXITS = {
    2: Reason.SETTINGS_INVALID,
    3: Reason.ENTRYPOINT_INVALID,
    4: Reason.LEARNER_CODE_FAILED,
    5: Reason.LEARNER_REFUSED,
    6: Reason.CONTROLLER_UNREACHABLE,
}
CONTROLLER_EXITS = {2: Reason.SETTINGS_INVALID, 3: Reason.STATE_UNUSABLE}
