"""Photos to aged pairs: shards, the pool of decoded photos, the order of samples."""

from .codecs import FORMATS, Format, decode_photo, encode_photo
from .index import ShardIndex
from .order import Order
from .pairs import AgedPairs, Batch
from .photos import find_photos, read_photo
from .pool import PhotoPool
from .ranks import find_rank
from .shards import ShardingResult, write_shards
from .sources import open_index

__all__ = [
    "FORMATS",
    "AgedPairs",
    "Batch",
    "Format",
    "Order",
    "PhotoPool",
    "ShardIndex",
    "ShardingResult",
    "decode_photo",
    "encode_photo",
    "find_photos",
    "find_rank",
    "open_index",
    "read_photo",
    "write_shards",
]
