"""One module per command; each holds a `typer.Typer` named ``app`` and imports heavy things only inside functions."""
