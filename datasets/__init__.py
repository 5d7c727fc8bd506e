"""Photos to aged pairs: shards, the pool of decoded photos, the order of samples."""

from .codecs import FORMATS, Format, StoredFormat, decode_photo, encode_photo
from .encoding import ShardOptions
from .index import ShardIndex
from .inputs import PhotoInput, find_inputs
from .join import Joined, index_folder
from .order import Order
from .pairs import AgedPairs, Batch
from .photos import find_photos, read_photo
from .pool import PhotoPool
from .ranks import find_rank
from .shards import ShardingResult, write_shards, write_splits
from .sources import open_index
from .verify import Fault, Verification, verify_shards

__all__ = [
    "FORMATS",
    "AgedPairs",
    "Batch",
    "Fault",
    "Format",
    "Joined",
    "Order",
    "PhotoInput",
    "PhotoPool",
    "ShardIndex",
    "ShardOptions",
    "ShardingResult",
    "StoredFormat",
    "Verification",
    "decode_photo",
    "encode_photo",
    "find_inputs",
    "find_photos",
    "find_rank",
    "index_folder",
    "open_index",
    "read_photo",
    "verify_shards",
    "write_shards",
    "write_splits",
]
