"""Learners on real data that ships inside packages."""
