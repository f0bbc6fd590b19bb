//! Chance from a seed (SplitMix64): small, fast, the same on every machine.

use std::cell::RefCell;
use std::rc::Rc;

/// A seeded random number generator, for simulations and tests; never for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Returns the generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns another generator for the same seed, independent of this one, named by `stream`.
    #[must_use]
    pub fn fork(&self, stream: u64) -> Self {
        let mut mixed = Self { state: self.state ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03) };
        Self { state: mixed.next() }
    }

    /// Returns the next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of a remainder is at most end / 2^64: nothing a simulation would notice.
        self.next().checked_rem(end).unwrap_or_default()
    }

    /// Says yes `yes` times out of `of`.
    pub fn chance(&mut self, yes: u64, of: u64) -> bool {
        self.below(of) < yes
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

/// The source behind a simulated [`Entropy`](crate::Entropy); its clones draw from one stream.
#[derive(Clone, Debug)]
pub(crate) struct SimEntropy {
    rng: Rc<RefCell<Rng>>,
}

impl SimEntropy {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { rng: Rc::new(RefCell::new(rng)) }
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        self.rng.borrow_mut().fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_numbers_and_forks_differ() {
        let draw = |mut rng: Rng| [rng.next(), rng.next(), rng.next()];
        // The reference values of SplitMix64 for seed 1234567.
        assert_eq!(
            draw(Rng::new(1_234_567)),
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
        assert_ne!(draw(Rng::new(7).fork(0)), draw(Rng::new(7).fork(1)));
        assert_eq!(draw(Rng::new(7).fork(1)), draw(Rng::new(7).fork(1)));
    }
}
