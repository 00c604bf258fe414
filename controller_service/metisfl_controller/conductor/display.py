"""Where a federation stands, in the gauges that Prometheus scrapes."""

from __future__ import annotations

from metisfl_controller.conductor.attendance import Attendance
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.rounds.machine import Machine


def show(metrics: ControllerMetrics, machine: Machine, attendance: Attendance, *, ended: bool) -> None:
    """At this moment; nobody is desired any more when the federation has `ended`."""
    registry, newest = attendance.registry, machine.version or 0
    metrics.round.set(machine.round.number if machine.round else newest)
    metrics.model_version.set(newest)
    metrics.learners("desired", 0 if ended else registry.desired)
    metrics.learners("connected", attendance.connected(evaluators=False))
    metrics.learners("ready", len(machine.ready))
    metrics.learners("participating", machine.round.participants if machine.round else 0)
    metrics.evaluators("desired", 0 if ended else registry.desired_evaluators)
    metrics.evaluators("connected", attendance.connected(evaluators=True))
    metrics.evaluators("working", sum(each.task is not None for each in machine.evaluators.present.values()))
