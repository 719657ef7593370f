"""Options of every command that goes over SSH; owns no command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KnownHosts = Annotated[Path, typer.Option(help="Host keys, for targets without a fingerprint in the site.")]
Identity = Annotated[Path | None, typer.Option(help="Private key; without it the agent's and the usual ones.")]
PasswordFile = Annotated[Path | None, typer.Option(help="File with the password; or set ROADCAST_SSH_PASSWORD.")]
AskPassword = Annotated[bool, typer.Option("--ask-password", help="Ask for the password.")]
KNOWN_HOSTS = Path("~/.ssh/known_hosts")
