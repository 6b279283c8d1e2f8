//! The admin API of the storage (`admin/tsdb/…`), behind `--web.enable-admin-api`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::error::ApiError;
use crate::params::Params;
use crate::query::{Shared, selectors};
use crate::state::ApiState;

fn check(state: &ApiState) -> Result<(), ApiError> {
    if state.settings.admin { Ok(()) } else { Err(ApiError::switched_off("admin APIs disabled")) }
}

/// Deletes samples of the request's tenant. 204 once every shard has committed it.
pub(crate) async fn delete_series(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    check(&state)?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let range = params.range()?;
    if range.until < range.after.saturating_add(1) && range.after != i64::MIN {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let sets = selectors(&state, &params)?;
    let tenant = params.tenant();
    tracing::info!(%tenant, selectors = ?params.selectors()?, start = range.after.saturating_add(1), end = range.until, "deleting series");
    state.storage.delete_series(&tenant, &sets, range).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Space of deleted samples comes back when their day's pages are rewritten or its retention ends; nothing can be
/// hurried.
pub(crate) async fn clean_tombstones(State(state): Shared) -> ApiError {
    match check(&state) {
        Err(off) => off,
        Ok(()) => ApiError::not_possible(
            "clean_tombstones: deleted samples are hidden at once, and their space is freed when their partition ends; \
             freeing it earlier is not there yet",
        ),
    }
}

/// A copy of the database alone could not be opened: what is not flushed yet lies in the node log.
pub(crate) async fn snapshot(State(state): Shared) -> ApiError {
    match check(&state) {
        Err(off) => off,
        Ok(()) => ApiError::not_possible(
            "snapshot: a copy that can be opened needs the database and the node log of the same moment, which is not \
             there yet; stop the node and copy its data folder instead",
        ),
    }
}
