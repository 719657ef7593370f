"""``python -m devices.doctor.provider_trial NAME``: runs the tiny model on one execution provider. Owns no comparison.

A process of its own: a provider without kernels for this GPU may not only fail, it may end the process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from devices.doctor.tiny_model import tiny_input, tiny_model

_QUIET = 4


def main(provider: str) -> None:
    """Print as JSON which provider ran most of its nodes, and what it answered."""
    import onnxruntime  # noqa: PLC0415  # the doctor itself must not load it

    from devices.runners.ort_proof import providers_that_ran  # noqa: PLC0415 - likewise

    def opened(record: Path | None = None) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        if record is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(record)
        return onnxruntime.InferenceSession(tiny_model(), options, providers=[provider])

    shares = providers_that_ran(opened, {"input": tiny_input()})
    output = opened().run(["output"], {"input": tiny_input()})[0]
    json.dump({"ran_on": max(shares, key=lambda name: shares[name]), "output": output.ravel().tolist()}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
