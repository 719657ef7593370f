"""A small certificate authority for a fleet: files, a ledger, and an enrolment service over HTTPS."""
