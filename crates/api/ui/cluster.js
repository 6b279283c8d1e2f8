// The page at `cluster`: nodes, shards, where the copies are and how far behind; drawn again while it is looked at.

import { api, el, errorNote, formatTime } from "./base.js";
import { cell, code, number, pairs, pill, table } from "./pages.js";

const AGAIN_MS = 2000;

/** Sentences about what is wrong, worst first: [kind of note, text]. */
function troubles(cluster, names) {
  const notes = [];
  if (cluster.waitsFor) notes.push(["warn", `Not in a cluster yet: ${cluster.waitsFor}.`]);
  const shards = (wanted) => cluster.shards.filter(wanted).map((shard) => shard.shard).join(", ");
  const leaderless = shards((shard) => shard.leader === null);
  if (leaderless) notes.push(["bad", `Without a leader, so that writes to them and queries wait or are refused: shard ${leaderless}.`]);
  const withCopy = (state) => shards((shard) => shard.replicas.some((replica) => replica.state === state));
  const quarantined = withCopy("quarantined");
  if (quarantined) notes.push(["bad", `With a copy in quarantine, which differed from the majority and is fetched again: shard ${quarantined}.`]);
  const failed = withCopy("failed");
  if (failed) notes.push(["bad", `With a copy that has stopped by itself (its node's log says why): shard ${failed}.`]);
  for (const node of cluster.members) {
    if (!node.answers) notes.push(["bad", `Node ${node.name} does not answer at ${node.address}.`]);
    if (node.diskFull) notes.push(["bad", `The disk of node ${node.name} is full: it leads no shards until there is space.`]);
    for (const { setting, node: own, cluster: common } of node.drift) notes.push(["warn", `Node ${node.name} was started with ${setting} = ${own}; the cluster has ${common}.`]);
  }
  const short = shards((shard) => shard.missing > 0);
  if (short) notes.push(["warn", `With fewer copies than the replication factor asks for: shard ${short}.`]);
  const behind = cluster.shards.flatMap((shard) => shard.replicas.filter((replica) => replica.state === "catching up").map((replica) => names.get(replica.node)));
  if (behind.length) notes.push(["info", `Catching up: ${[...new Set(behind)].join(", ")}.`]);
  return notes;
}

const KINDS = { leader: "lead", follower: "good", learner: "info", "catching up": "warn", failed: "bad", quarantined: "bad", unknown: "" };

function draw(main, cluster) {
  const names = new Map(cluster.members.map((node) => [node.node, node.name]));
  const notes = troubles(cluster, names);
  const nodes = cluster.members.toSorted((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const shards = cluster.shards;
  const nodeRows = nodes.map((node) => [
    code(node.name, node.node === cluster.node ? " (this one)" : ""),
    cell(node.zone),
    code(node.address),
    cell(node.answers ? pill("good", "answers") : pill("bad", "silent"), node.diskFull ? pill("bad", "disk full") : null),
    cell(node.metaLeader ? "leads" : node.metaVoter ? "votes" : "follows"),
    number(node.replicas),
    number(node.leads),
  ]);
  const shardRows = shards.map((shard) => [
    code(shard.shard),
    ...nodes.map((node) => {
      const replica = shard.replicas.find((one) => one.node === node.node);
      if (!replica) return cell("");
      return cell(pill(KINDS[replica.state] ?? "", replica.state), replica.lag > 0 ? el("small", {}, ` ${replica.lag.toLocaleString()} behind`) : null);
    }),
  ]);
  main.replaceChildren(
    ...notes.map(([kind, text]) => el("div", { class: "note " + kind }, text)),
    el("div", { class: "card" },
      el("h2", {}, `Cluster ${cluster.name}: ${nodes.length} ${nodes.length === 1 ? "node" : "nodes"}, ${shards.length} shards`, " ", notes.length ? null : pill("good", "healthy")),
      table(["Node", "Zone", "Peer address", "State", "Meta group", "#Copies", "#Leads"], nodeRows)),
    el("div", { class: "card" }, el("h2", {}, "Shards: who has which copy"), table(["Shard", ...nodes.map((node) => node.name)], shardRows)),
    el("div", { class: "card" }, el("h2", {}, `Settings of the cluster, version ${cluster.settingsVersion}`), pairs(cluster.settings)),
    el("p", { class: "hint" }, `As this node saw it at ${formatTime(Date.now())}. In a shell: `, el("code", {}, "isobar cluster status --watch")));
}

export async function clusterPage(main) {
  const shown = el("div", {});
  const stale = el("div", {});
  main.replaceChildren(stale, shown);
  const look = async () => {
    if (!document.hidden) {
      try {
        draw(shown, (await api("cluster/status")).data);
        stale.replaceChildren();
      } catch (error) {
        stale.replaceChildren(errorNote(error), el("p", { class: "hint" }, "What is below is older."));
      }
    }
    setTimeout(look, AGAIN_MS);
  };
  await look();
}
