"""How the board is doing, second by second: samples with units, health, Prometheus text. Owns no sending."""
