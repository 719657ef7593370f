"""The command line, and the fleet-in-a-box behind `roadcast demo`."""
