//! Client of Steward, a control plane for AI agents.
//!
//! [`Client`] connects and says who calls. Its methods give the generated client of each service;
//! all of them show the credential, fill in request ids and try again what may be tried again.
//! `?` turns what they refuse with into [`Error`]. [`Session`] lends an agent money over one
//! stream; [`AgentStream`] lets agents step policies over one.

mod agent_stream;
mod channel;
mod client;
mod credential;
mod error;
mod exchange;
mod method;
mod provider_key;
mod session;

pub use agent_stream::{AgentStream, Steps};
pub use channel::Channel;
pub use client::{Builder, Client};
pub use error::{Error, Kind, Result, TextError};
pub use prost_types;
pub use provider_key::open_provider_key;
pub use session::{Pushes, Session};
pub use tonic;

/// The messages and generated clients of each package, such as `proto::steward::budget::v1`.
#[allow(clippy::all, clippy::pedantic, rustdoc::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}
pub use proto::steward::*;

/// All contracts, for reflection.
pub static FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
