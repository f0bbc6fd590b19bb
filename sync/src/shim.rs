//! The primitives both structures are built from: the standard library's, or loom's under `--cfg loom`.
//!
//! Code above this module must not reach for `std::sync::atomic` itself: what loom cannot see, it cannot check.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    hint::spin_loop,
    sync::Arc,
    sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU64, Ordering, fence},
    thread::yield_now,
};

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::Arc,
    sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// `std`'s cell behind loom's access style, so that loom can watch who touches the value when.
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}
