"""From a PyTorch student to the files a device runs: template, weights payload, parity gate."""
