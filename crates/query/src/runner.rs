//! The answering side of queries that other nodes ask: fragments and lookups over the shards of this node.
//!
//! Their places on the pool are their own: were they those of queries, nodes whose queries wait for each other's
//! fragments could fill each other up for good.

use std::sync::Arc;

use engine::distribute::{Fragment, run};
use model::seam::{BoxFuture, FragmentRunner, QueryBudget, ReadLevel};
use model::{Code, Epoch, Failure, ShardId};
use tokio::time::Instant;

use crate::frontend::Frontend;
use crate::lookup::{LOOKUP, Lookup};
use crate::snapshot;
use crate::union::Union;

/// Runs fragments for other nodes. Cloning shares it with the frontend that it came from.
#[derive(Clone)]
pub struct Leaf {
    frontend: Frontend,
}

impl Leaf {
    /// The leaf of the node that `frontend` answers for.
    pub fn new(frontend: Frontend) -> Self {
        Self { frontend }
    }

    async fn answer(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match bytes.split_first() {
            Some((&LOOKUP, rest)) => self.lookup(Lookup::decode(rest)?).await,
            _ => self.fragment(Fragment::decode(&bytes)?).await,
        }
    }

    async fn fragment(&self, fragment: Fragment) -> Result<Vec<u8>, Failure> {
        let inner = self.frontend.inner();
        self.check_epoch(fragment.epoch)?;
        let deadline = Instant::now() + fragment.deadline.min(inner.config.timeout);
        let own = inner.config.max_memory_bytes;
        let limit = match fragment.memory_bytes {
            0 => own,
            asked if own == 0 => asked,
            asked => asked.min(own),
        };
        let budget = QueryBudget::new(limit);
        let text = fragment.parts.iter().map(engine::distribute::Part::text).collect::<Vec<_>>().join("; ");
        let now_ms = inner.clock.now_ms();
        let active =
            inner.active.enter(fragment.tenant.clone(), "fragment", text, now_ms, Arc::clone(&budget));
        let context = fragment.context(Arc::clone(&budget));
        let order = fragment.shards.first().map_or(0, |shard| shard.0);
        let work = async {
            let place = inner.leaves.place(deadline).await?;
            let source = self.source(&fragment.shards, fragment.read_level, deadline).await?;
            let parts = fragment.parts;
            let compute = move || Ok(run(&parts, &source, &context, order)?.encode());
            inner.leaves.run(place, deadline, &budget, compute).await
        };
        crate::frontend::until_stopped(&active, work).await.map_err(Failure::from)
    }

    async fn lookup(&self, lookup: Lookup) -> Result<Vec<u8>, Failure> {
        let inner = self.frontend.inner();
        self.check_epoch(lookup.epoch)?;
        let deadline = Instant::now() + lookup.deadline.min(inner.config.timeout);
        let budget = QueryBudget::new(inner.config.max_memory_bytes);
        let place = inner.leaves.place(deadline).await.map_err(Failure::from)?;
        let source = self.source(&lookup.shards, lookup.read_level, deadline).await?;
        let requests = lookup.requests(&budget);
        let work = move || Ok(lookup.ask.of(&source, &requests, lookup.limit)?.encode()?);
        inner.leaves.run(place, deadline, &budget, work).await.map_err(Failure::from)
    }

    fn check_epoch(&self, asked: Epoch) -> Result<(), Failure> {
        let own = self.frontend.inner().reader.epoch();
        if own == asked {
            return Ok(());
        }
        Err(Failure::new(
            Code::WrongOwner,
            format!("the query was placed by shard map {asked}, this node has shard map {own}"),
        ))
    }

    /// The series of `shards`, which do not overlap: an asker that cannot rule that out asks for each by itself.
    async fn source(
        &self,
        shards: &[ShardId],
        level: ReadLevel,
        deadline: Instant,
    ) -> Result<Union, Failure> {
        let inner = self.frontend.inner();
        let taken = snapshot::once(inner.reader.as_ref(), shards, level, deadline).await?;
        Ok(Union::new(taken, false))
    }
}

impl FragmentRunner for Leaf {
    fn run(&self, fragment: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        Box::pin(self.answer(fragment))
    }
}
