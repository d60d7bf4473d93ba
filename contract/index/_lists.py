"""What the backends with inverted lists share: how many there are, how they are filled, and which
of them are read."""

import math
from typing import Any

from contract.arrays import F32, I64
from contract.errors import RecipeError
from contract.index._clusters import alike, squares
from contract.index._faiss import faiss

MAX_LISTS = 65_536
# Fewer, and a list is more noise than cluster.
ROWS_PER_LIST = 32

# How much shorter than the average the lists that are read may be. Where lengths of vectors differ,
# four found 82 % where one found 52 %, with lengths spread by a factor of 1.5; eight found no more.
# Where they do not, a half more find as much as four (of a million rows, .9989 and .9990; one list
# .9864), and to rank four times as many centres takes as long again.
SHORTEST_LISTS, SHORTEST_LEVEL_LISTS = 4.0, 1.5

# Measured at D = 64, 300,000 rows, 2,191 lists, one thread: a search of 4, 16 or 64 probes, widened
# for a filter, takes as long as a scan where 2, 4 or 6 % are allowed: it passes over the others.
LISTED_ROWS_PER_ROW = 10


def list_count(wanted: int, items: int) -> int:
    """How many lists: as many as `wanted`, or for 0 what suits the number of items."""
    if wanted > items:
        raise RecipeError(f"lists is {wanted}, expected at most one an item, {items}; 0 chooses")
    by_size = min(round(4 * items**0.5), items // ROWS_PER_LIST, MAX_LISTS)
    return wanted or max(1, by_size)


def quantizer(centres: F32) -> Any:
    flat = faiss.IndexFlatIP(centres.shape[1])
    flat.add(centres)
    return flat


def fill(index: Any, vectors: F32, lists: I64) -> None:
    """Add each row to its list; the centres and the codes, if there are any, are trained."""
    index.is_trained = True
    index.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))


class Probing:
    """One operating point of an inverted file. The rows read are bounded, not only the lists: where
    lengths differ, lists of long vectors are the first to be read, and short.
    """

    def __init__(self, index: Any, probes: int) -> None:
        self._lists: int = index.nlist
        self._total: int = index.ntotal
        self._rows_per_list: float = self._total / self._lists
        self._probed: float = probes * self._rows_per_list
        # Without the coordinate that makes all vectors equally long, the centres tell.
        centres = index.quantizer.reconstruct_n(0, self._lists)
        self._shortest = SHORTEST_LEVEL_LISTS if alike(squares(centres)) else SHORTEST_LISTS

    def params(self, k: int, widen: float) -> Any:
        rows = self._rows(k)
        # Where hardly more rows are read than are wanted, short lists would leave an answer short,
        # and all rows would be scanned: 1.7 ms for 800 of a million, where more lists take .3.
        shortest = self._shortest if 2 * k < self._probed else SHORTEST_LISTS
        lists = shortest * widen * rows / self._rows_per_list
        # FAISS counts only the rows that a filter allows, so these are as many as without one.
        return faiss.SearchParametersIVF(
            nprobe=min(math.ceil(lists), self._lists), max_codes=math.ceil(rows)
        )

    def effort(self, k: int) -> int:
        """What `scan_or_walk` wants to know of a search for k candidates."""
        return round((self._lists + self._rows(k)) / LISTED_ROWS_PER_ROW)

    def _rows(self, k: int) -> float:
        return min(max(self._probed, k), self._total)
