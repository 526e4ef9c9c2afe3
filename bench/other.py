"""What has a table of its own, measured by its own script: here the few of its figures that have a target."""

from collections.abc import Iterator
from typing import Any

import torch

from . import embedding, linear_embedding, many_draws

AT_ONCE = ("straight_through", "gst", "reinmax", "mix")
#: Categories of the two runs of linear_embedding that are compared, and what else they have: features, rows.
PRODUCTS, PRODUCT_SHAPE = (32_768, 131_072), (64, 1024)


def measure(full: bool) -> Iterator[dict[str, Any]]:
    """A record for each: what of, of which shape or estimator, who, seconds and bytes where they were measured."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    shape = embedding.SHAPES[0]
    for who, seconds in embedding.seconds(*shape).items():
        extra = embedding.extra_bytes(embedding.FORMULATIONS[who], *shape)
        yield {"what": "embedding", "of": "x".join(map(str, shape)), "who": who, "seconds": seconds, "bytes": extra}
    for estimator in AT_ONCE:
        for who, milliseconds in many_draws.medians(estimator).items():
            yield {"what": "many draws", "of": estimator, "who": who, "seconds": milliseconds / 1e3}
    for columns in PRODUCTS if full else ():
        peak, floor = (linear_embedding.peak(who, columns, *PRODUCT_SHAPE) for who in ("linear_embedding", "nothing"))
        yield {"what": "linear_embedding", "of": str(columns), "who": "ours", "bytes": int((peak - floor) * 2**20)}
    torch.set_num_threads(before)
