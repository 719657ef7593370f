"""From one site file to a device that serves: what must lie where (pure), and how it gets there. Owns no network."""
