//! Entry points for the fuzz targets (`fuzz/targets`): readers of this crate that nobody else needs.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use model::NodeId;

use crate::handshake::{answer_call, call};
use crate::identity::{Identity, Lane, WIRE_VERSION};
use crate::security::Secret;

/// Both sides of a handshake whose other side says `data`, which does not know the secret. Panics on a defect.
pub fn handshake(data: &[u8]) {
    let me = Identity { cluster_name: "fuzz".into(), cluster_id: 7, node: NodeId(1) };
    let secret = Secret::new(b"what nobody guesses, hopefully").expect("long enough");
    let mut context = Context::from_waker(Waker::noop());
    // Nothing waits: all that is read is there.
    let mut stream = tokio::io::join(data, tokio::io::sink());
    match pin!(answer_call(&mut stream, &me, &secret)).poll(&mut context) {
        Poll::Ready(result) => assert!(result.is_err(), "a caller without the secret was let in"),
        Poll::Pending => panic!("it waits for what is there"),
    }
    let mut stream = tokio::io::join(data, tokio::io::sink());
    match pin!(call(&mut stream, &me, &secret, Lane::Control, WIRE_VERSION)).poll(&mut context) {
        Poll::Ready(result) => assert!(result.is_err(), "an answerer without the secret was believed"),
        Poll::Pending => panic!("it waits for what is there"),
    }
}
