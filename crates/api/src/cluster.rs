//! The cluster: its status, its settings, leaderships. Changes need `--web.enable-admin-api`.

use axum::extract::State;
use axum::response::Response;
use model::seam::{ClusterStatus, MemberStatus, ReplicaStatus, ShardStatus};
use model::{Failure, NodeId, ShardId};

use crate::encode::{push_list, push_string, push_unsigned};
use crate::error::ApiError;
use crate::params::Params;
use crate::query::{Shared, success};

fn push_node(out: &mut String, node: NodeId) {
    push_string(out, &format!("{:016x}", node.0));
}

fn push_flag(out: &mut String, name: &str, flag: bool) {
    out.push_str(&format!(",\"{name}\":{flag}"));
}

fn push_text(out: &mut String, name: &str, text: &str) {
    out.push_str(&format!(",\"{name}\":"));
    push_string(out, text);
}

fn push_number(out: &mut String, name: &str, number: u64) {
    out.push_str(&format!(",\"{name}\":"));
    push_unsigned(out, number);
}

fn push_member(out: &mut String, member: &MemberStatus) {
    out.push_str("{\"node\":");
    push_node(out, member.node);
    push_text(out, "name", &member.name);
    push_text(out, "zone", &member.zone);
    push_text(out, "address", &member.address);
    push_flag(out, "answers", member.answers);
    push_flag(out, "metaVoter", member.meta_voter);
    push_flag(out, "metaLeader", member.meta_leader);
    push_number(out, "replicas", member.replicas as u64);
    push_number(out, "leads", member.leads as u64);
    push_flag(out, "diskFull", member.disk_full);
    out.push_str(",\"drift\":");
    push_list(out, &member.drift, |out, (key, own, cluster)| {
        out.push_str("{\"setting\":");
        push_string(out, key);
        push_text(out, "node", own);
        push_text(out, "cluster", cluster);
        out.push('}');
    });
    out.push('}');
}

fn push_replica(out: &mut String, replica: &ReplicaStatus) {
    out.push_str("{\"replica\":");
    push_unsigned(out, replica.replica.0);
    out.push_str(",\"node\":");
    push_node(out, replica.node);
    let view = replica.view.unwrap_or_default();
    let state = match replica.view {
        None => "unknown",
        Some(view) if view.quarantined => "quarantined",
        Some(view) if view.failed => "failed",
        Some(view) if view.leads => "leader",
        Some(view) if !view.votes => "learner",
        Some(view) if view.ready => "follower",
        Some(_) => "catching up",
    };
    push_text(out, "state", state);
    push_number(out, "applied", view.applied);
    push_number(out, "lag", replica.lag);
    out.push('}');
}

fn push_shard(out: &mut String, shard: &ShardStatus) {
    out.push_str("{\"shard\":");
    push_unsigned(out, u64::from(shard.shard.0));
    out.push_str(",\"leader\":");
    match shard.leader {
        Some(node) => push_node(out, node),
        None => out.push_str("null"),
    }
    push_number(out, "missing", shard.missing as u64);
    out.push_str(",\"replicas\":");
    push_list(out, &shard.replicas, push_replica);
    out.push('}');
}

fn push_status(out: &mut String, status: &ClusterStatus) {
    out.push_str("{\"name\":");
    push_string(out, &status.name);
    push_text(out, "id", &format!("{:016x}", status.id));
    push_text(out, "node", &format!("{:016x}", status.node.0));
    push_text(out, "waitsFor", &status.waits_for);
    let without_leader = status.shards.iter().filter(|shard| shard.leader.is_none()).count();
    push_number(out, "shardsWithoutLeader", without_leader as u64);
    let under = status.shards.iter().filter(|shard| shard.missing > 0).count();
    push_number(out, "underReplicatedShards", under as u64);
    push_number(out, "settingsVersion", status.settings_version);
    out.push_str(",\"settings\":{");
    for (at, (key, value)) in status.settings.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, key);
        out.push(':');
        push_string(out, value);
    }
    out.push_str("},\"members\":");
    push_list(out, &status.members, push_member);
    out.push_str(",\"shards\":");
    push_list(out, &status.shards, push_shard);
    out.push('}');
}

/// The cluster as this node sees it. Answers also while the node starts or looks for its cluster.
pub(crate) async fn status(State(state): Shared) -> Response {
    let status = state.cluster.status().await;
    success(|out| push_status(out, &status))
}

fn expect_admin(admin: bool) -> Result<(), ApiError> {
    if admin { Ok(()) } else { Err(ApiError::switched_off("admin APIs disabled")) }
}

/// `POST cluster/settings?KEY=VALUE&…`: changes settings that must agree.
pub(crate) async fn settings(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    expect_admin(state.settings.admin)?;
    let changes: Vec<(String, String)> = params.pairs().to_vec();
    if changes.is_empty() {
        return Err(Failure::invalid("no setting is given: cluster/settings?KEY=VALUE").into());
    }
    state.cluster.change_settings(changes).await?;
    Ok(success(|out| out.push_str("{}")))
}

/// `POST cluster/transfer_leader?shard=N&node=NAME`.
pub(crate) async fn transfer_leader(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    expect_admin(state.settings.admin)?;
    let shard = params.get("shard");
    let bad = || Failure::invalid(format!("parameter shard: {shard:?} is not the number of a shard"));
    let shard = ShardId(shard.parse().map_err(|_| bad())?);
    let node = params.get("node").to_owned();
    state.cluster.transfer_leader(shard, node).await?;
    Ok(success(|out| out.push_str("{}")))
}

/// `POST cluster/remove?node=NAME`.
pub(crate) async fn remove(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    expect_admin(state.settings.admin)?;
    state.cluster.remove_node(params.get("node").to_owned()).await?;
    Ok(success(|out| out.push_str("{}")))
}
