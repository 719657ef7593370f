"""What board this is and how it is doing, read from its files and tools. Owns no judgement (`devices.doctor`).

Every probe takes a `Machine`: a root folder and a way to run commands, so that a recorded board answers like a real
one. What cannot be read is None, never an invented zero. Nothing here needs root, jtop or a CUDA context.
"""

from devices.boards.machine import Machine
from devices.boards.probe import BoardFacts, probe
from devices.boards.profiles import Board, board_of, boards, jetpack_of
from devices.boards.recording import Recording, plant, record, recorded

__all__ = [
    "Board",
    "BoardFacts",
    "Machine",
    "Recording",
    "board_of",
    "boards",
    "jetpack_of",
    "plant",
    "probe",
    "record",
    "recorded",
]
