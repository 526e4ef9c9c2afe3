"""What the loader does not say of a library.

It maps one that was cut off (a copy in progress, a full disk) without a word, and the process dies of SIGBUS where it
touches what is missing. Its own tables say how long it is; the last of them is the table of sections. Of one for
another processor it says that there is no such file.
"""

import platform
import struct
from pathlib import Path

_HEADER = struct.Struct("16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("IIQQQQQQ")
#: Numbers of processors in a header, by Python's names.
_MACHINES = {"x86_64": 62, "aarch64": 183}


def obstacle(path: Path) -> str | None:
    """Why a 64-bit ELF file must not be loaded; None of a whole one, and of anything that the loader refuses itself."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:5] != b"\x7fELF\x02":
            return None
        order = "<" if header[5] == 1 else ">"
        _, _, machine, _, _, segments, sections, _, _, *counts = struct.unpack(order + _HEADER.format, header)
        here = _MACHINES.get(platform.machine(), machine)
        if machine != here:
            return f"it is for another processor: machine {machine} of ELF, this one is {here}"
        segment_size, segment_count, section_size, section_count = counts[:4]
        file.seek(segments)
        table = file.read(segment_size * segment_count)
        last_section = sections + section_size * section_count
        ends = [segments + segment_size * segment_count, last_section]
        for start in range(0, len(table) - _SEGMENT.size + 1, segment_size or _SEGMENT.size):
            _, _, offset, _, _, in_file, _, _ = struct.unpack_from(order + _SEGMENT.format, table, start)
            ends.append(offset + in_file)
        if size < max(ends):
            return f"the file is cut off: it has {size} bytes of {max(ends)}"
        file.seek(max(last_section - section_size, 0))
        if section_count and not any(file.read(section_size)):  # its size was set before it was written
            return "the file is not written to its end: its last section has no header"
    return None
