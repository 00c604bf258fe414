"""The controller: schedules rounds, dispatches tasks, aggregates models, keeps checkpoints."""
