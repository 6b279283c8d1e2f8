//! The admin API of the storage (`admin/tsdb/…`), behind `--web.enable-admin-api`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::encode::push_string;
use crate::error::ApiError;
use crate::params::{Params, go_bool};
use crate::query::{Shared, selectors, success};
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

/// Frees the space of deleted samples on this node. 204 once it is done.
pub(crate) async fn clean_tombstones(State(state): Shared) -> Result<Response, ApiError> {
    check(&state)?;
    state.storage.clean_deleted().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes a copy of all data of the cluster and names its folder. `skip_head` is taken and changes nothing: what is newest is
/// part of the database like everything else.
pub(crate) async fn snapshot(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    check(&state)?;
    let text = params.get("skip_head");
    if !text.is_empty() && go_bool(text).is_none() {
        let shown: String = text.chars().take(64).collect();
        let why = format!("unable to parse boolean: strconv.ParseBool: parsing {shown:?}: invalid syntax");
        return Err(ApiError::parameter("skip_head", why));
    }
    let name = state.storage.snapshot().await?;
    tracing::info!(%name, "snapshot made");
    Ok(success(|out| {
        out.push_str(r#"{"name":"#);
        push_string(out, &name);
        out.push('}');
    }))
}
