//! The clients of a run: they ask, note what they are answered, and go on whatever comes.

mod committer;
mod judge;
mod maker;
mod member;
mod membership;
mod operator;
mod placement;
mod producer;
mod reader;
mod upserter;
mod wire;

pub(super) use committer::{commit, group_name};
pub(super) use judge::look_at_the_end;
pub(super) use maker::make_topics;
pub(super) use member::take_part;
pub(super) use operator::operate;
pub(super) use producer::produce;
pub(super) use reader::read;
pub(super) use upserter::upsert;
