"""What everything stands on: checks, files, devices, config trees, pictures."""
