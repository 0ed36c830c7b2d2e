//! Bytes of masters on their way between the network and the store.
//!
//! One straight corridor each way: [`ingest`] reads a stream into pooled [`buffers`], [`workers`] verify and write;
//! [`serve`] has workers read into pooled buffers and hands those to the stream without a copy. What is on the way is
//! bounded by the pools, and a full pool stops reading from the network: there is no other backpressure. The machines
//! above see indices only.

pub(crate) mod buffers;
pub(crate) mod ingest;
pub(crate) mod pages;
pub(crate) mod serve;
pub(crate) mod workers;
