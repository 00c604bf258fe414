"""The controller's two faces: gRPC for learners, REST for people and dashboards."""
