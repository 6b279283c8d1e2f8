//! Queries and label calls.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::support::{NOW, assert_refused, server, server_with};

#[tokio::test]
async fn instant_queries_by_get_and_form() {
    let server = server();
    let at = "1700000000";
    let up = server.data(&format!("/api/v1/query?query=up&time={at}")).await;
    let value = |instance: &str, value: &str| json!({"metric": {"__name__": "up", "instance": instance, "job": "x"}, "value": [1_700_000_000, value]});
    assert_eq!(up, json!({"resultType": "vector", "result": [value("a:1", "1"), value("b:1", "0")]}));
    let posted = server
        .form("/api/v1/query?query=wrong", &format!("query=up%7Binstance%3D%22b%3A1%22%7D&time={at}"))
        .await;
    assert_eq!(posted.json()["data"]["result"], json!([value("b:1", "0")]));
    let now = server.data("/api/v1/query?query=up").await;
    assert_eq!(now, up, "without a time it is that of the clock");
    let early = server.data("/api/v1/query?query=up&time=2023-11-14T21:00:00Z").await;
    assert_eq!(early["result"], json!([]));
    assert_eq!(
        server.data("/api/v1/query?query=1%2B1").await,
        json!({"resultType": "scalar", "result": [1_700_000_000, "2"]})
    );
    assert_eq!(
        server.data("/api/v1/query?query=%22a%22&time=1.5").await,
        json!({"resultType": "string", "result": [1.5, "a"]})
    );
    let matrix = server.data("/api/v1/query?query=up%7Binstance%3D%22a%3A1%22%7D%5B31s%5D").await;
    assert_eq!(matrix["resultType"], "matrix");
    assert_eq!(matrix["result"][0]["values"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn range_queries_limits_and_stats() {
    let server = server();
    let path = "/api/v1/query_range?query=up&start=1699999940&end=1700000000&step=30";
    let all = server.data(path).await;
    assert_eq!(all["resultType"], "matrix");
    assert_eq!(all["result"].as_array().unwrap().len(), 2);
    assert_eq!(
        all["result"][0]["values"],
        json!([[1_699_999_940, "1"], [1_699_999_970, "1"], [1_700_000_000, "1"]])
    );
    let cut = server.get(&format!("{path}&limit=1&stats=true")).await.json();
    assert_eq!(cut["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    assert!(cut["data"]["stats"]["timings"]["execTotalTime"].as_f64().unwrap() > 0.0);
    assert!(cut["data"]["stats"]["samples"]["totalQueryableSamples"].as_u64().unwrap() > 0);
    let odd = server.get(&format!("{path}&stats=yes")).await.json();
    assert!(
        odd["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("value \"yes\" for parameter \"stats\" is deprecated")
    );
    assert!(server.data(&format!("{path}&limit=2")).await.get("warnings").is_none());
}

#[tokio::test]
async fn a_query_is_explained_without_being_evaluated() {
    let server = server();
    let path = "/api/v1/query_explain?query=sum(up)%20%2F%20scalar(rate(x%5B5m%5D))&start=10&end=40&step=15";
    let plan = server.data(path).await;
    assert_eq!(plan["root"], "part_0 / scalar(part_1)");
    assert_eq!(plan["parts"][0]["query"], "sum(up)");
    assert_eq!(plan["parts"][0]["kind"], "groups");
    assert_eq!(plan["parts"][1]["query"], "rate(x[5m])");
    assert_eq!(plan["parts"][1]["steps"], 3);
    assert_eq!(plan["places"], json!([{"node": null, "shards": [0, 1]}]));
    assert_eq!(plan["distributed"], false);
    assert_eq!(server.get("/api/v1/query_explain?query=sum(").await.status, 400);
}

#[tokio::test]
async fn bad_parameters_have_upstreams_words() {
    let server = server();
    let range = "start=0&end=10&step=1";
    for (path, text) in [
        (
            "query?query=up&time=abc",
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"abc\" to a valid timestamp",
        ),
        ("query?query=up&time=NaN", "cannot parse \"NaN\" to a valid timestamp"),
        ("query?query=up&limit=-1", "invalid parameter \"limit\": limit must be non-negative"),
        (
            "query?query=up&limit=x",
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("query?query=up&timeout=x", "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"),
        ("query?query=up&timeout=1e30", "It overflows int64"),
        (
            "query?query=up&lookback_delta=x",
            "error parsing lookback delta duration: cannot parse \"x\" to a valid duration",
        ),
        ("query?query=up%ff", "not valid UTF-8"),
        ("query?query=%zz", "error parsing form values: invalid URL escape \"%zz\""),
        ("query", "invalid parameter \"query\": unknown position: parse error: no expression found in input"),
        ("query?query=up%7B", "invalid parameter \"query\": 1:4: parse error: "),
        (
            "query_range?query=up&end=10&step=1",
            "invalid parameter \"start\": cannot parse \"\" to a valid timestamp",
        ),
        (
            "query_range?query=up&start=0&step=1",
            "invalid parameter \"end\": cannot parse \"\" to a valid timestamp",
        ),
        (
            "query_range?query=up&start=10&end=0&step=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query_range?query=up&start=0&end=10&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&start=0&end=10&step=x",
            "invalid parameter \"step\": cannot parse \"x\" to a valid duration",
        ),
        (
            "query_range?query=up&start=0&end=315360000&step=0.001",
            "exceeded maximum resolution of 11,000 points per timeseries",
        ),
        (
            "query_range?query=up&start=-1e15&end=1e15&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries",
        ),
        (
            &format!("query_range?query=up%5B1m%5D&{range}"),
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        ("series", "no match[] parameter provided"),
        ("series?match[]=up&start=x", "invalid time value for 'start'"),
        ("series?match[]=%7B%7D", "invalid parameter \"match[]\": "),
        ("series?match[]=%7Ba%3D~%22.*%22%7D", "match[] must contain at least one non-empty matcher"),
        ("labels?match[]=%7B", "1:2: parse error"),
        ("labels?limit=x", "invalid parameter \"limit\""),
        ("label/job/values?end=x", "invalid time value for 'end'"),
        ("metadata?limit=x", "limit must be a number"),
        ("metadata?limit_per_metric=x", "limit_per_metric must be a number"),
        ("format_query?query=", "invalid parameter \"query\""),
        ("parse_query?query=1%2B", "invalid parameter \"query\": 1:3: parse error"),
        ("query_exemplars?query=%7B", "parse error"),
        ("status/tsdb?limit=0", "limit must be a positive number"),
        ("status/tsdb?limit=10001", "limit must not exceed 10000"),
    ] {
        server.refused(&format!("/api/v1/{path}"), 400, "bad_data", text).await;
    }
}

#[tokio::test]
async fn nasty_texts_are_refused_quickly() {
    let server = server();
    let deep = "(".repeat(40_000) + "1" + &")".repeat(20_000);
    let nested = "abs(".repeat(10_000) + "1" + &")".repeat(10_000);
    let unary = "-".repeat(60_000) + "1";
    let chain = "x+".repeat(30_000) + "x";
    let long = "x".repeat(65 << 10);
    let regex = format!("up{{a=~\"{}\"}}", "(a{1000}){1000}".repeat(20));
    for text in [&deep, &nested, &unary, &chain, &long, &regex] {
        let started = tokio::time::Instant::now();
        let answer = server.form("/api/v1/query", &format!("query={}", text.replace('+', "%2B"))).await;
        assert_refused(&answer, 400, "bad_data", "invalid parameter \"query\"", &text[..20]);
        assert!(answer.body.len() < 2_000, "no echo of the whole text");
        assert!(started.elapsed().as_secs() < 5);
    }
    let many = "match[]=up&".repeat(2_000);
    assert_refused(
        &server.form("/api/v1/series", &many).await,
        400,
        "bad_data",
        "the limit is 1000",
        "match[]",
    );
    let huge = "x=".to_owned() + &"y".repeat(2 << 20);
    assert_refused(
        &server.form("/api/v1/query", &huge).await,
        413,
        "bad_data",
        "limit of 1048576 bytes",
        "form",
    );
    assert_eq!(server.get("/api/v1/query?query=up").await.status, 200);
}

#[tokio::test]
async fn execution_errors_are_422_and_missing_shards_503() {
    let server = server();
    server.refused("/api/v1/query?query=label_replace(up,%22job%22,%22y%22,%22instance%22,%22.*%22)%20*%20on(job)%20up", 422, "execution", "many-to-many").await;
    server.reader.down.store(true, Ordering::Relaxed);
    let answer = server.get("/api/v1/query?query=up&timeout=100ms").await;
    assert_refused(&answer, 503, "unavailable", "shard 1 is not available: no leader", "down");
    assert!(!answer.header("retry-after").is_empty());
    server.reader.down.store(false, Ordering::Relaxed);
    assert_eq!(server.get("/api/v1/query?query=up").await.status, 200);
    server.refused("/api/v1/query?query=up&timeout=0", 503, "timeout", "query timed out").await;
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_fails() {
    let config = query::Config { max_memory_bytes: 100, ..query::Config::default() };
    let server = server_with(Default::default(), config);
    server
        .refused("/api/v1/query?query=sum_over_time(up%5B1h%5D)", 422, "execution", "limit 100 bytes")
        .await;
}

#[tokio::test]
async fn series_and_labels() {
    let server = server();
    let up = |instance: &str| json!({"__name__": "up", "instance": instance, "job": "x"});
    assert_eq!(server.data("/api/v1/series?match[]=up").await, json!([up("a:1"), up("b:1")]));
    assert_eq!(
        server.data("/api/v1/series?match[]=up&match[]=%7Binstance%3D%22a%3A1%22%7D").await,
        json!([up("a:1"), up("b:1")]),
        "each once"
    );
    let posted = server.form("/api/v1/series", "match[]=up%7Binstance%3D%22b%3A1%22%7D").await.json();
    assert_eq!(posted["data"], json!([up("b:1")]));
    let cut = server.get("/api/v1/series?match[]=up&limit=1").await.json();
    assert_eq!(
        (&cut["data"], &cut["warnings"]),
        (&json!([up("a:1")]), &json!(["results truncated due to limit"]))
    );
    assert_eq!(server.data("/api/v1/series?match[]=up&end=1000").await, json!([]));

    assert_eq!(
        server.data("/api/v1/labels").await,
        json!(["__name__", "http.status", "instance", "job", "region"])
    );
    assert_eq!(server.data("/api/v1/labels?match[]=up").await, json!(["__name__", "instance", "job"]));
    let cut = server.get("/api/v1/labels?limit=2").await.json();
    assert_eq!(cut["data"], json!(["__name__", "http.status"]));
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(
        server.form("/api/v1/labels", "match[]=requests_total").await.json()["data"],
        json!(["__name__", "http.status"])
    );

    assert_eq!(
        server.data("/api/v1/label/__name__/values").await,
        json!(["gone", "late", "latency", "requests_total", "sizes", "up"])
    );
    assert_eq!(server.data("/api/v1/label/instance/values?match[]=up&limit=5").await, json!(["a:1", "b:1"]));
    assert_eq!(server.data("/api/v1/label/U__http_2e_status/values").await, json!(["200"]));
    assert_eq!(server.data("/api/v1/label/http.status/values").await, json!(["200"]));
    assert_eq!(server.data("/api/v1/label/nothing/values").await, json!([]));
}

#[tokio::test]
async fn metadata_format_and_parse() {
    let server = server();
    let entry = json!([{"type": "counter", "unit": "", "help": "Requests \"seen\""}]);
    assert_eq!(server.data("/api/v1/metadata").await, json!({"requests_total": entry}));
    assert_eq!(server.data("/api/v1/metadata?metric=up").await, json!({}));
    assert_eq!(server.data("/api/v1/metadata?limit=0").await, json!({}));
    assert_eq!(server.data("/api/v1/format_query?query=sum%20(up)by(job)").await, json!("sum by (job) (up)"));
    assert_eq!(
        server.data("/api/v1/parse_query?query=1").await,
        json!({"type": "numberLiteral", "val": "1"})
    );
    assert_eq!(server.data("/api/v1/query_exemplars?query=up").await, json!([]));
}

#[tokio::test]
async fn large_answers_are_gzipped_when_asked() {
    let server = server();
    let path = "/api/v1/query_range?query=up&start=1699999000&end=1700000000&step=1";
    let plain = server.get(path).await;
    assert_eq!(plain.header("content-encoding"), "");
    let request = Request::get(path).header("accept-encoding", "gzip, deflate").body(Body::empty()).unwrap();
    let packed = server.send(request).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.header("vary"), "Accept-Encoding");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.body.as_slice()), &mut text)
        .unwrap();
    assert_eq!(text, plain.text());
    let refused = Request::get(path).header("accept-encoding", "gzip;q=0").body(Body::empty()).unwrap();
    assert_eq!(server.send(refused).await.header("content-encoding"), "");
}

#[tokio::test]
async fn queries_under_way_are_listed_and_cancelled() {
    let server = server();
    assert_eq!(server.data("/api/v1/status/active_queries").await, json!([]));
    let missing = server.call("DELETE", "/api/v1/status/active_queries/12").await;
    assert_refused(&missing, 404, "not_found", "there is no query \"12\" under way", "delete");
    server.reader.down.store(true, Ordering::Relaxed);
    // A query that waits for a shard without a leader is under way.
    let waiting = tokio::spawn({
        let frontend = server.frontend.clone();
        async move { frontend.instant("up", NOW, &query::Options::of(model::TenantId::anonymous())).await }
    });
    let listed = loop {
        let listed = server.data("/api/v1/status/active_queries").await;
        if listed != json!([]) {
            break listed;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&listed[0]["query"], &listed[0]["kind"]), (&json!("up"), &json!("instant")));
    assert!(listed[0]["peakBytes"].is_u64() && listed[0]["started"].is_number());
    let cancelled =
        server.call("DELETE", &format!("/api/v1/status/active_queries/{}", listed[0]["id"])).await;
    assert_eq!(cancelled.status, 204);
    server.reader.down.store(false, Ordering::Relaxed);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, query::QueryError::Cancelled(_)), "{error:?}");
}
