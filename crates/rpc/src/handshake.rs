//! The first four messages of every connection, before any HTTP/2: who are you, and do you know the secret.
//!
//! ```text
//! caller                                             answerer
//!   hello: version, lane, cluster, node, nonce  ───►   refuses a newer version, another cluster
//!   ◄─── challenge: version, cluster, node, nonce
//!   proof: HMAC(secret, "caller", hello, challenge) ─► compares in constant time
//!   ◄─── welcome: HMAC(secret, "answerer", hello, challenge)
//! ```
//!
//! Any of the answers may be a refusal with its reason instead. The secret itself is never sent, and since both sides
//! choose a nonce no proof is worth anything on another connection. A caller proves first: who only knows the port
//! gets nothing to guess by. Each message is a length (2 bytes, big endian) and at most 1 KiB; numbers are big endian.
//! The magic, the version and the shape of a refusal stay the same in all versions.

use std::io;

use aws_lc_rs::{hmac, rand};
use model::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::identity::{Identity, Lane, WIRE_VERSION};
use crate::security::Secret;

const MAGIC: &[u8; 8] = b"isobarpr";
const NONCE: usize = 32;
const PROOF: usize = 32;
const MAX: usize = 1024;

const GO_ON: u8 = 0;
const REFUSAL: u8 = 1;

/// How a handshake ended without a connection.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The connection broke.
    Io(io::Error),
    /// A rule was broken; the text goes to both sides.
    Refused(String),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Greets the node at the other end; gives who it is. `version` is [`WIRE_VERSION`] except in tests.
pub(crate) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    me: &Identity,
    secret: &Secret,
    lane: Lane,
    version: u16,
) -> Result<Identity, HandshakeError> {
    let hello = hello(me, lane, version)?;
    send(stream, &hello).await?;
    let challenge = answer(stream).await?;
    let (peer_version, peer) =
        parse_challenge(&challenge).ok_or_else(|| refused("its challenge does not decode"))?;
    same_cluster(me, peer_version, &peer)?;
    send(stream, sign(secret, b"caller", &hello, &challenge).as_ref()).await?;
    let welcome = answer(stream).await?;
    if !proven(secret, b"answerer", &hello, &challenge, &welcome) {
        return Err(refused("it does not know the cluster's secret (--cluster.secret-file)"));
    }
    Ok(peer)
}

/// Answers a caller's greeting; gives who it is and what it wants. What breaks a rule is told to it.
pub(crate) async fn answer_call<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    me: &Identity,
    secret: &Secret,
) -> Result<(Identity, Lane), HandshakeError> {
    let result = answer_steps(stream, me, secret).await;
    if let Err(HandshakeError::Refused(reason)) = &result {
        let mut message = vec![REFUSAL];
        message.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MAX - 1)]);
        // It may be gone already; that it is refused stands.
        let _ = send(stream, &message).await;
        let _ = stream.shutdown().await;
    }
    result
}

async fn answer_steps<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    me: &Identity,
    secret: &Secret,
) -> Result<(Identity, Lane), HandshakeError> {
    let hello = receive(stream).await?;
    let (version, lane, peer) =
        parse_hello(&hello).ok_or_else(|| refused("this port is for nodes of an Isobar cluster"))?;
    same_cluster(me, version, &peer)?;
    let (Some(lane), true) = (lane, peer.node.0 != 0) else {
        return Err(refused("the greeting names no node or an unknown kind of traffic"));
    };
    let challenge = challenge(me)?;
    let mut message = vec![GO_ON];
    message.extend_from_slice(&challenge);
    send(stream, &message).await?;
    let proof = receive(stream).await?;
    if !proven(secret, b"caller", &hello, &challenge, &proof) {
        return Err(refused("the caller does not know the cluster's secret (--cluster.secret-file)"));
    }
    let mut message = vec![GO_ON];
    message.extend_from_slice(sign(secret, b"answerer", &hello, &challenge).as_ref());
    send(stream, &message).await?;
    Ok((peer, lane))
}

fn refused(reason: impl Into<String>) -> HandshakeError {
    HandshakeError::Refused(reason.into())
}

/// The rules that need no secret.
fn same_cluster(me: &Identity, version: u16, peer: &Identity) -> Result<(), HandshakeError> {
    if version > WIRE_VERSION {
        return Err(refused(format!(
            "node {:016x} speaks version {version} between nodes, node {:016x} up to {WIRE_VERSION}: run the newer program there first",
            peer.node.0, me.node.0
        )));
    }
    if version == 0 {
        return Err(refused("version 0 between nodes does not exist"));
    }
    if peer.cluster_name != me.cluster_name {
        return Err(refused(format!(
            "node {:016x} is of cluster {:?}, node {:016x} of cluster {:?} (--cluster.name)",
            peer.node.0, peer.cluster_name, me.node.0, me.cluster_name
        )));
    }
    if peer.cluster_id != me.cluster_id && peer.cluster_id != 0 && me.cluster_id != 0 {
        return Err(refused(format!(
            "nodes {:016x} and {:016x} belong to two clusters that are both named {:?} (ids {:016x} and {:016x})",
            peer.node.0, me.node.0, me.cluster_name, peer.cluster_id, me.cluster_id
        )));
    }
    Ok(())
}

fn nonce() -> Result<[u8; NONCE], HandshakeError> {
    let mut nonce = [0; NONCE];
    rand::fill(&mut nonce).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(nonce)
}

fn hello(me: &Identity, lane: Lane, version: u16) -> Result<Vec<u8>, HandshakeError> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&version.to_be_bytes());
    out.push(lane.number());
    put_identity(&mut out, me);
    out.extend_from_slice(&nonce()?);
    Ok(out)
}

fn challenge(me: &Identity) -> Result<Vec<u8>, HandshakeError> {
    let mut out = WIRE_VERSION.to_be_bytes().to_vec();
    put_identity(&mut out, me);
    out.extend_from_slice(&nonce()?);
    Ok(out)
}

fn put_identity(out: &mut Vec<u8>, me: &Identity) {
    out.extend_from_slice(&me.cluster_id.to_be_bytes());
    out.extend_from_slice(&me.node.0.to_be_bytes());
    let name = me.cluster_name.as_bytes();
    let name = &name[..name.len().min(255)];
    out.push(name.len() as u8);
    out.extend_from_slice(name);
}

/// The version, and the rest unless the version is newer (then it may look otherwise).
fn parse_hello(bytes: &[u8]) -> Option<(u16, Option<Lane>, Identity)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk()?;
    let version = u16::from_be_bytes(*version);
    let parsed = || {
        let (&lane, rest) = rest.split_first()?;
        Some((Lane::from_number(lane), parse_identity(rest)?))
    };
    match parsed() {
        Some((lane, identity)) => Some((version, lane, identity)),
        None if version > WIRE_VERSION => Some((version, None, unknown())),
        None => None,
    }
}

fn parse_challenge(bytes: &[u8]) -> Option<(u16, Identity)> {
    let (version, rest) = bytes.split_first_chunk()?;
    let version = u16::from_be_bytes(*version);
    match parse_identity(rest) {
        Some(identity) => Some((version, identity)),
        None if version > WIRE_VERSION => Some((version, unknown())),
        None => None,
    }
}

fn unknown() -> Identity {
    Identity { cluster_name: String::new(), cluster_id: 0, node: NodeId(0) }
}

fn parse_identity(bytes: &[u8]) -> Option<Identity> {
    let (cluster_id, rest) = bytes.split_first_chunk()?;
    let (node, rest) = rest.split_first_chunk()?;
    let (&len, rest) = rest.split_first()?;
    let (name, nonce) = rest.split_at_checked(len.into())?;
    (nonce.len() == NONCE).then_some(())?;
    Some(Identity {
        cluster_name: std::str::from_utf8(name).ok()?.to_owned(),
        cluster_id: u64::from_be_bytes(*cluster_id),
        node: NodeId(u64::from_be_bytes(*node)),
    })
}

/// What is signed: each part with its length, so that no two different talks sign the same bytes.
fn signed(role: &[u8], hello: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut text = b"isobar peer ".to_vec();
    for part in [role, hello, challenge] {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    text
}

fn sign(secret: &Secret, role: &[u8], hello: &[u8], challenge: &[u8]) -> hmac::Tag {
    hmac::sign(secret.key(), &signed(role, hello, challenge))
}

fn proven(secret: &Secret, role: &[u8], hello: &[u8], challenge: &[u8], proof: &[u8]) -> bool {
    proof.len() == PROOF && hmac::verify(secret.key(), &signed(role, hello, challenge), proof).is_ok()
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let len =
        u16::try_from(message.len()).map_err(|_| io::Error::other("a handshake message is too long"))?;
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HandshakeError> {
    let len = usize::from(stream.read_u16().await?);
    if len > MAX {
        return Err(refused("this port is for nodes of an Isobar cluster"));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// An answer that goes on, without its first byte; a refusal is an error.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HandshakeError> {
    let mut message = receive(stream).await?;
    match message.first() {
        Some(&GO_ON) => {
            message.remove(0);
            Ok(message)
        }
        Some(&REFUSAL) => Err(refused(format!("refused: {}", String::from_utf8_lossy(&message[1..])))),
        _ => Err(refused("it is no node of an Isobar cluster")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(cluster: &str, cluster_id: u64, node: u64) -> Identity {
        Identity { cluster_name: cluster.into(), cluster_id, node: NodeId(node) }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).unwrap()
    }

    /// Both ends' results.
    async fn meet(
        caller: (&Identity, &Secret, u16),
        answerer: (&Identity, &Secret),
    ) -> (Result<Identity, String>, Result<(Identity, Lane), String>) {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let text = |error: HandshakeError| match error {
            HandshakeError::Io(error) => error.to_string(),
            HandshakeError::Refused(reason) => reason,
        };
        let called = async {
            let result = call(&mut a, caller.0, caller.1, Lane::Data, caller.2).await;
            drop(a);
            result.map_err(text)
        };
        let answered = async {
            let result = answer_call(&mut b, answerer.0, answerer.1).await;
            drop(b);
            result.map_err(text)
        };
        tokio::join!(called, answered)
    }

    #[tokio::test]
    async fn nodes_of_a_cluster_meet() {
        let (a, b, s) = (me("eu", 0, 1), me("eu", 9, 2), secret("a secret of 16+ bytes"));
        let (called, answered) = meet((&a, &s, WIRE_VERSION), (&b, &s)).await;
        assert_eq!(called, Ok(b));
        assert_eq!(answered, Ok((a, Lane::Data)));
    }

    #[tokio::test]
    async fn who_breaks_a_rule_is_refused_with_the_reason() {
        let (eu, s) = (me("eu", 7, 1), secret("a secret of 16+ bytes"));
        let wrong = secret("another secret, also long");
        let cases = [
            (me("us", 0, 2), &s, WIRE_VERSION, "cluster \"us\""),
            (me("eu", 8, 2), &s, WIRE_VERSION, "two clusters that are both named"),
            (me("eu", 7, 2), &wrong, WIRE_VERSION, "does not know the cluster's secret"),
            (me("eu", 7, 2), &s, WIRE_VERSION + 1, "run the newer program there first"),
            (me("eu", 7, 2), &s, 0, "version 0"),
            (me("eu", 7, 0), &s, WIRE_VERSION, "names no node"),
        ];
        for (caller, secret, version, reason) in cases {
            let (called, answered) = meet((&caller, secret, version), (&eu, &s)).await;
            assert!(called.as_ref().is_err_and(|text| text.contains(reason)), "{called:?}");
            assert!(answered.as_ref().is_err_and(|text| text.contains(reason)), "{answered:?}");
        }
    }

    #[tokio::test]
    async fn an_answerer_without_the_secret_is_found_out() {
        // It lets any proof pass, and cannot make its own.
        let (a, b) = (me("eu", 7, 1), me("eu", 7, 2));
        let (mut near, mut far) = tokio::io::duplex(4096);
        let rogue = async {
            receive(&mut far).await.unwrap();
            let mut message = vec![GO_ON];
            message.extend_from_slice(&challenge(&b).unwrap());
            send(&mut far, &message).await.unwrap();
            let mut echoed = vec![GO_ON];
            echoed.extend_from_slice(&receive(&mut far).await.unwrap());
            send(&mut far, &echoed).await.unwrap();
        };
        let secret = secret("a secret of 16+ bytes");
        let called = call(&mut near, &a, &secret, Lane::Control, WIRE_VERSION);
        let (called, ()) = tokio::join!(called, rogue);
        assert!(matches!(called, Err(HandshakeError::Refused(reason)) if reason.contains("does not know")));
    }

    #[tokio::test]
    async fn garbage_is_refused_or_broken_off_never_a_panic() {
        let (eu, s) = (me("eu", 7, 1), secret("a secret of 16+ bytes"));
        let mut whole = Vec::new();
        let hello = hello(&eu, Lane::Data, 1).unwrap();
        whole.extend_from_slice(&(hello.len() as u16).to_be_bytes());
        whole.extend_from_slice(&hello);
        let mut inputs: Vec<Vec<u8>> = (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
        inputs.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
        inputs.push(vec![0xff; 4096]);
        inputs.push(vec![0; 4096]);
        for input in inputs {
            let (mut a, mut b) = tokio::io::duplex(8192);
            a.write_all(&input).await.unwrap();
            drop(a);
            assert!(answer_call(&mut b, &eu, &s).await.is_err());
        }
    }
}
