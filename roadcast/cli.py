"""The root of the command line: names and one-line helps only; each command lives in `roadcast.commands`."""

from __future__ import annotations

import sys

import typer

from roadcast import exits
from roadcast.lazy import Entry, LazyGroup


class Root(LazyGroup):
    """The commands of ``roadcast``, in the order of a day's work."""

    entries = {  # noqa: RUF012  # a class attribute by design
        name: Entry(f"roadcast.commands.{name}", text, group)
        for name, text, group in [
            ("demo", "Run a whole fleet on this machine, and show that the loop learns.", False),
            ("server", "Run the server: rounds, distillation, releases.", True),
            ("client", "Run one device: answer frames, learn, report.", True),
            ("broker", "Run a private MQTT broker.", True),
            ("ca", "Certify devices, the server and the broker, and take it back.", True),
            ("devices", "Look at the board that this runs on, and at those of a fleet.", True),
            ("doctor", "Check that this board is ready to serve.", False),
            ("flash", "Put devices into trees and images, onto cards, or onto boards over SSH.", True),
            ("export", "Turn a student into the files of a release, and check them.", True),
            ("bench", "Measure latency on this machine, compare results, draw them.", True),
            ("keys", "Make, rotate and look at the keys that sign for a fleet.", True),
            ("release", "Look into releases and publish them.", True),
            ("round", "Look into rounds, and replay one bit for bit.", True),
            ("rollout", "Bring a release to the fleet in waves, and take it back.", True),
            ("data", "List data packs, and make them from folders and tables.", True),
            ("version", "Say which versions of Roadcast and its parts are here.", False),
        ]
    }


app = typer.Typer(
    name="roadcast",
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Edge federated deployment toolkit for roadside cameras and sensors."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(exits.run(lambda: app(prog_name="roadcast")))
