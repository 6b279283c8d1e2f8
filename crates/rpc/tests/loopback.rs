//! Calls of every kind between two nodes over loopback, and what happens when one of them goes away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::{Echo, LARGE, Node, PARTS, pair, plain, series};
use model::seam::{
    QueryBudget, SelectRequest, SeriesData, SeriesSource, ShardBatch, ShardSeries, ShardWriteError,
};
use model::{Code, Failure, LogIndex, Matcher, NodeId, SeriesRef, ShardId, TenantId, TimeRange};
use rpc::{Lane, Need, PeerError, ReadRefusal, RemoteReplica};
use tokio::net::TcpListener;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(10);

fn batch(series: u64) -> ShardBatch {
    ShardBatch {
        tenant: Some(TenantId::anonymous()),
        series: (0..series).map(|n| ShardSeries::Known(SeriesRef(n))).collect(),
        ends: (1..=series).map(|n| (n as u32, 0)).collect(),
        samples: (0..series).map(|n| model::Sample { timestamp: 60_000, value: n as f64 }).collect(),
        ..ShardBatch::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_its_answer() {
    let (a, b) = pair(plain(), Echo::default()).await;
    for lane in [Lane::Control, Lane::Data] {
        let answer = a.peers.raft(b.id(), lane, 42, Bytes::from_static(b"hello"), false, LIMIT).await;
        assert_eq!(answer.unwrap(), "1 42 5");
    }
    let failed = a.peers.raft(b.id(), Lane::Data, 1, Bytes::from_static(b"fail"), false, LIMIT).await;
    assert_eq!(failed, Err(PeerError::Failed(Failure::unavailable("as asked", Duration::from_secs(3)))));

    let report = a.peers.write(b.id(), ShardId(1), &batch(1000), LIMIT).await.unwrap().unwrap();
    assert_eq!((report.incarnation, report.refs.len(), report.written.samples), (5, 1000, 1000));
    let refused = a.peers.write(b.id(), ShardId(2), &batch(1), LIMIT).await.unwrap();
    assert!(matches!(refused, Err(ShardWriteError::NotLeader { leader: Some(NodeId(77)) })));
    let refused = a.peers.write(b.id(), ShardId(3), &batch(1), LIMIT).await.unwrap();
    assert!(matches!(refused, Err(ShardWriteError::UnknownRefs)));

    let indexes = a.peers.read_index(b.id(), &[ShardId(1), ShardId(2), ShardId(3)], LIMIT).await.unwrap();
    assert_eq!(indexes[0], Ok(LogIndex(1234)));
    assert_eq!(indexes[1], Err(ReadRefusal::NotLeader(None)));
    assert_eq!(indexes[2], Err(ReadRefusal::Failed(Failure::internal("no such shard"))));

    assert_eq!(a.peers.fragment(b.id(), Bytes::from_static(b"abc"), LIMIT).await.unwrap(), b"cba");
    let large = a.peers.fragment(b.id(), Bytes::from_static(b"large"), LIMIT).await.unwrap();
    assert!(large.len() == LARGE && large.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    assert_eq!(a.peers.meta(b.id(), Bytes::from_static(b"status"), LIMIT).await.unwrap(), "1 status");
    let (who, answer) = a.peers.meta_at(&b.address, Bytes::from_static(b"join"), LIMIT).await.unwrap();
    assert_eq!((who, &*answer), ((**b.me.load()).clone(), &b"1 join"[..]));

    let unknown = a.peers.meta(NodeId(3), Bytes::new(), LIMIT).await;
    assert_eq!(unknown, Err(PeerError::UnknownNode(NodeId(3))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_whole_or_says_that_it_does_not() {
    let (a, b) = pair(plain(), Echo::default()).await;
    let mut whole = a.peers.snapshot(b.id(), Bytes::from_static(b"whole"), LIMIT).await.unwrap();
    for number in 0..PARTS {
        let bytes = whole.next().await.unwrap().unwrap();
        assert_eq!((bytes.len(), bytes[0]), (common::PART, number as u8));
    }
    assert_eq!(whole.next().await.unwrap(), None);
    let mut damaged = a.peers.snapshot(b.id(), Bytes::from_static(b"damaged"), LIMIT).await.unwrap();
    for _ in 0..3 {
        assert!(damaged.next().await.unwrap().is_some());
    }
    assert!(matches!(damaged.next().await, Err(PeerError::Failed(failure)) if failure.code == Code::Corrupt));
}

fn select(budget: &Arc<QueryBudget>) -> SelectRequest {
    SelectRequest {
        tenant: TenantId::anonymous(),
        matchers: vec![Matcher::new("instance", model::MatchOp::Regex, "host-.*").unwrap()],
        range: TimeRange::ALL,
        budget: Arc::clone(budget),
    }
}

fn read_all(source: &dyn SeriesSource, budget: &Arc<QueryBudget>) -> Vec<SeriesData> {
    let mut all = Vec::new();
    let mut iter = source.select(&select(budget)).unwrap();
    let mut data = SeriesData::default();
    while iter.next_series(&mut data).unwrap() {
        all.push(data.clone());
    }
    all.sort_by(|a, b| a.labels.as_bytes().cmp(b.labels.as_bytes()));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_replica_reads_like_a_local_one() {
    let local = Arc::new(series(3000));
    let (a, b) = pair(plain(), Echo { series: Some(Arc::clone(&local)), ..Echo::default() }).await;
    let remote =
        RemoteReplica::new(Arc::clone(&a.peers), &[b.id()], ShardId(1), Need::Applied(LogIndex(7)), LIMIT);
    let elsewhere =
        RemoteReplica::new(Arc::clone(&a.peers), &[b.id()], ShardId(9), Need::Applied(LogIndex(7)), LIMIT);
    let compare = move || {
        let budget = QueryBudget::new(64 << 20);
        let (far, near) = (read_all(&remote, &budget), read_all(local.as_ref(), &QueryBudget::unlimited()));
        assert_eq!(far.len(), 3000);
        for (far, near) in far.iter().zip(&near) {
            assert_eq!((&far.labels, &far.stamps), (&near.labels, &near.stamps));
            let bits = |data: &SeriesData| data.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(far), bits(near));
        }
        assert!(budget.received_bytes() > 100_000, "{} bytes were counted", budget.received_bytes());
        assert!(
            budget.peak_bytes() < 2 << 20,
            "only what is read ahead is held, not {}",
            budget.peak_bytes()
        );
        let request = select(&budget);
        assert_eq!(remote.series(&request, 10).unwrap().len(), 10);
        assert_eq!(remote.label_names(&request, 0).unwrap(), local.label_names(&request, 0).unwrap());
        assert_eq!(
            remote.label_values(&request, "instance", 5).unwrap(),
            local.label_values(&request, "instance", 5).unwrap()
        );
        assert!(remote.metadata(&TenantId::anonymous(), None).unwrap().is_empty());

        // The first series only: what is left is given back.
        let mut iter = remote.select(&request).unwrap();
        assert!(iter.next_series(&mut SeriesData::default()).unwrap());
        drop(iter);

        // A small budget ends the query, not the connection.
        let small = QueryBudget::new(1000);
        let mut iter = remote.select(&select(&small)).unwrap();
        let failure = iter.next_series(&mut SeriesData::default()).unwrap_err();
        assert_eq!(failure.code, Code::TooMany, "{failure}");

        let stopped = QueryBudget::unlimited();
        let mut iter = remote.select(&select(&stopped)).unwrap();
        assert!(iter.next_series(&mut SeriesData::default()).unwrap());
        stopped.cancel();
        let ended = loop {
            match iter.next_series(&mut SeriesData::default()) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(failure) => break Some(failure.code),
            }
        };
        assert_eq!(ended, Some(Code::Cancelled));

        let missing = elsewhere.select(&select(&budget)).unwrap().next_series(&mut SeriesData::default());
        assert_eq!(missing.unwrap_err().code, Code::NotFound);
    };
    tokio::task::spawn_blocking(compare).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_fragment_is_cancelled_at_the_other_end() {
    let (a, b) = pair(plain(), Echo::default()).await;
    let peers = Arc::clone(&a.peers);
    let to = b.id();
    let call = tokio::spawn(async move { peers.fragment(to, Bytes::from_static(b"sleep"), LIMIT).await });
    until(|| b.service.writing.load(Ordering::SeqCst) == 1).await;
    call.abort();
    until(|| b.service.cancelled.load(Ordering::SeqCst) == 1).await;
}

/// Waits for a condition, bounded.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the condition came true in time");
}

async fn until_answered(a: &Node, to: NodeId) {
    let wait = async {
        loop {
            let limit = Duration::from_millis(200);
            if a.peers.raft(to, Lane::Data, 1, Bytes::from_static(b"x"), false, limit).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the peer was found again in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_returns_is_found_on_its_address_and_on_another() {
    let (a, mut b) = pair(plain(), Echo::default()).await;
    until_answered(&a, b.id()).await;
    // Gone: calls fail soon, they do not hang.
    let address = b.address.clone();
    b.serving = None;
    let begin = Instant::now();
    let failed = a.peers.raft(b.id(), Lane::Data, 1, Bytes::from_static(b"x"), false, LIMIT).await;
    assert!(failed.is_err() && begin.elapsed() < Duration::from_secs(3), "{failed:?}");
    // Back on the same address.
    let mut listener = None;
    for _ in 0..100 {
        listener = TcpListener::bind(&address).await.ok();
        if listener.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    b.serve(listener.expect("the port is free again"));
    until_answered(&a, b.id()).await;
    // Moved.
    b.serve(TcpListener::bind("127.0.0.1:0").await.unwrap());
    assert_ne!(b.address, address);
    a.knows(&b);
    until_answered(&a, b.id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_torn_down_at_its_first_timeout() {
    // A listener that takes connections and says nothing, as a stopped process does; then the node in its place.
    let a = Node::start(1, plain(), Echo::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.peers.set_address(NodeId(2), &silent.local_addr().unwrap().to_string());
    let limit = Duration::from_millis(150);
    let begin = Instant::now();
    let late = a.peers.raft(NodeId(2), Lane::Control, 1, Bytes::from_static(b"x"), false, limit).await;
    assert!(matches!(late, Err(PeerError::Timeout { .. })), "{late:?}");
    assert!(begin.elapsed() < Duration::from_secs(2));

    let b = Node::start(2, plain(), Echo::default()).await;
    a.knows(&b);
    until_answered(&a, b.id()).await;
    // One call that is never answered tears the stream down when nothing else is heard; the next ones go through.
    let late = a.peers.raft(b.id(), Lane::Data, 1, Bytes::from_static(b"sleep"), false, limit).await;
    assert!(matches!(late, Err(PeerError::Timeout { .. })), "{late:?}");
    until_answered(&a, b.id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_node_at_an_address_is_refused() {
    let (a, b) = pair(plain(), Echo::default()).await;
    a.peers.set_address(NodeId(3), &b.address);
    let refused = a.peers.meta(NodeId(3), Bytes::new(), LIMIT).await;
    assert!(
        matches!(&refused, Err(PeerError::Refused { reason, .. }) if reason.contains("is at its address now")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn control_calls_do_not_wait_behind_a_full_data_lane() {
    let (a, b) = pair(plain(), Echo::default()).await;
    until_answered(&a, b.id()).await;
    let to = b.id();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut full = Vec::new();
    for group in 0..64 {
        let (peers, stop) = (Arc::clone(&a.peers), Arc::clone(&stop));
        full.push(tokio::spawn(async move {
            let body = Bytes::from(vec![7; 1 << 20]);
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                peers.raft(to, Lane::Data, group, body.clone(), false, LIMIT).await.unwrap();
                sent += 1;
            }
            sent
        }));
    }
    let mut worst = Duration::ZERO;
    for _ in 0..200 {
        let begin = Instant::now();
        a.peers.raft(to, Lane::Control, 1, Bytes::from_static(b"x"), false, LIMIT).await.unwrap();
        worst = worst.max(begin.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for task in full {
        sent += task.await.unwrap();
    }
    println!("slowest of 200 control calls beside {sent} MiB of data: {worst:?}");
    assert!(sent >= 64, "the data lane was full");
    // 64 MiB waited for the data lane all the time; behind it a call would have waited for all of them.
    assert!(worst < Duration::from_millis(500), "a control call took {worst:?}");
}
