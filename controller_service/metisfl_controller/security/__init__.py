"""Who may say what: certificates, enrolment, the check of every call, and the trail that all of it leaves."""
