//! A cluster's status as text: nodes, then shards, then what is not as it should be. One screen for a small cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Lines of cells under a head, in columns.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:<width$}  ", width = *width);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The settings, a line each.
pub(super) fn settings(status: &Value) -> String {
    let mut out = format!("version {}\n", number(status, "settingsVersion"));
    for (key, value) in status["settings"].as_object().into_iter().flatten() {
        out += &format!("{key}={}\n", value.as_str().unwrap_or(""));
    }
    out
}

/// The whole status.
pub(super) fn status(status: &Value) -> String {
    let waits = text(status, "waitsFor");
    if !waits.is_empty() {
        return format!("node {} is not in a cluster yet: {waits}\n", text(status, "node"));
    }
    let members = list(status, "members");
    let shards = list(status, "shards");
    let names: BTreeMap<&str, &str> = members.iter().map(|m| (text(m, "node"), text(m, "name"))).collect();
    let name = |node: &str| names.get(node).map_or_else(|| node.to_owned(), |name| (*name).to_owned());
    let (lost, under) = (number(status, "shardsWithoutLeader"), number(status, "underReplicatedShards"));
    let silent = members.iter().filter(|m| m["answers"] != true).count();
    let health = if lost == 0 && under == 0 && silent == 0 { "healthy" } else { "NOT HEALTHY" };
    let mut out = format!(
        "cluster {} ({health}): {} nodes, {silent} silent; {} shards, {lost} without leader, {under} short of copies\n\n",
        text(status, "name"),
        members.len(),
        shards.len()
    );
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let meta = match (&member["metaLeader"], &member["metaVoter"]) {
                (Value::Bool(true), _) => "leader",
                (_, Value::Bool(true)) => "voter",
                _ => "learner",
            };
            vec![
                text(member, "name").to_owned(),
                text(member, "zone").to_owned(),
                text(member, "address").to_owned(),
                match (&member["answers"], &member["diskFull"]) {
                    (Value::Bool(true), Value::Bool(true)) => "DISK FULL",
                    (Value::Bool(true), _) => "up",
                    _ => "SILENT",
                }
                .to_owned(),
                meta.to_owned(),
                number(member, "replicas").to_string(),
                number(member, "leads").to_string(),
            ]
        })
        .collect();
    out += &table(&["NODE", "ZONE", "ADDRESS", "STATE", "META", "REPLICAS", "LEADS"], &rows);
    out.push('\n');
    let rows: Vec<Vec<String>> = shards
        .iter()
        .map(|shard| {
            let replicas = list(shard, "replicas").iter().map(|replica| {
                let (state, lag) = (text(replica, "state"), number(replica, "lag"));
                let behind = if lag > 0 { format!(" -{lag}") } else { String::new() };
                format!("{}:{state}{behind}", name(text(replica, "node")))
            });
            let leader = shard["leader"].as_str().map_or_else(|| "NONE".to_owned(), name);
            let missing = number(shard, "missing");
            vec![
                number(shard, "shard").to_string(),
                leader,
                if missing == 0 { "ok".to_owned() } else { format!("{missing} MISSING") },
                replicas.collect::<Vec<_>>().join("  "),
            ]
        })
        .collect();
    out += &table(&["SHARD", "LEADER", "COPIES", "REPLICAS (entries behind)"], &rows);
    out.push('\n');
    out += &format!("settings version {}:", number(status, "settingsVersion"));
    for (key, value) in status["settings"].as_object().into_iter().flatten() {
        out += &format!(" {key}={}", value.as_str().unwrap_or(""));
    }
    out.push('\n');
    for member in members {
        for drift in list(member, "drift") {
            out += &format!(
                "DRIFT: {} says {}={}, the cluster {}\n",
                text(member, "name"),
                text(drift, "setting"),
                text(drift, "node"),
                text(drift, "cluster")
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_on_one_screen() {
        let member = |node: &str, name: &str, up: bool, leads: u64| {
            json!({"node": node, "name": name, "zone": "z", "address": "h:1", "answers": up, "metaVoter": true,
                   "metaLeader": leads > 0, "replicas": 1, "leads": leads,
                   "drift": [{"setting": "retention", "node": "30d", "cluster": "15d"}]})
        };
        let replica = |node: &str, state: &str, lag: u64| json!({"replica": 4, "node": node, "state": state, "applied": 9, "lag": lag});
        let status_of = json!({
            "name": "eu", "id": "07", "node": "0a", "waitsFor": "", "shardsWithoutLeader": 0,
            "underReplicatedShards": 1, "settingsVersion": 2, "settings": {"replication-factor": "3"},
            "members": [member("0a", "a", true, 1), member("0b", "b", false, 0)],
            "shards": [{"shard": 1, "leader": "0a", "missing": 1,
                        "replicas": [replica("0a", "leader", 0), replica("0b", "unknown", 7)]}],
        });
        let drawn = status(&status_of);
        let expected = "\
cluster eu (NOT HEALTHY): 2 nodes, 1 silent; 1 shards, 0 without leader, 1 short of copies

NODE  ZONE  ADDRESS  STATE   META    REPLICAS  LEADS
a     z     h:1      up      leader  1         1
b     z     h:1      SILENT  voter   1         0

SHARD  LEADER  COPIES     REPLICAS (entries behind)
1      a       1 MISSING  a:leader  b:unknown -7

settings version 2: replication-factor=3
DRIFT: a says retention=30d, the cluster 15d
DRIFT: b says retention=30d, the cluster 15d
";
        assert_eq!(drawn, expected);
        assert_eq!(settings(&status_of), "version 2\nreplication-factor=3\n");
        let waiting = json!({"node": "0a", "waitsFor": "1 of 3 nodes to form a cluster are here"});
        assert!(status(&waiting).contains("not in a cluster yet: 1 of 3"));
    }
}
