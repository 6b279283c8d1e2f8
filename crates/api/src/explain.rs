//! `query_explain`: what would be done for a query, without doing it. Takes the parameters of `query_range`, or without
//! `start` and `end` those of `query`.

use axum::extract::State;
use axum::response::Response;

use crate::error::ApiError;
use crate::params::{Params, parse_duration_ns};
use crate::query::{Shared, options, success};

pub(crate) async fn query_explain(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let now = state.clock.now_ms();
    let at = params.time_or("time", now)?;
    let (start, end) = (params.time_or("start", at)?, params.time_or("end", at)?);
    let step_ns = match params.get("step") {
        "" => 1_000_000,
        step => parse_duration_ns(step).map_err(|why| ApiError::parameter("step", why))?,
    };
    let options = options(&params)?;
    let text = params.get("query");
    let explained = state.frontend.explain(text, start, end, step_ns / 1_000_000, &options).await?;
    Ok(success(|out| out.push_str(&explained.to_string())))
}
