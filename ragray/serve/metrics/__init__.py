"""What is counted and timed of a service, and where it is shown."""
