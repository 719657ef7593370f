"""The fleet in a box behind `roadcast demo`: real processes, real data, one machine. Imports little."""
