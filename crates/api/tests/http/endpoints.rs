//! The table of paths: every path of it answers as it says, and nothing else is served.

use std::path::Path;

use api::{Media, Place, endpoints, markdown};
use axum::body::Body;
use http::Request;

use crate::support::{Answer, Server, server_with};

fn everything_on() -> Server {
    let settings = api::Settings { admin: true, lifecycle: true, ..api::Settings::default() };
    server_with(settings, Default::default())
}

/// Asks a path of the table with the examples of its parameters.
async fn ask(server: &Server, endpoint: &api::Endpoint, method: &str) -> Answer {
    let mut path = endpoint.path.replace("{*", "{");
    let mut query = Vec::new();
    for parameter in endpoint.parameters {
        match parameter.place {
            Place::Path => path = path.replace(&format!("{{{}}}", parameter.name), parameter.example),
            // Alone it is refused, as upstream does.
            Place::Query if parameter.name == "sort_dir" => {
                query.push(format!("sort_dir={}", parameter.example))
            }
            Place::Query => {
                let value: String = parameter.example.bytes().map(|b| format!("%{b:02x}")).collect();
                query.push(format!("{}={value}", parameter.name));
            }
        }
    }
    if path.ends_with("/read") {
        let empty = formats::snappy::compress(&[]).unwrap();
        return server.send(Request::post(path).body(Body::from(empty)).unwrap()).await;
    }
    if path.ends_with("/otlp/v1/metrics") {
        let request = Request::post(path).header("content-type", "application/x-protobuf");
        return server.send(request.body(Body::empty()).unwrap()).await;
    }
    if ["/write", "/push", "/receive"].iter().any(|end| path.ends_with(end)) {
        let empty = formats::snappy::compress(&[]).unwrap();
        return server.send(Request::post(path).body(Body::from(empty)).unwrap()).await;
    }
    let separator = if query.is_empty() { "" } else { "?" };
    server.call(method, &format!("{path}{separator}{}", query.join("&"))).await
}

#[tokio::test]
async fn every_path_answers_as_the_table_says() {
    let server = everything_on();
    let all = endpoints();
    assert!(all.len() > 60, "{}", all.len());
    for endpoint in &all {
        if endpoint.media == Media::Events {
            continue;
        }
        for (at, method) in endpoint.methods.iter().enumerate() {
            let answer = ask(&server, endpoint, method).await;
            let about = format!("{method} {}", endpoint.path);
            let code = answer.status.as_u16();
            let expected: &[u16] = match endpoint.media {
                Media::Page => &[200, 303],
                // There is no such query.
                _ if endpoint.path.contains("active_queries/") => &[404],
                // The second method of a path may be a change that is not there yet.
                _ if at > 0 && endpoint.code == 200 => &[200, 501],
                Media::Protobuf if endpoint.code == 501 => &[501, 400, 415],
                _ => &[endpoint.code],
            };
            assert!(expected.contains(&code), "{about}: {code} {:?}", String::from_utf8_lossy(&answer.body));
            if code == 200
                && let Some(media) = endpoint.media.as_str()
            {
                let found = answer.header("content-type");
                assert!(found.starts_with(media), "{about}: {found}");
            }
        }
        // Any other method is refused, and says which there are.
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            if endpoint.methods.contains(&method) || endpoint.path.starts_with("/debug") {
                continue;
            }
            let answer = ask_plainly(&server, endpoint, method).await;
            assert_eq!(answer.status, 405, "{method} {}", endpoint.path);
            assert!(!answer.header("allow").is_empty(), "{method} {}", endpoint.path);
        }
    }
}

async fn ask_plainly(server: &Server, endpoint: &api::Endpoint, method: &str) -> Answer {
    let path = endpoint.path.replace("{name}", "job").replace(['{', '}', '*'], "");
    server.call(method, &path).await
}

#[tokio::test]
async fn openapi_has_every_path_and_method() {
    let server = everything_on();
    let answer = server.get("/api/v1/openapi.yaml").await;
    assert_eq!(answer.header("content-type"), "application/yaml; charset=utf-8");
    let text = answer.text();
    assert!(text.starts_with("openapi: 3.1.0\n"));
    for endpoint in endpoints() {
        let path = format!("\n  {}:\n", serde_json::json!(endpoint.path.replace("{*", "{")));
        let at = text.find(&path).unwrap_or_else(|| panic!("{} is missing", endpoint.path));
        let rest = &text[at + path.len()..];
        let part = &rest[..rest.find("\n  \"/").unwrap_or(rest.len())];
        for method in endpoint.methods {
            assert!(part.contains(&format!("    {}:\n", method.to_ascii_lowercase())), "{path} {method}");
        }
        for parameter in endpoint.parameters {
            assert!(part.contains(&format!("- name: \"{}\"\n", parameter.name)), "{path} {}", parameter.name);
        }
    }
}

#[test]
fn the_documentation_has_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let table = markdown(&endpoints());
    assert!(text.contains(&table), "docs/api.md does not have this table; put it in:\n\n{table}");
}
