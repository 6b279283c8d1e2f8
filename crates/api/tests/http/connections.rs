//! Real sockets: keep-alive, slow clients, the limit on connections, orderly shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use api::{ListenLimits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Server, server_with};

struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
    behind: Server,
}

async fn listen(limits: ListenLimits) -> Listening {
    let settings = api::Settings { body_timeout: Duration::from_millis(200), ..api::Settings::default() };
    let server = server_with(settings, Default::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served =
        serve(vec![listener], server.router.clone(), None, limits, server.metrics.clone(), stop.clone());
    Listening { address, stop, serving: tokio::spawn(served), behind: server }
}

const HEALTHY: &[u8] = b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n";

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read =
            tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.unwrap().unwrap();
        all.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&all).into_owned();
        if read == 0 || text.ends_with(end) {
            return text;
        }
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests_until_shutdown() {
    let server = listen(ListenLimits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(HEALTHY).await.unwrap();
        assert!(read_until(&mut stream, "Healthy.\n").await.starts_with("HTTP/1.1 200 OK"));
    }
    server.stop.cancel();
    assert_eq!(read_until(&mut stream, "never").await, "", "an idle connection is closed");
    server.serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn slow_heads_are_closed_and_slow_bodies_get_408() {
    let server =
        listen(ListenLimits { head_timeout: Duration::from_millis(200), ..ListenLimits::default() }).await;
    let mut head = TcpStream::connect(server.address).await.unwrap();
    head.write_all(b"GET /-/healthy HT").await.unwrap();
    let mut body = TcpStream::connect(server.address).await.unwrap();
    body.write_all(b"POST /api/v1/write HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        .await
        .unwrap();
    assert!(read_until(&mut body, "limit of 0 s\n").await.starts_with("HTTP/1.1 408 "));
    let closed = read_until(&mut head, "never").await;
    assert!(closed.is_empty() || closed.starts_with("HTTP/1.1 408"), "{closed}");
}

#[tokio::test]
async fn a_closed_connection_stops_its_query() {
    let server = listen(ListenLimits::default()).await;
    // Without a leader for a shard the query waits.
    server.behind.reader.down.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /api/v1/query?query=up HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let frontend = &server.behind.frontend;
    let until = async |running: usize| {
        while frontend.active().len() != running {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), until(1)).await.unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), until(0)).await.unwrap();
}

#[tokio::test]
async fn over_the_limit_idle_connections_are_closed_and_busy_ones_waited_for() {
    let server = listen(ListenLimits { max_connections: 1, ..ListenLimits::default() }).await;
    // Without a leader for a shard the query waits.
    server.behind.reader.down.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /api/v1/query?query=up HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    while server.behind.frontend.active().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(HEALTHY).await.unwrap();
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(300), second.read(&mut byte)).await.is_err());
    drop(busy);
    assert!(read_until(&mut second, "Healthy.\n").await.starts_with("HTTP/1.1 200 OK"));
    let mut third = TcpStream::connect(server.address).await.unwrap();
    third.write_all(HEALTHY).await.unwrap();
    assert!(read_until(&mut third, "Healthy.\n").await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(read_until(&mut second, "never").await, "", "it was closed for the third");
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_closed_and_who_reads_slowly_is_not() {
    let piece = bytes::Bytes::from(vec![b'x'; 64 << 10]);
    let answer = move || {
        let pieces = std::iter::repeat_n(Ok::<_, std::convert::Infallible>(piece.clone()), 1_000);
        std::future::ready(axum::body::Body::from_stream(futures::stream::iter(pieces)))
    };
    let router = axum::Router::new().route("/", axum::routing::get(answer));
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = api::ApiMetrics::register(&mut registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ListenLimits {
        max_connections: 2,
        answer_timeout: Duration::from_secs(2),
        answer_rate: 1 << 20,
        ..ListenLimits::default()
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(vec![listener], router, None, limits, metrics, stop.clone()));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        stream
    };
    let (mut unread, mut slow) = (ask().await, ask().await);
    // The slow one takes four times as long as the other has.
    let mut buffer = vec![0; 8 << 20];
    let mut taken = 0;
    loop {
        let read = slow.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        taken += read;
        tokio::time::sleep(Duration::from_secs_f64(8.0 * read as f64 / 64e6)).await;
    }
    assert!(taken >= 1_000 * (64 << 10), "the slow one got {taken} bytes");
    let mut rest = 0;
    while let Ok(read @ 1..) = unread.read(&mut buffer).await {
        rest += read;
    }
    assert!(rest < 1_000 * (64 << 10), "the other one got all");
    // With its place free others are served again.
    let mut third = ask().await;
    assert!(third.read(&mut buffer).await.unwrap() > 0);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("isobar_http_connections_refused_total{reason=\"unread\"} 1"), "{text}");
    drop(third);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_and_huge_heads_cost_only_their_connection() {
    let server = listen(ListenLimits::default()).await;
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01".repeat(50),
        b"GET /".to_vec().repeat(1),
        format!("GET /?{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may close while the rest is still being sent.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(HEALTHY).await.unwrap();
    assert!(read_until(&mut stream, "Healthy.\n").await.starts_with("HTTP/1.1 200 OK"));
}
