"""Whether a library is there to its end.

The loader maps one that was cut off (a copy in progress, a full disk) without a word, and the process dies of SIGBUS
where it touches what is missing. Its own tables say how long it is; the last of them is the table of sections.
"""

import struct
from pathlib import Path

_HEADER = struct.Struct("16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("IIQQQQQQ")


def missing(path: Path) -> str | None:
    """What a 64-bit ELF file lacks, in words; None of a whole one, and of anything that the loader refuses itself."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:5] != b"\x7fELF\x02":
            return None
        order = "<" if header[5] == 1 else ">"
        _, _, _, _, _, segments, sections, _, _, *counts = struct.unpack(order + _HEADER.format, header)
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
