"""``python -m devices.doctor.provider_trial NAME``: runs the tiny model on one execution provider. Owns no comparison.

A process of its own: a provider without kernels for this GPU may not only fail, it may end the process.
"""

from __future__ import annotations

import json
import sys

from devices.doctor.tiny_model import tiny_input, tiny_model

_QUIET = 4


def main(provider: str) -> None:
    """Print as JSON which provider ran it, and what it answered."""
    import onnxruntime  # noqa: PLC0415  # the doctor itself must not load it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    session = onnxruntime.InferenceSession(tiny_model(), options, providers=[provider])
    output = session.run(["output"], {"input": tiny_input()})[0]
    json.dump({"ran_on": session.get_providers()[0], "output": output.ravel().tolist()}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
