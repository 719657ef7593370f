"""What a fleet learns, on real data: each module simulates devices and server in one process, on the code that runs."""
