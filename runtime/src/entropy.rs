//! Chance: the kernel's, or a seed's.

use std::fmt;

/// One core's source of random bytes.
#[derive(Clone)]
pub struct Entropy {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Kernel,
    #[cfg(feature = "sim")]
    Seeded(crate::sim::SimEntropy),
}

impl Entropy {
    /// The kernel's random numbers, fit for ids and secrets.
    pub fn kernel() -> Self {
        Self { source: Source::Kernel }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn seeded(source: crate::sim::SimEntropy) -> Self {
        Self { source: Source::Seeded(source) }
    }

    /// Fills `bytes` with random ones.
    ///
    /// # Panics
    /// When the kernel has no random numbers to give, which it promises not to happen once booted.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.source {
            Source::Kernel => fill_from_kernel(bytes),
            #[cfg(feature = "sim")]
            Source::Seeded(source) => source.fill(bytes),
        }
    }

    /// Returns a random number.
    pub fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Returns the bytes of a random (version 4) UUID.
    pub fn uuid(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }
}

fn fill_from_kernel(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length describe one exclusive slice.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(filled) {
            Ok(filled) => bytes = &mut bytes[filled..],
            Err(_) => {
                let error = std::io::Error::last_os_error();
                assert!(
                    error.kind() == std::io::ErrorKind::Interrupted,
                    "the kernel gives no random bytes: {error}"
                );
            }
        }
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_version_4_and_differ() {
        let entropy = Entropy::kernel();
        let (one, other) = (entropy.uuid(), entropy.uuid());
        assert_ne!(one, other);
        for uuid in [one, other] {
            assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2));
        }
    }
}
