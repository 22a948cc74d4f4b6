"""A part of the FAISS files of an index, for a process that opens only these."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from raysys.errors import InputError


@dataclass(frozen=True)
class Partition:
    """Every `count`-th file of an index from file `number` on, and the items that belong in these files."""

    number: int = 0
    count: int = 1

    def files(self, uri: str, num_files: int) -> range:
        """The numbers of the files. Raises: InputError for an index with fewer files than partitions."""
        if num_files < self.count:
            raise InputError(
                f"{uri}: {self.count} search partitions need as many FAISS files, found {num_files}; "
                f"set index.shards={self.count} and run `raysys index`, or set serve.search_partitions lower"
            )
        return range(self.number, num_files, self.count)

    def has(self, item_id: str, num_files: int) -> bool:
        """Whether an item belongs in these files of an index of `num_files`."""
        return self.count == 1 or file_of(item_id, num_files) % self.count == self.number


COMPLETE = Partition()


def file_of(item_id: str, num_files: int) -> int:
    """The FAISS file of an item, by the CRC-32 of its id."""
    return zlib.crc32(item_id.encode("utf-8", "surrogatepass")) % num_files
