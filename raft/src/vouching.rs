//! Whether a replica may go on as the one it was, once its log is open.

use ouzel_storage::Log;
use ouzel_storage::wal::{BootId, GroupState, Rejoin, rejoin_of};

use crate::planted::{self, Planted};

/// Whether a replica has all that it ever acknowledged, as far as its write-ahead file (`known`) and its opened log can
/// tell in this `boot` of the kernel. One that may not have it must neither vote nor count under its name, unless whoever
/// knows of the others says so.
pub fn vouches(known: Option<&GroupState>, boot: BootId, log: &Log) -> bool {
    let rejoin = rejoin_of(known, boot, log.offsets().log_end, log.last_entry());
    rejoin == Rejoin::Trusted || planted::is(Planted::TrustedTail)
}
