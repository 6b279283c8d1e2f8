//! The port for other nodes: binding it, and the rules about what may be said in plain text.

use anyhow::{Context as _, Result, bail};
use replication::{PeerTls, Peering};
use tokio::net::TcpListener;

use crate::flags::{Bytes, ClusterFlags, ServeFlags};

/// Binds the peer port and reads the secret. Beyond this machine a secret is needed, and TLS unless the flags say that
/// it is not wanted.
pub(super) async fn bind(flags: &ServeFlags) -> Result<Peering> {
    let cluster = &flags.cluster;
    check(cluster)?;
    let listener = TcpListener::bind(cluster.peer_listen).await.with_context(|| {
        format!("listening for other nodes on {} (--cluster.listen-address)", cluster.peer_listen)
    })?;
    let bound = listener.local_addr().context("the address of the peer port")?;
    let advertise = match &cluster.advertise {
        Some(address) => address.clone(),
        None if bound.ip().is_unspecified() && !cluster.join.is_empty() => bail!(
            "--cluster.listen-address={} says nothing about where other nodes reach this one: give \
             --cluster.advertise-address",
            cluster.peer_listen
        ),
        None => bound.to_string(),
    };
    let secret = match &cluster.secret_file {
        None => None,
        Some(file) => Some(
            std::fs::read(file)
                .with_context(|| format!("reading --cluster.secret-file {}", file.display()))?,
        ),
    };
    let tls = match (&cluster.tls_cert, &cluster.tls_key, &cluster.tls_ca) {
        (Some(cert), Some(key), Some(ca)) => {
            Some(PeerTls { cert: cert.clone(), key: key.clone(), ca: ca.clone() })
        }
        _ => None,
    };
    tracing::info!(address = %bound, advertised = %advertise, "listening for other nodes");
    let Bytes(snapshot_bytes_per_second) = cluster.snapshot_rate;
    Ok(Peering { listener, advertise, secret, tls, snapshot_bytes_per_second })
}

fn check(cluster: &ClusterFlags) -> Result<()> {
    if cluster.peer_listen.ip().is_loopback() {
        return Ok(());
    }
    if cluster.secret_file.is_none() {
        bail!(
            "--cluster.listen-address={} is reachable from other machines: give --cluster.secret-file, a file with a secret \
             that all nodes of the cluster share",
            cluster.peer_listen
        );
    }
    if cluster.tls_cert.is_none() && !cluster.insecure {
        bail!(
            "--cluster.listen-address={} is reachable from other machines: give --cluster.tls.cert-file, \
             --cluster.tls.key-file and --cluster.tls.ca-file, or --cluster.insecure for plain text",
            cluster.peer_listen
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn flags(args: &[&str]) -> ClusterFlags {
        ServeFlags::try_parse_from(std::iter::once("isobar").chain(args.iter().copied())).unwrap().cluster
    }

    #[test]
    fn beyond_this_machine_a_secret_and_tls_or_a_word_are_needed() {
        assert!(check(&flags(&[])).is_ok());
        let open = "--cluster.listen-address=0.0.0.0:9095";
        let told = |args: &[&str]| check(&flags(args)).unwrap_err().to_string();
        assert!(told(&[open]).contains("--cluster.secret-file"));
        assert!(told(&[open, "--cluster.secret-file=s"]).contains("--cluster.insecure"));
        assert!(check(&flags(&[open, "--cluster.secret-file=s", "--cluster.insecure"])).is_ok());
        let tls = ["--cluster.tls.cert-file=c", "--cluster.tls.key-file=k", "--cluster.tls.ca-file=a"];
        assert!(check(&flags(&[&[open, "--cluster.secret-file=s"], &tls[..]].concat())).is_ok());
    }
}
