"""Tasks, students, heads, losses and local training; the only home of nn.Module."""
