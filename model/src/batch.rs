//! The record batch, version 2: the unit on the wire and on the disk, the same bytes in both.
//!
//! Layout in `docs/format.md`. What lies outside the CRC (base offset, length, leader epoch, magic) is stamped in place
//! where a log's order is final, see [`stamp`]; everything else travels verbatim from producer to consumer.
//!
//! Reading order: [`header`], [`records`], [`compression`], [`validate`], [`builder`], [`rewrite`].

pub mod builder;
pub mod compression;
pub mod header;
pub mod records;
pub mod rewrite;
pub mod validate;
pub mod varint;

pub use builder::{BatchBuilder, RecordParts};
pub use compression::{Codec, CompressionError};
pub use header::{
    Attributes, BatchError, BatchView, Batches, HEADER_BYTES, Header, LOG_OVERHEAD_BYTES, TimestampType,
    batches, stamp, stamp_create_time, stamp_log_append_time, stamp_max_timestamp,
};
pub use records::{Record, RecordHeader, RecordStream, RecordsError};
pub use rewrite::{PlainRecords, RawRecord};
