"""Who is at the keyboard, for the audit log; owns no rights."""

from __future__ import annotations

import os
import pwd


def operator() -> str:
    """The user that this process runs as, as the system knows him: by name, or ``uid 54321`` when he has none.

    Not what ``LOGNAME`` and its like say, which anybody may set.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
