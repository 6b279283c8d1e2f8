//! The client against servers on this machine that look at what they are asked.

use std::path::Path;

use model::seam::fake::ManualClock;
use prometheus_client::registry::Registry;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::config::{OAuth2, Pem, ProxyConfig, TlsVersion};
use crate::secret::Secret;
use crate::test_server::{Server, gzip, redirect, text};

fn shared(clock: &Arc<ManualClock>) -> Shared {
    Shared {
        budget: Arc::new(BodyBudget::new(1 << 20)),
        user_agent: HeaderValue::from_static("test"),
        clock: clock.clone(),
        metrics: Metrics::new(&mut Registry::default()),
    }
}

fn config(change: impl FnOnce(&mut HttpConfig)) -> HttpConfig {
    let mut config = HttpConfig::default();
    change(&mut config);
    config
}

fn client(config: &HttpConfig) -> HttpClient {
    HttpClient::new(config, &shared(&Arc::new(ManualClock::new(0)))).unwrap()
}

async fn get(client: &HttpClient, url: &str) -> Result<String, String> {
    let url = Url::parse(url)?;
    let fetch = Fetch {
        url: &url,
        headers: &[],
        body_limit: 1 << 20,
        paced: false,
        timeout: Duration::from_secs(10),
    };
    let answer = client.fetch(&fetch).await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8(answer.body).unwrap())
}

fn inline(text: &str) -> Source {
    Source::Inline(Secret::new(text))
}

#[tokio::test]
async fn credentials_and_headers_are_sent_and_files_read_each_time() {
    let server = Server::start(|_| text("ok")).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, " one\n").unwrap();
    let basic = client(&config(|c| {
        c.auth = Auth::Basic { username: inline("u"), password: inline("p:w") };
        c.headers.insert("X-Extra".into(), vec![inline("a"), Source::File(token.clone())]);
    }));
    get(&basic, &server.url("/")).await.unwrap();
    let asked = server.take().remove(0);
    assert_eq!(asked.header("authorization"), "Basic dTpwOnc=");
    let extra: Vec<_> =
        asked.headers.get_all("x-extra").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    assert_eq!(extra, ["a", "one"]);
    assert_eq!(asked.header("user-agent"), "test");

    let bearer = client(&config(|c| {
        c.auth = Auth::Header { kind: "Bearer".into(), credentials: Source::File(token.clone()) };
    }));
    for word in ["one", "two"] {
        std::fs::write(&token, word).unwrap();
        get(&bearer, &server.url("/")).await.unwrap();
        assert_eq!(server.take()[0].header("authorization"), format!("Bearer {word}"));
    }
    std::fs::remove_file(&token).unwrap();
    let error = get(&bearer, &server.url("/")).await.unwrap_err();
    assert!(error.contains("unable to read authorization credentials file"), "{error}");

    let in_url = server.url("/").replacen("http://", "http://us:er@", 1);
    get(&client(&HttpConfig::default()), &in_url).await.unwrap();
    assert_eq!(server.take()[0].header("authorization"), "Basic dXM6ZXI=");
}

#[tokio::test]
async fn redirects_are_followed_but_credentials_stay() {
    let other = Server::start(|_| text("there")).await;
    let elsewhere = format!("http://localhost:{}/x", other.address.port());
    let back = Arc::new(parking_lot::Mutex::new(String::new()));
    let (to, again) = (elsewhere.clone(), Arc::clone(&back));
    let server = Server::start(move |asked| match asked.uri.as_str() {
        "/same" => redirect("/end"),
        "/other" => redirect(&to),
        "/loop" => redirect("/loop"),
        "/file" => redirect("file:///etc/passwd"),
        "/meta" => redirect("http://169.254.169.254/latest"),
        "/again" => redirect(&again.lock()),
        _ => text("end"),
    })
    .await;
    let follow = client(&config(|c| {
        c.auth = Auth::Header { kind: "Bearer".into(), credentials: inline("t") };
        c.headers.insert("X-Key".into(), vec![inline("k")]);
    }));
    assert_eq!(get(&follow, &server.url("/same")).await.unwrap(), "end");
    assert!(server.take().iter().all(|asked| asked.header("authorization") == "Bearer t"));
    assert_eq!(get(&follow, &server.url("/other")).await.unwrap(), "there");
    let asked = other.take().remove(0);
    assert_eq!(
        (asked.header("authorization"), asked.header("x-key"), asked.header("user-agent")),
        ("", "", "test")
    );
    for (path, want) in [
        ("/loop", "stopped after 5 redirects"),
        ("/file", "URL scheme must be"),
        ("/meta", "link-local address is not followed"),
    ] {
        let error = get(&follow, &server.url(path)).await.unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    let stay = client(&config(|c| c.follow_redirects = false));
    assert_eq!(get(&stay, &server.url("/same")).await.unwrap_err(), "server returned HTTP status 302 Found");

    // Away and back again: what comes after a foreign host gets no credentials.
    let home = server.url("/end");
    let bouncer = Server::start(move |_| redirect(&home)).await;
    *back.lock() = format!("http://localhost:{}/", bouncer.address.port());
    server.take();
    assert_eq!(get(&follow, &server.url("/again")).await.unwrap(), "end");
    let seen: Vec<String> =
        server.take().iter().map(|asked| asked.header("authorization").to_owned()).collect();
    assert_eq!(seen, ["Bearer t", ""]);
}

const CA: &str = include_str!("testdata/ca.pem");
const CERT: &str = include_str!("testdata/client.pem");
const KEY: &str = include_str!("testdata/client.key");

async fn tls_server(with_clients: bool) -> Server {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if with_clients {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let cert = CertificateDer::from_pem_slice(include_bytes!("testdata/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/server.key")).unwrap();
    Server::with_tls(Some(builder.with_single_cert(vec![cert], key).unwrap()), |_| text("secure")).await
}

#[tokio::test]
async fn tls_settings_have_their_effect() {
    let server = tls_server(false).await;
    let url = server.url("/").replacen("http:", "https:", 1);
    let ca = || Some(Pem::Inline(CA.into()));
    let named = config(|c| (c.tls.ca, c.tls.server_name) = (ca(), "target.test".into()));
    assert_eq!(get(&client(&named), &url).await.unwrap(), "secure");
    let unnamed = config(|c| c.tls.ca = ca());
    assert!(
        get(&client(&unnamed), &url).await.unwrap_err().contains("certificate"),
        "the name does not match"
    );
    let untrusted = config(|c| c.tls.server_name = "target.test".into());
    assert!(get(&client(&untrusted), &url).await.unwrap_err().contains("certificate"));
    let insecure = config(|c| c.tls.insecure_skip_verify = true);
    assert_eq!(get(&client(&insecure), &url).await.unwrap(), "secure");
    for (min, max) in
        [(Some(TlsVersion::Tls13), None), (None, Some(TlsVersion::Tls12)), (Some(TlsVersion::Tls10), None)]
    {
        let bounded =
            config(|c| (c.tls.insecure_skip_verify, c.tls.min_version, c.tls.max_version) = (true, min, max));
        assert_eq!(get(&client(&bounded), &url).await.unwrap(), "secure");
    }

    let strict = tls_server(true).await;
    let url = strict.url("/").replacen("http:", "https:", 1);
    assert!(get(&client(&named), &url).await.is_err(), "no client certificate");
    let mut with_cert = named.clone();
    (with_cert.tls.cert, with_cert.tls.key) = (Some(Pem::Inline(CERT.into())), Some(inline(KEY)));
    assert_eq!(get(&client(&with_cert), &url).await.unwrap(), "secure");
}

#[tokio::test]
async fn tls_files_are_read_again_and_mistakes_show_at_once() {
    let clock = Arc::new(ManualClock::new(0));
    let new = |config: &HttpConfig| HttpClient::new(config, &shared(&clock));
    let problem = |change: &dyn Fn(&mut HttpConfig)| match new(&config(change)) {
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    };
    assert!(
        problem(&|c| c.tls.ca = Some(Pem::File("/none/ca".into())))
            .starts_with("unable to read CA cert file")
    );
    assert!(problem(&|c| c.tls.ca = Some(Pem::Inline("x".into()))).contains("CA cert"));
    assert!(problem(&|c| c.tls.cert = Some(Pem::Inline(CERT.into()))).contains("together"));
    assert!(problem(&|c| c.tls.max_version = Some(TlsVersion::Tls11)).contains("no TLS version"));
    assert!(problem(&|c| c.tls.server_name = "not a name".into()).contains("server_name"));
    assert!(problem(&|c| drop(c.headers.insert("bad name".into(), vec![]))).contains("bad name"));

    let server = tls_server(false).await;
    let url = server.url("/").replacen("http:", "https:", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let write = |path: &Path, pem: &str| std::fs::write(path, pem).unwrap();
    write(&path, CERT);
    let client = new(&config(|c| {
        (c.tls.ca, c.tls.server_name) = (Some(Pem::File(path.clone())), "target.test".into())
    }))
    .unwrap();
    assert!(get(&client, &url).await.is_err(), "not the authority");
    write(&path, CA);
    clock.advance(Duration::from_secs(2));
    assert_eq!(get(&client, &url).await.unwrap(), "secure");
    std::fs::remove_file(&path).unwrap();
    clock.advance(Duration::from_secs(2));
    assert!(get(&client, &url).await.unwrap_err().starts_with("unable to read CA cert file"));
}

#[tokio::test]
async fn proxies_get_whole_urls_or_connect() {
    let proxy = Server::start(|_| text("by proxy")).await;
    let through = |no_proxy: &str| {
        client(&config(|c| {
            c.proxy = Some(ProxyConfig {
                http: Some(Secret::new(format!("http://u:p@{}", proxy.host()))),
                https: Some(Secret::new(format!("http://u:p@{}", proxy.host()))),
                no_proxy: no_proxy.into(),
                connect_headers: std::collections::BTreeMap::new(),
            });
            c.auth = Auth::Header { kind: "Bearer".into(), credentials: inline("t") };
        }))
    };
    assert_eq!(get(&through(""), "http://target.test/m?x=1").await.unwrap(), "by proxy");
    let asked = proxy.take().remove(0);
    assert_eq!(
        (asked.uri.as_str(), asked.header("proxy-authorization")),
        ("http://target.test/m?x=1", "Basic dTpw")
    );
    assert_eq!((asked.header("host"), asked.header("authorization")), ("target.test", "Bearer t"));

    let direct = Server::start(|_| text("direct")).await;
    assert_eq!(get(&through("127.0.0.0/8"), &direct.url("/")).await.unwrap(), "direct");
    assert_eq!(direct.take()[0].header("proxy-authorization"), "");

    // The test server answers CONNECT with a page and no tunnel: TLS over it must fail, and nothing be sent to it.
    let error = get(&through(""), "https://target.test/").await.unwrap_err();
    assert!(!error.is_empty());
    let asked = proxy.take().remove(0);
    assert_eq!((asked.uri.as_str(), asked.header("authorization")), ("target.test:443", ""));
}

#[tokio::test]
async fn bodies_share_their_memory_without_waiting_for_ever() {
    let big = vec![b'x'; 900 << 10];
    let server =
        Server::start(move |asked| if asked.uri == "/z" { gzip(&big) } else { text(big.clone()) }).await;
    let client = client(&HttpConfig::default());
    let (plain, zipped) = (server.url("/"), server.url("/z"));
    let (a, b) = tokio::join!(get(&client, &plain), get(&client, &zipped));
    assert_eq!((a.unwrap().len(), b.unwrap().len()), (900 << 10, 900 << 10));
}

#[tokio::test]
async fn one_proxy_for_each_scheme() {
    let proxy = Server::start(|_| text("by proxy")).await;
    let client = client(&config(|c| {
        c.proxy = Some(ProxyConfig {
            http: Some(Secret::new(format!("http://{}", proxy.host()))),
            https: None,
            no_proxy: String::new(),
            connect_headers: std::collections::BTreeMap::new(),
        });
    }));
    assert_eq!(get(&client, "http://target.test/").await.unwrap(), "by proxy");
    proxy.take();
    // No name server knows it, and the proxy is not asked.
    assert!(get(&client, "https://target.invalid/").await.is_err());
    assert!(proxy.take().is_empty());
}

fn oauth2(url: &str) -> OAuth2 {
    OAuth2 {
        client_id: "me & you".into(),
        client_secret: inline("s/cret"),
        scopes: vec!["read".into(), "all".into()],
        token_url: Secret::new(url),
        endpoint_params: [("audience".to_owned(), Secret::new("x y"))].into(),
        tls: crate::TlsConfig::default(),
        proxy: None,
    }
}

fn json(status: u16, body: &str) -> crate::test_server::Answer {
    let mut answer = crate::test_server::answer("application/json", body.to_owned());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_again_when_they_end() {
    let tokens = Server::start(|asked| {
        let name = if String::from_utf8_lossy(&asked.body).contains("client_id") { "form" } else { "header" };
        json(200, &format!(r#"{{"access_token":"{name}","token_type":"bearer","expires_in":"60"}}"#))
    })
    .await;
    let target = Server::start(|_| text("ok")).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "s/cret\n").unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let settings = OAuth2 { client_secret: Source::File(file.clone()), ..oauth2(&tokens.url("/t")) };
    let client =
        HttpClient::new(&config(|c| c.auth = Auth::OAuth2(Box::new(settings))), &shared(&clock)).unwrap();
    for _ in 0..3 {
        get(&client, &target.url("/")).await.unwrap();
    }
    assert!(target.take().iter().all(|asked| asked.header("authorization") == "Bearer header"));
    let asked = tokens.take();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        String::from_utf8_lossy(&asked[0].body),
        "grant_type=client_credentials&scope=read+all&audience=x+y"
    );
    // base64("me+%26+you:s%2Fcret")
    assert_eq!(asked[0].header("authorization"), "Basic bWUrJTI2K3lvdTpzJTJGY3JldA==");
    clock.advance(Duration::from_secs(49));
    get(&client, &target.url("/")).await.unwrap();
    assert!(tokens.take().is_empty());
    clock.advance(Duration::from_secs(2));
    get(&client, &target.url("/")).await.unwrap();
    assert_eq!(tokens.take().len(), 1);
    std::fs::write(&file, "other").unwrap();
    get(&client, &target.url("/")).await.unwrap();
    assert_eq!(tokens.take().len(), 1, "another secret asks for another token");
}

#[tokio::test]
async fn token_servers_that_refuse() {
    let by_form = Server::start(|asked| {
        match String::from_utf8_lossy(&asked.body).contains("client_secret=s%2Fcret") {
            true => json(200, r#"{"access_token":"a","expires_in":3600}"#),
            false => json(401, r#"{"error":"invalid_client"}"#),
        }
    })
    .await;
    let target = Server::start(|_| text("ok")).await;
    let with = |settings: OAuth2| client(&config(|c| c.auth = Auth::OAuth2(Box::new(settings))));
    get(&with(oauth2(&by_form.url("/"))), &target.url("/")).await.unwrap();
    assert_eq!(target.take()[0].header("authorization"), "Bearer a");

    let refusing =
        Server::start(|_| json(400, r#"{"error":"invalid_scope","error_description":"s/cret"}"#)).await;
    let error = get(&with(oauth2(&refusing.url("/"))), &target.url("/")).await.unwrap_err();
    assert_eq!(error, "oauth2: token server returned HTTP status 400 Bad Request: \"invalid_scope\"");
    let empty = Server::start(|_| json(200, "{}")).await;
    let error = get(&with(oauth2(&empty.url("/"))), &target.url("/")).await.unwrap_err();
    assert_eq!(error, "oauth2: the token server's answer has no access_token");
    assert!(target.take().is_empty(), "a target is not asked without a token");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = get(&with(oauth2(&format!("http://{gone}/"))), &target.url("/")).await.unwrap_err();
    assert!(error.starts_with("oauth2: ") && error.contains("refused"), "{error}");
    assert!(
        HttpClient::new(
            &config(|c| c.auth = Auth::OAuth2(Box::new(oauth2("nonsense")))),
            &shared(&Arc::new(ManualClock::new(0)))
        )
        .is_err()
    );
}
