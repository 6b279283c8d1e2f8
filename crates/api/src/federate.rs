//! Federation (`/federate`): the newest sample of each matching series, as a target that another Prometheus scrapes
//! (upstream: `web/federate.go`). Errors are plain text, as scrapers expect here.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use formats::expose::{self, Exposition, Value};
use http::{HeaderMap, header};
use model::seam::SeriesData;
use model::{Histogram, Labels, TimeRange, is_stale};
use query::{QueryError, Wanted};

use crate::error::ApiError;
use crate::params::Params;
use crate::query::{Shared, options};
use crate::state::ApiState;

pub(crate) async fn federate(State(state): Shared, headers: HeaderMap, params: Params) -> Response {
    match answer(&state, &headers, &params).await {
        Ok(response) => response,
        Err(error) => error.into_text(),
    }
}

enum Newest {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// By metric name, then labels: the order of the answer, each series once.
type Found = BTreeMap<(String, Labels), (i64, Newest)>;

async fn answer(state: &ApiState, headers: &HeaderMap, params: &Params) -> Result<Response, ApiError> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let accept = accept.collect::<Vec<_>>().join(",");
    let mut exposition = Exposition::new(expose::negotiate(&accept));
    let content_type = exposition.content_type();
    let now = state.clock.now_ms();
    let range = TimeRange::closed(now.saturating_sub(state.frontend.config().lookback_ms), now);
    let mut wanted = Vec::new();
    for text in params.selectors()? {
        let matchers = state.frontend.parse_selector(text).map_err(|error| match error {
            QueryError::Parse(why) => ApiError::bad_data(why),
            other => other.into(),
        })?;
        wanted.push(Wanted { matchers, range });
    }
    if !wanted.is_empty() {
        let options = options(params)?;
        let found = state.frontend.select("federate", wanted, &options, Found::new(), keep).await?;
        let external = external_labels(state);
        for ((name, labels), (timestamp, newest)) in &found {
            let own = labels.iter().filter(|(label, _)| *label != model::METRIC_NAME);
            let further = external.iter().filter(|(label, _)| labels.get(label).is_none());
            let pairs = own.chain(further.map(|(name, value)| (name.as_str(), value.as_str())));
            let value = match newest {
                Newest::Float(value) => Value::Float(*value),
                Newest::Histogram(histogram) => Value::Histogram(histogram),
            };
            exposition.add(name, pairs, value, *timestamp);
        }
    }
    Ok(([(header::CONTENT_TYPE, content_type)], exposition.finish()).into_response())
}

/// The external labels in order; an empty `instance` among them, so that the scraper does not put in its own.
fn external_labels(state: &ApiState) -> BTreeMap<String, String> {
    let labels = (state.external_labels)();
    let mut all: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    all.entry("instance".to_owned()).or_default();
    all
}

/// Keeps the newest sample of a series; a staleness marker means that there is none.
fn keep(found: &mut Found, _: usize, data: &SeriesData) -> Result<u64, QueryError> {
    let Some(last) = data.stamps.len().checked_sub(1) else { return Ok(0) };
    let name = data.labels.metric_name();
    if name.is_empty() {
        return Ok(0);
    }
    let newest = match data.histograms.last().filter(|(position, _)| *position as usize == last) {
        Some((_, histogram)) if histogram.is_stale() => return Ok(0),
        Some((_, histogram)) => Newest::Histogram(Arc::clone(histogram)),
        None if is_stale(data.values[last]) => return Ok(0),
        None => Newest::Float(data.values[last]),
    };
    found.insert((name.to_owned(), data.labels.clone()), (data.stamps[last], newest));
    Ok((2 * name.len() + data.labels.as_bytes().len() + 128) as u64)
}
